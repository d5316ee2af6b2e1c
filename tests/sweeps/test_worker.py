"""Whole sweeps in real processes, with a formula instead of a network."""

import threading
import time

import pytest
import toy_task
import yaml
from toy_task import go, ledger, spec

from bbi_lightning.sweeps.folder import SweepFolder
from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.status import sweep_status
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.tracking.run_folder import RunFolder

X = {"x": {"low": 0.001, "high": 1.0, "log": True}}
ONE_ARM = {"plain": {"space": X}}


def trials(root, sweep):
    return [t for arm in sweep.arms for t in Studies(root / "toy" / "journal.log", sweep).trials(arm.name)]


def attempts(root):
    return {
        path.parent.name: len(RunFolder(path.parent).record.attempts)
        for path in root.glob("toy/runs/*/run.json")
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    return root, go(root, spec())


def test_every_trial_runs_once_and_is_told_what_its_run_says(finished):
    root, end = finished
    assert end.reason == "done"
    assert end.status.done
    assert (end.status.total, end.status.failures) == (12, ())
    for trial in trials(root, spec()):
        record = RunFolder(root / "toy" / "runs" / trial.run).record
        expected = toy_task.outcome(trial.job.params["x"], trial.job.params.get("y", 0.0), trial.job.seed)
        assert (trial.outcome.value, trial.outcome.tie_breaker) == (expected["val/acc"], expected["val/loss"])
        assert dict(record.labels) == trial.job.labels("toy")
        assert len(record.attempts) == 1
        assert trial.worker["pid"] == record.attempts[0].pid
        assert trial.outcome.seconds > 0
    assert len(ledger(root)) == 12


def test_each_trial_has_a_process_of_its_own_and_its_output_lies_beside_its_run(finished):
    root, _ = finished
    assert len({trial.worker["pid"] for trial in trials(root, spec())}) == 12
    for folder in (root / "toy" / "runs").iterdir():
        assert (folder / "log.txt").read_text() == f"attempt 1 of {folder.name}\n"


def test_the_description_lies_beside_the_runs(finished):
    root, _ = finished
    assert yaml.safe_load((root / "toy" / "sweep.yaml").read_text()) == spec().plain()


def test_the_same_sweep_again_starts_nothing(finished):
    root, end = finished
    journal = (root / "toy" / "journal.log").read_bytes()
    again = go(root, spec())
    assert again.status == end.status
    assert (root / "toy" / "journal.log").read_bytes() == journal
    assert set(attempts(root).values()) == {1}


def test_the_status_of_others_is_the_same(finished):
    root, end = finished
    assert sweep_status(SweepFolder(root / "toy")) == end.status


def test_extending_runs_only_what_is_new(tmp_path):
    go(tmp_path, spec())
    before = ledger(tmp_path)
    end = go(tmp_path, spec(search={"trials": 7}, replicates={"count": 3}))
    after = ledger(tmp_path)
    assert {name: after[name] for name in before} == before
    assert end.status.done
    assert set(attempts(tmp_path).values()) == {1}
    assert {arm.searched for arm in end.status.arms} == {7}
    assert {arm.replicated for arm in end.status.arms} == {3}

    once = tmp_path / "at once"
    once.mkdir()
    go(once, spec(search={"trials": 7}, replicates={"count": 3}))
    assert ledger(once).items() <= after.items(), "grown or planned so from the start: the same runs"


def test_a_diverged_trial_is_a_result(tmp_path):
    end = go(tmp_path, spec(base=["diverge_above=0.1"], arms=ONE_ARM))
    (arm,) = end.status.arms
    assert end.status.done
    assert arm.diverged > 0
    assert arm.failed == 0
    assert arm.best.job.params["x"] <= 0.1
    assert arm.replicated == 2


def test_an_arm_that_only_diverges_has_no_replicates_and_holds_nobody_up(tmp_path):
    arms = {"plain": {"space": X}, "wild": {"overrides": ["diverge_above=0"], "space": X}}
    end = go(tmp_path, spec(arms=arms))
    plain, wild = end.status.arms
    assert end.status.done
    assert (wild.diverged, wild.replicates, wild.best) == (4, 0, None)
    assert plain.replicated == 2


def test_a_raising_trial_fails_with_its_traceback_and_the_others_go_on(tmp_path):
    end = go(tmp_path, spec(base=["raise_above=0.1"], arms=ONE_ARM))
    (arm,) = end.status.arms
    assert end.status.done
    assert arm.failed == len(end.status.failures) > 0
    assert arm.replicated == 2
    for trial in end.status.failures:
        x = trial.job.params["x"]
        assert trial.outcome.error.splitlines()[-1] == f"RuntimeError: x={x} is more than I can bear"
        assert "is more than I can bear" in (tmp_path / "toy/runs" / trial.run / "log.txt").read_text()
        assert attempts(tmp_path)[trial.run] == 1, "an error is not tried again by itself"


def test_a_trial_without_the_objective_fails_with_a_sentence(tmp_path):
    end = go(tmp_path, spec(base=["mute_above=0"], arms=ONE_ARM))
    assert {t.outcome.error for t in end.status.failures} == {"the run reports no val/acc, only val/other"}


def test_an_error_before_there_is_a_run_is_kept_too(tmp_path):
    end = go(tmp_path, spec(base=["name=raise"], arms=ONE_ARM))
    assert len(end.status.failures) == 4
    assert end.status.failures[0].outcome.error.splitlines()[-1] == "RuntimeError: no name for this one"


def test_a_trial_whose_process_is_killed_runs_once_more_in_its_folder(tmp_path):
    sweep = spec(base=["kill_once_above=0.1"], arms=ONE_ARM)
    end = go(tmp_path, sweep)
    assert end.status.done
    assert not end.status.failures
    killed = [t for t in trials(tmp_path, sweep) if t.job.params["x"] > 0.1]
    assert {t.losses for t in killed} == {1}
    assert {attempts(tmp_path)[t.run] for t in killed} == {2}
    for t in killed:
        first, second = RunFolder(tmp_path / "toy/runs" / t.run).record.attempts
        assert (first.reason, second.reason) == ("lost", "finished")


def test_a_trial_that_kills_its_process_twice_has_failed(tmp_path):
    sweep = spec(base=["kill_above=0.1"], arms=ONE_ARM)
    end = go(tmp_path, sweep)
    assert end.status.done
    assert {t.outcome.error for t in end.status.failures} == {
        "its process left no result, twice: killed by SIGKILL"
    }
    assert {attempts(tmp_path)[t.run] for t in end.status.failures} == {2}


def test_failed_trials_run_again_when_asked_and_only_those(tmp_path):
    sweep = spec(base=["raise_above=0.1"], arms=ONE_ARM)
    failed = {t.run for t in go(tmp_path, sweep).status.failures}
    assert go(tmp_path, sweep).status.failures != (), "not by themselves"
    before = attempts(tmp_path)

    end = go(tmp_path, sweep, retry_failed=True)
    after = attempts(tmp_path)
    assert end.status.done
    assert {name for name in after if after[name] > before.get(name, 0)} == failed
    assert {t.run for t in end.status.failures} == failed, "they raise for ever"


def test_two_trials_that_are_one_run_share_it(tmp_path):
    twins = {"a": {"space": X}, "b": {"space": X}}  # no override tells them apart
    sweep = spec(arms=twins, workers=2)
    end = go(tmp_path, sweep)
    assert end.status.done
    assert set(attempts(tmp_path).values()) == {1}
    by_arm = {arm: [t for t in trials(tmp_path, sweep) if t.job.arm == arm] for arm in twins}
    assert [t.outcome.value for t in by_arm["a"]] == [t.outcome.value for t in by_arm["b"]]
    assert len(ledger(tmp_path)) == 6


def test_a_run_that_somebody_else_trains_is_waited_for(tmp_path):
    sweep = spec(arms=ONE_ARM, search={"trials": 1}, replicates={"count": 0})
    ready, release = threading.Event(), threading.Event()
    first = Studies(tmp_path / "j.log", sweep)
    first.plan()
    x = first.trials("plain")[0].job.params["x"]
    overrides = ["seconds=0", f"x={x}", "seed=0"]

    def train_by_hand():
        folder = RunFolder.create(tmp_path / "toy/runs" / toy_task.run_name(overrides), config="{}\n")
        folder.begin_attempt()
        ready.set()
        release.wait(60)
        folder.end_attempt("finished", summary={"val/acc": 0.125})

    hand = threading.Thread(target=train_by_hand)
    hand.start()
    ready.wait(60)
    threading.Timer(2.0, release.set).start()
    began = time.monotonic()
    end = go(tmp_path, sweep)
    hand.join()
    assert end.status.arms[0].best_value == 0.125
    assert time.monotonic() - began > 1.5
    assert set(attempts(tmp_path).values()) == {1}


def test_half_a_sweep_is_fair(tmp_path):
    sweep = spec(
        search={"trials": 6},
        replicates={"count": 0},
        arms={name: {"overrides": [f"arm={name}"], "space": X} for name in "abc"},
        workers=1,
    )
    go(tmp_path, sweep)
    begun = sorted(trials(tmp_path, sweep), key=lambda t: (t.worker["since"], t.run))
    order = sorted(
        begun, key=lambda t: RunFolder(tmp_path / "toy/runs" / t.run).record_file.stat().st_mtime_ns
    )
    for k in range(0, 18, 3):
        assert {t.job.arm for t in order[k : k + 3]} == {"a", "b", "c"}
        assert {t.job.index for t in order[k : k + 3]} == {k // 3}


def test_replicates_of_an_arm_start_while_others_search(tmp_path):
    sweep = spec(
        replicates={"count": 2, "first_seed": 1000},
        arms={
            "quick": {"overrides": ["arm=quick"], "space": X},
            "slow": {"overrides": ["arm=slow", "seconds=3.0"], "space": X},
        },
        base=[],
        workers=4,
    )
    go(tmp_path, sweep)
    times = {
        (t.job.arm, t.job.phase, t.job.index): RunFolder(tmp_path / "toy/runs" / t.run)
        .record_file.stat()
        .st_mtime
        for t in trials(tmp_path, sweep)
    }
    assert times["quick", "replicate", 1] < max(times["slow", "search", i] for i in range(4))


def test_a_wrong_config_is_found_before_anything_starts(tmp_path):
    arms = ONE_ARM | {"far": {"space": {"x": {"low": 0.001, "high": 11.0, "log": True}}}}
    with pytest.raises(SweepError, match=r"^arm far: x=11.0 is above 10: use less$"):
        go(tmp_path, spec(arms=arms))
    assert not (tmp_path / "toy").exists(), "the corrected command must find no folder in its way"


def test_a_finished_sweep_is_not_checked_again(tmp_path):
    sweep = spec(arms=ONE_ARM)
    go(tmp_path, sweep)
    (tmp_path / "output.txt").unlink()
    go(tmp_path, sweep)
    assert "checking" not in (tmp_path / "output.txt").read_text()


def test_a_lost_journal_costs_no_run(tmp_path):
    sweep = spec()
    end = go(tmp_path, sweep)
    (tmp_path / "toy" / "journal.log").unlink()
    again = go(tmp_path, sweep)
    assert set(attempts(tmp_path).values()) == {1}
    values = [[arm.best_value for arm in e.status.arms] for e in (end, again)]
    assert values[0] == values[1]
    assert again.status.done


def test_a_journal_torn_at_its_end_goes_on(tmp_path):
    sweep = spec()
    go(tmp_path, sweep)
    journal = tmp_path / "toy" / "journal.log"
    journal.write_bytes(journal.read_bytes()[:-7])  # the last trial's "it has ended" is gone
    end = go(tmp_path, sweep)
    assert end.status.done
    assert set(attempts(tmp_path).values()) == {1}
    assert "half-written entry" in " ".join((tmp_path / "output.txt").read_text().split())
