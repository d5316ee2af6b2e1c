"""Any order of saving, dying, running full, damage and reading: the newest valid checkpoint is never lost."""

from __future__ import annotations

import random
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bbi_lightning.checkpoints.manifest import MANIFEST, STATE
from bbi_lightning.checkpoints.store import CheckpointStore, Note
from tests.checkpoints.failing_disk import FailingDisk, watched

RUN = "toy-s0"
KEEP_LAST = 2
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the disk is not what is tested here
reasons = st.sets(st.sampled_from(["best", "milestone"])).map(lambda extra: ("last", *sorted(extra)))


def content_of(step: int) -> bytes:
    return b"%d " % step * (step % 50 + 1)


def save(store: CheckpointStore, note: Note):
    folder = store.begin()
    try:
        (folder / STATE).write_bytes(content_of(note.step))
    except OSError:
        store.abandon(folder)
        raise
    return store.commit(folder, note)


@dataclass
class Saved:
    """What the model knows of a checkpoint: `readable` is its manifest, `intact` its state."""

    step: int
    reasons: tuple[str, ...]
    readable: bool = True
    intact: bool = True

    @property
    def valid(self) -> bool:
        return self.readable and self.intact


class Interleavings(RuleBasedStateMachine):
    """The store beside a model of it: number to `Saved`."""

    @initialize()
    def set_up(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="store-", dir=_MEMORY)).resolve()
        self.folder = self.root / "checkpoints"
        self.model: dict[int, Saved] = {}
        self.steps = 0
        self.reopen()

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    @rule()
    def reopen(self) -> None:
        self.store = CheckpointStore(self.folder, RUN, keep_last=KEEP_LAST)

    def next_note(self, why: tuple[str, ...]) -> tuple[int, Note]:
        self.steps += 1
        return max(self.model, default=0) + 1, Note(step=self.steps, epoch=0, reasons=why)

    def after_saving(self, number: int, note: Note) -> dict[int, Saved]:
        """What there must be once the new one has been verified and the rest cleared away."""
        all_ = {**self.model, number: Saved(note.step, note.reasons)}
        valid = sorted(n for n, saved in all_.items() if saved.valid)
        best = [n for n in valid if "best" in all_[n].reasons]
        kept = {*valid[-KEEP_LAST:], *best[-1:]}
        return {
            n: saved
            for n, saved in all_.items()
            if n in kept or not saved.readable or "milestone" in saved.reasons
        }

    @rule(why=reasons)
    def save(self, why: tuple[str, ...]) -> None:
        number, note = self.next_note(why)
        assert save(self.store, note).number == number
        self.model = self.after_saving(number, note)
        assert self.visible() == set(self.model)
        assert not [path for path in self.folder.iterdir() if path.name.startswith(".")]

    @rule(why=reasons, at=st.integers(1, 60), power=st.booleans(), seed=st.integers(0, 99))
    def die_while_saving(self, why: tuple[str, ...], at: int, power: bool, seed: int) -> None:
        number, note = self.next_note(why)
        with watched(FailingDisk(self.folder, kill_at=at)) as disk:
            save(self.store, note)
        if power:
            disk.lose_power(random.Random(seed))
        self.settle(number, note)
        self.reopen()

    @rule(why=reasons, at=st.integers(1, 60))
    def find_the_disk_full(self, why: tuple[str, ...], at: int) -> None:
        number, note = self.next_note(why)
        before = self.visible()
        saved = False
        with watched(FailingDisk(self.folder, refuse_at=at)), suppress(OSError):
            save(self.store, note)
            saved = True
        assert saved or self.visible() == before, "a save that failed has left or taken something"
        self.settle(number, note)

    def settle(self, number: int, note: Note) -> None:
        """Whether or not the new one got through, nothing may be missing that should be there then."""
        visible = self.visible()
        if number in visible:
            kept = self.after_saving(number, note)
            assert set(kept) <= visible <= {*self.model, number}
            self.model = {n: {**self.model, **kept}[n] for n in visible}
        else:
            assert visible == set(self.model)

    @precondition(lambda self: self.model)
    @rule(which=st.integers(0, 9), file=st.sampled_from([STATE, MANIFEST]), how=st.integers(0, 2))
    def damage(self, which: int, file: str, how: int) -> None:
        number = sorted(self.model)[which % len(self.model)]
        saved = self.model[number]
        path = self.folder / f"checkpoint-{number:06d}-step-{saved.step}" / file
        if not (saved.intact if file == STATE else saved.readable):
            return  # the same bit might be put right again
        content = bytearray(path.read_bytes())
        if how == 0:
            path.unlink()
        elif how == 1:
            path.write_bytes(content[: len(content) // 2])
        elif content:
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        if file == STATE:
            saved.intact = False
        else:
            saved.readable = False
        self.reopen()  # who has verified a checkpoint believes in it

    def visible(self) -> set[int]:
        return {int(path.name.split("-")[1]) for path in self.folder.glob("checkpoint-*")}

    @invariant()
    def a_reader_finds_the_newest_valid_one(self) -> None:
        if not hasattr(self, "model"):
            return
        newest, passed_over = CheckpointStore(self.folder, RUN).newest_valid()
        valid = [number for number, saved in self.model.items() if saved.valid]
        if not valid:
            assert newest is None
            assert len(passed_over) == len(self.model)
        else:
            assert newest.number == max(valid)
            assert (newest.path / STATE).read_bytes() == content_of(self.model[newest.number].step)
            assert len(passed_over) == sum(number > newest.number for number in self.model)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=100, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def operations_of_a_save(tmp_path: Path) -> int:
    folder = tmp_path / "counted"
    store = CheckpointStore(folder, RUN, keep_last=1)
    save(store, Note(step=1, epoch=0))
    with watched(FailingDisk(folder)) as disk:
        save(store, Note(step=2, epoch=0))
    return disk.operations


def test_a_death_at_any_operation_leaves_the_old_one_or_the_new_one(tmp_path):
    tmp_path = tmp_path.resolve()
    operations = operations_of_a_save(tmp_path)
    assert operations > 15
    outcomes = []
    for at in range(1, operations + 1):
        for seed in range(4):
            folder = tmp_path / f"{at}-{seed}"
            store = CheckpointStore(folder, RUN, keep_last=1)
            save(store, Note(step=1, epoch=0))
            with watched(FailingDisk(folder, kill_at=at)) as disk:
                save(store, Note(step=2, epoch=0))
            assert disk.dead
            if seed:
                disk.lose_power(random.Random(seed))
            newest, passed_over = CheckpointStore(folder, RUN).newest_valid()
            assert passed_over == []
            assert (newest.path / STATE).read_bytes() == content_of(newest.step)
            outcomes.append(newest.step)
            save(CheckpointStore(folder, RUN, keep_last=1), Note(step=3, epoch=0))
            assert [path.name.split("-")[-1] for path in folder.iterdir()] == ["3"]
    assert set(outcomes) == {1, 2}


@pytest.mark.parametrize("skipped", ["files", "folder"])
def test_the_lost_power_of_these_tests_finds_what_was_not_synced(tmp_path, monkeypatch, skipped):
    """The tests above would fail for a store that does not force everything to the disk."""
    from bbi_lightning.checkpoints import store as store_module

    folder = tmp_path.resolve() / "checkpoints"
    real = store_module.sync
    monkeypatch.setattr(
        store_module, "sync", lambda path: None if path.is_dir() == (skipped == "folder") else real(path)
    )
    store = CheckpointStore(folder, RUN)
    lost = 0
    for seed in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        with watched(FailingDisk(folder)) as disk:
            save(store, Note(step=1, epoch=0))
        disk.lose_power(random.Random(seed))
        lost += CheckpointStore(folder, RUN).newest_valid()[0] is None
    assert lost > 0
