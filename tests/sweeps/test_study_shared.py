"""Many workers, one study: no trial is two workers' at a time, none is forgotten, none is told twice."""

import contextlib
import errno
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import optuna
import pytest
import toy_task
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.trial import Outcome, Owner

RACER = """
import sys
from pathlib import Path
import toy_task
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.trial import Outcome, Owner
journal, name, mode = sys.argv[1:]
studies = Studies(Path(journal), toy_task.spec(search={"trials": 20}, replicates={"count": 0}))
print("ready", flush=True)
sys.stdin.readline()
owner = Owner(name, "1")
while trial := studies.claim(owner, lambda other: other.id != "vanished"):
    if mode == "take":
        print(trial.job.name)
        break
    if studies.tell(trial, Outcome("finished", value=0.5)):
        print(trial.job.name)
"""


def race(journal, mode, count=8):
    """What each of several processes that start together says."""
    command = [sys.executable, "-c", RACER, str(journal)]
    racers = [
        subprocess.Popen(
            [*command, f"w{n}", mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        for n in range(count)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    return [racer.communicate(timeout=100)[0].split() for racer in racers]


def test_the_trial_of_a_vanished_worker_is_won_by_one_of_eight_processes(tmp_path):
    spec = toy_task.spec(search={"trials": 20}, replicates={"count": 0})
    studies = Studies(tmp_path / "journal.log", spec)
    studies.plan()
    lost = studies.claim(Owner("vanished", "1"), lambda _: True)
    won = [name for names in race(tmp_path / "journal.log", "take") for name in names]
    assert len(won) == len(set(won)) == 8
    assert won.count(lost.job.name) == 1
    assert not studies.tell(lost, Outcome("finished", value=0.1)), "it is another's by now"


def test_eight_processes_together_tell_every_trial_once(tmp_path):
    spec = toy_task.spec(search={"trials": 20}, replicates={"count": 0})
    studies = Studies(tmp_path / "journal.log", spec)
    studies.plan()
    told = Counter(name for names in race(tmp_path / "journal.log", "tell") for name in names)
    assert told == Counter(f"{arm}/{index}" for arm in ("plain", "wide") for index in range(20))
    assert studies.is_over()


def test_trials_of_another_program_are_left_alone(tmp_path):
    studies = Studies(tmp_path / "journal.log", toy_task.spec())
    studies.plan()
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    storage = optuna.storages.JournalStorage(backend)
    optuna.load_study(study_name="toy/plain", storage=storage).add_trial(
        optuna.trial.create_trial(value=0.9, params={}, distributions={})
    )
    optuna.create_study(study_name="mine", storage=storage).add_trial(
        optuna.trial.create_trial(value=0.9, params={}, distributions={})
    )
    grown = Studies(tmp_path / "journal.log", toy_task.spec(search={"trials": 6}))
    grown.plan()
    for one in (studies, grown):
        assert [trial.job.index for trial in one.trials("plain")] == list(range(6))
    taken = [studies.claim(Owner("me", "1"), lambda _: True) for _ in range(12)]
    assert sorted(trial.job.name for trial in taken) == sorted(
        f"{arm}/{index}" for arm in ("plain", "wide") for index in range(6)
    )


def test_a_journal_that_was_taken_back_is_read_from_its_beginning(tmp_path):
    journal = tmp_path / "journal.log"
    studies = Studies(journal, toy_task.spec())
    studies.plan()
    before = journal.read_bytes()
    assert studies.claim(Owner("me", "1"), lambda _: True)
    assert len(studies.running()) == 1
    journal.write_bytes(before)
    assert studies.running() == []
    assert studies.claim(Owner("me", "1"), lambda _: True).job.name == "plain/0"


def test_what_could_not_be_written_can_be_told_again(tmp_path, monkeypatch):
    journal = tmp_path / "journal.log"
    studies = Studies(journal, toy_task.spec())
    studies.plan()
    trial = studies.claim(Owner("me", "1"), lambda _: True)
    before = journal.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bbi_lightning.sweeps.journal.os.fsync", full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                studies.tell(trial, Outcome("finished", value=0.5))
            assert journal.read_bytes() == before
            assert [t.key for t in studies.running()] == [trial.key]
    assert studies.tell(trial, Outcome("finished", value=0.5))
    assert Studies(journal, studies.spec).due(trial.job.arm)[0].outcome.value == 0.5


class Sharing(RuleBasedStateMachine):
    """Three workers with a view each; the model knows who has which trial, and what was told."""

    @initialize()
    def begin(self):
        self.exit = contextlib.ExitStack()
        folder = self.exit.enter_context(tempfile.TemporaryDirectory())
        self.journal, self.count = Path(folder) / "journal.log", 2
        self.lives = dict.fromkeys("abc", 1)
        self.views = {name: Studies(self.journal, self.spec()) for name in "abc"}
        self.views["a"].plan()
        self.held, self.ghosts, self.told = {}, [], {}

    def teardown(self):
        self.exit.close()

    def spec(self):
        search = {"trials": self.count}
        return toy_task.spec(search=search, replicates={"count": 1}, arms={"one": {"space": {"x": SPACE}}})

    def owner(self, name):
        return Owner(name, str(self.lives[name]))

    def is_alive(self, owner):
        return self.lives[owner.id] == int(owner.incarnation)

    @rule(name=st.sampled_from("abc"))
    def claim(self, name):
        trial = self.views[name].claim(self.owner(name), self.is_alive)
        if trial is None:
            begun = [t for t in self.views[name].running() if t.owner is None or not self.is_alive(t.owner)]
            assert begun == [], "what has no living owner must be taken up"
            return
        assert trial.key not in self.held, "somebody living has it"
        assert trial.key not in self.told, "it has ended"
        self.held[trial.key] = (name, trial)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), state=st.sampled_from(["finished", "diverged", "pruned", "failed"]))
    def tell(self, data, state):
        name, trial = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        value = (trial.key % 5) / 5 if state == "finished" else None
        assert self.views[name].tell(trial, Outcome(state, value=value))
        self.told[trial.key] = state
        self.ghosts.append((name, trial))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data):
        name, trial = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        self.views[name].release(trial)
        self.ghosts.append((name, trial))

    @rule(name=st.sampled_from("abc"))
    def vanish(self, name):
        self.lives[name] += 1
        gone = [key for key, (holder, _) in self.held.items() if holder == name]
        self.ghosts += [(name, trial) for trial in (self.held.pop(key)[1] for key in gone)]
        self.views[name] = Studies(self.journal, self.spec())

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data())
    def a_ghost_lets_go(self, data):
        name, trial = data.draw(st.sampled_from(self.ghosts))
        if not any(t.owner == trial.owner for t in self.views[name].running() if t.key == trial.key):
            size = self.journal.stat().st_size
            self.views[name].release(trial)
            assert not self.views[name].tell(trial, Outcome("failed"))
            assert self.journal.stat().st_size == size, "nothing is written by who has lost it"

    @precondition(lambda self: self.count < 5)
    @rule(name=st.sampled_from("abc"))
    def extend(self, name):
        self.count += 1
        for view in self.views.values():
            view.spec = self.spec()
        self.views[name].plan()

    @rule(name=st.sampled_from("abc"))
    def retry(self, name):
        for trial in self.views[name].due("one"):
            if trial.state == "failed":
                self.views[name].again(trial)

    @invariant()
    def all_see_the_same_and_it_is_what_was_done(self):
        for view in [*self.views.values(), Studies(self.journal, self.spec())]:
            trials = {trial.key: trial for trial in view.trials("one")}
            assert {key: t.state for key, t in trials.items() if t.ended} == self.told
            assert {key for key, t in trials.items() if t.state == "running"} >= set(self.held)
            for key, (_, trial) in self.held.items():
                assert trials[key].owner == trial.owner
            due = view.due("one")
            assert len({t.job.place for t in due}) == len(due), "a place has one trial that counts"
            assert {t.job.index for t in due if t.job.phase == "search"} == set(range(self.count))


SPACE = {"low": 0.001, "high": 1.0, "log": True}
TestSharing = pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")(
    Sharing.TestCase
)
TestSharing.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
