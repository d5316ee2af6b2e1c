"""`bbi resume`, and beginnings other than nothing: what a user types, and what is said to mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bbi_lightning.cli import app
from bbi_lightning.cli.resume import _changed
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.training.config import compose
from bbi_lightning.training.run import train

QUICK = [
    "tracking=none",
    "runtime.progress=none",
    "runtime.threads=1",
    "runtime.accelerator=cpu",
    "trainer.max_epochs=1",
]


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A finished run in `runs/` of the current folder."""
    monkeypatch.chdir(tmp_path)
    return RunFolder(train(compose(QUICK)).path.resolve())


@pytest.fixture
def begun(finished: RunFolder) -> RunFolder:
    """The same, as if its process had been killed before it wrote the end down."""
    record = finished.record_file
    record.write_text(record.read_text().replace('"state": "finished"', '"state": "running"'))
    return finished


def bbi(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def names() -> set[str]:
    return {path.name for path in Path("runs").iterdir()}


def test_a_run_goes_on_by_its_name(begun: RunFolder) -> None:
    result = bbi("resume", begun.name)
    assert result.exit_code == 0, result.output
    assert f"{begun.name}: finished" in result.output
    assert [a.from_step for a in begun.record.attempts] == [0, 18]
    assert names() == {begun.name}


def test_a_folder_that_was_moved_and_renamed_goes_on_where_it_is(begun: RunFolder, tmp_path: Path) -> None:
    moved = begun.path.rename(tmp_path / "elsewhere")
    result = bbi("resume", str(moved), "runtime.log_every=7", "tracking=none")
    assert result.exit_code == 0, result.output
    assert RunFolder(moved).record.state == "finished"
    assert names() == set()


def test_values_are_read_as_bbi_train_reads_them(begun: RunFolder) -> None:
    config, grows = _changed(begun, ["checkpoint.every=1e3", "runtime.max_time=1:30", "tracking=offline"])
    assert (config.checkpoint.every, config.runtime.max_time) == (1000.0, "1:30")
    assert config.tracking.mode == "offline"
    assert config.trainer == compose(QUICK).trainer
    assert not grows


def test_a_finished_run_is_found_finished(finished: RunFolder) -> None:
    result = bbi("resume", finished.name)
    assert result.exit_code == 0
    assert len(finished.record.attempts) == 1


def test_a_longer_run_is_one_of_its_own_and_the_same_words_find_it_again(finished: RunFolder) -> None:
    for _ in range(2):
        result = bbi("resume", finished.name, "trainer.max_epochs=2")
        assert result.exit_code == 0, result.output
    (longer,) = names() - {finished.name}
    record = RunFolder(Path("runs") / longer).record
    assert record.origin == {"run": finished.name, "step": 18, "take": "everything"}
    assert record.summary["steps"] == 36
    assert len(record.attempts) == 1
    assert finished.record.summary["steps"] == 18


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim.lr=3"], "optim.lr=3 would make another run: begin one with bbi train optim.lr=3 --from"),
        (["trainer.max_epochs=1"], "trainer.max_epochs=1 is no more than the run has had (1): give more"),
        (
            ["trainer.max_epochs=many"],
            "trainer.max_epochs=many is no more than the run has had (1): give more",
        ),
        (["runtime.threats=2"], "runtime.threats=2 is unknown: did you mean runtime.threads?"),
        (["runtime.threads=0"], "threads=0 is too small: give 1 or more"),
        (["tracking=nowhere"], "tracking=nowhere is not an option of tracking"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_everything_as_it_was(
    words: list[str], said: str, begun: RunFolder
) -> None:
    before = begun.record
    result = bbi("resume", begun.name, *words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert begun.record == before
    assert names() == {begun.name}


def test_an_unknown_run_is_one_sentence_with_the_nearest_name(finished: RunFolder) -> None:
    result = bbi("resume", finished.name[:-1] + "1")
    assert result.exit_code == 2
    assert f"did you mean {finished.name}?" in result.stderr
    assert bbi("resume", "x", "--dir", "nowhere").exit_code == 2


def test_the_beginning_elsewhere_is_said_in_two_words(finished: RunFolder) -> None:
    result = bbi("train", *QUICK, "optim=sgd", "--from", finished.name, "--take", "weights")
    assert result.exit_code == 0, result.output
    (other,) = names() - {finished.name}
    assert RunFolder(Path("runs") / other).record.origin["run"] == finished.name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "RUN"], "does not say what to take: add --take weights or weights_and_optimizer"),
        (["--take", "weights"], "--take=weights needs a place to take it from: add --from RUN"),
        (["--from", "nowhere", "--take", "weights"], "there is no run nowhere: give a run's folder"),
        (["--from", "RUN", "--take", "half"], "start.take=half"),
    ],
)
def test_mistakes_in_the_beginning_are_one_sentence(words: list[str], said: str, finished: RunFolder) -> None:
    result = bbi("train", *QUICK, "seed=1", *(finished.name if word == "RUN" else word for word in words))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert said in line
    assert names() == {finished.name}


def test_a_fresh_beginning_keeps_the_old_run(finished: RunFolder) -> None:
    result = bbi("train", *QUICK, "--fresh")
    assert result.exit_code == 0, result.output
    assert names() == {finished.name, ".replaced"}
    assert RunFolder(Path("runs/.replaced") / f"{finished.name}-1").record.state == "finished"
