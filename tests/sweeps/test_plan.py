"""The plan of a sweep: every config checked, costs measured, what is compared in words; nothing is left."""

import dataclasses
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence

import pytest
import toy_task
from toy_task import TASK, spec

from bbi_lightning.sweeps import child
from bbi_lightning.sweeps.config_check import points_to_expect
from bbi_lightning.sweeps.fairness import differences_of_budget, what_is_compared
from bbi_lightning.sweeps.folder import SweepFolder
from bbi_lightning.sweeps.packing import Node, pack
from bbi_lightning.sweeps.plan import make_plan
from bbi_lightning.sweeps.probe import Measured, Probing
from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.task import Task

X = {"x": {"low": 0.001, "high": 1.0, "log": True}}
GIB = 2**30


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where temporary folders are made, to see that none is left."""
    child.fork_server(())  # has its own temporary folder, for longer than a test
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_plan_counts_checks_and_measures_and_leaves_nothing(tmp_path, temporary):
    plan = make_plan(spec(), TASK, tmp_path / "sweeps")
    assert [(arm.name, arm.trials, arm.replicates) for arm in plan.arms] == [("plain", 4, 2), ("wide", 4, 2)]
    assert plan.runs == 12
    assert plan.checked == 4 + 2 + 4 + 2  # the trials, and the ends of the spaces
    assert 0 < plan.seconds < 60
    assert plan.disk_bytes > 0
    assert plan.warnings == ()
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "sweeps").exists()
    json.dumps(plan.plain(), allow_nan=False)


def test_without_a_probe_nothing_runs_and_what_is_not_known_is_null(tmp_path):
    plain = make_plan(spec(base=["raise_above=0"]), TASK, tmp_path, Probing(0)).plain()
    assert plain["seconds"] is plain["core_hours"] is plain["disk_bytes"] is None
    assert plain["arms"]["wide"]["measured"] is None
    json.dumps(plain, allow_nan=False)


def test_a_trial_in_the_middle_that_cannot_run_is_found_and_named(tmp_path):
    from bbi_lightning.sweeps.points import arm_points

    sweep = spec(search={"sampler": "halton", "trials": 50, "seed": 0})
    points = arm_points(sweep, sweep.arm("wide"))
    odd = points[33]["x"]
    task = dataclasses.replace(TASK, validate=_Refuse(odd))
    with pytest.raises(SweepError, match=rf"^wide/33: x={odd} is odd: use another$"):
        make_plan(sweep, task, tmp_path, Probing(0))


@dataclasses.dataclass(frozen=True)
class _Refuse:
    x: float

    def __call__(self, overrides: Sequence[str]) -> None:
        given = toy_task.settings(overrides)
        if given["x"] == self.x and given.get("kind") == "wide":
            raise ValueError(f"x={given['x']} is odd: use another")


def test_an_end_of_a_space_that_cannot_run_is_found_before_a_longer_search_gets_there(tmp_path):
    sweep = spec(arms={"far": {"space": {"x": {"low": 0.001, "high": 10.5}}}}, search={"trials": 1})
    with pytest.raises(SweepError, match=r"arm far, at an end of its space: x=10.5 is above 10: use less"):
        make_plan(sweep, TASK, tmp_path, Probing(0))


def test_when_all_are_wrong_one_is_shown_and_the_number_of_others_said(tmp_path):
    sweep = spec(arms={"far": {"space": {"x": {"low": 11.0, "high": 12.0}}}}, search={"trials": 9})
    with pytest.raises(SweepError, match=r"^far/0: .*\(at least 4 more are wrong\)$"):
        make_plan(sweep, TASK, tmp_path, Probing(0))


def _checker(overrides):
    assert overrides[0] == "seconds=0"
    return _check


def _check(params, overrides):
    if not overrides[-1].startswith("seed="):
        raise ValueError("no seed")
    if params["x"] > 0.5:
        raise ValueError(f"x={params['x']} is checked by the checker")


def test_a_tasks_own_checker_is_used_for_the_points(tmp_path):
    task = dataclasses.replace(TASK, checker=_checker)
    with pytest.raises(SweepError, match="is checked by the checker"):
        make_plan(spec(), task, tmp_path, Probing(0))


def test_a_sweep_that_was_begun_otherwise_is_refused_before_anything_is_checked(tmp_path):
    SweepFolder(tmp_path / "toy").write_spec(spec(base=["seconds=1"]))
    with pytest.raises(SweepError, match="was begun with"):
        make_plan(spec(), TASK, tmp_path)


def test_progress_reaches_the_end(tmp_path):
    seen = []
    make_plan(spec(), TASK, tmp_path, progress=lambda *step: seen.append(step))
    checks = [step for step in seen if step[0].startswith("checking")]
    assert checks[0][1:] == (0, 12)
    assert checks[-1][1:] == (12, 12)
    assert [step[1:] for step in seen[len(checks) :]] == [(0, 2), (1, 2)]


def test_what_cannot_be_measured_is_a_warning_with_the_reason(tmp_path):
    plan = make_plan(spec(base=["raise_above=0"]), TASK, tmp_path)
    assert len(plan.warnings) == 2
    assert "plain could not be measured: RuntimeError: x=" in plan.warnings[0]
    assert math.isnan(plan.seconds)


def test_too_small_a_disk_is_a_warning_with_the_remedy(tmp_path):
    plan = make_plan(spec(), TASK, tmp_path, Probing(0))
    large = planned(Measured("plain", whole_s=1.0, log_bytes=plan.disk_free))
    from bbi_lightning.sweeps.plan import _warnings

    assert any("are free: use another --dir" in line for line in _warnings(large))


def planned(*measured: Measured, trials=10, replicates=0, threads=1, free=GIB):
    """A plan of arms that cost this."""
    from bbi_lightning.sweeps.plan import ArmPlan, Plan

    arms = tuple(ArmPlan(m.arm, m.arm, trials, replicates, {}, [], m) for m in measured)
    return Plan(spec(), arms, (), (), 0, 0.0, threads, free)


def test_hours_are_those_of_all_runs_of_all_arms():
    plan = planned(
        Measured("a", setup_s=1, total_steps=100, step_s=0.1, validations=2, validation_s=2, test_s=5),
        Measured("b", whole_s=40.0),
        replicates=5,
        threads=2,
    )
    assert plan.seconds == 15 * 20 + 15 * 40
    assert plan.core_hours == pytest.approx(2 * 900 / 3600)


@pytest.mark.parametrize(
    ("node", "slots", "why"),
    [
        (Node(8, 100 * GIB), 4, "its 8 cores"),
        (Node(64, 10 * GIB), 7, "its memory"),  # (9 − 0.5) / 1.2 = 7.08
        (Node(1, 0.5 * GIB), 1, "its memory"),  # one at least
    ],
)
def test_a_node_is_filled_as_far_as_cores_and_memory_reach(node, slots, why):
    plan = planned(Measured("a", whole_s=1.0, own_bytes=GIB, peak_bytes=1.5 * GIB), trials=1000, threads=2)
    packing = pack(plan, node)
    assert (packing.slots, packing.limited_by) == (slots, why)


def test_trials_share_a_gpu_as_far_as_its_memory_reaches():
    facts = {"whole_s": 1.0, "own_bytes": 1.0, "peak_bytes": 1.0}
    plan = planned(Measured("a", gpu_bytes=5 * GIB, gpu_total_bytes=80 * GIB, **facts), trials=1000)
    assert pack(plan, Node(64, math.inf, 1)).slots == 11  # 72 / (6 + 0.5)
    assert pack(plan, Node(64, math.inf, 2)).slots == 22
    assert pack(plan, Node(64, math.inf, 2)).limited_by == "the GPUs' memory"


def test_jobs_are_as_many_as_are_worth_it_and_no_more_than_allowed():
    plan = planned(Measured("a", whole_s=3600.0), trials=40)
    assert pack(plan, Node(4, math.inf), max_jobs=100).jobs == 10  # forty hours in slots of four: all at once
    assert pack(plan, Node(4, math.inf), max_jobs=3).jobs == 3
    short = planned(Measured("a", whole_s=1.0), trials=40)
    assert pack(short, Node(4, math.inf), max_jobs=100).jobs == 1
    assert pack(short, Node(4, math.inf), slots=2, jobs=7, max_jobs=3).jobs == 7


def test_the_time_to_the_end_is_no_shorter_than_the_longest_trial_of_each_phase():
    plan = planned(Measured("a", whole_s=100.0), Measured("b", whole_s=10.0), trials=2, replicates=1)
    assert pack(plan, Node(1, math.inf)).seconds == 330
    assert pack(plan, Node(99, math.inf)).seconds == 200


def test_the_sentences_say_what_is_compared_with_what():
    text = " ".join(what_is_compared(spec()))
    assert "plain and wide: 4 trials each (halton), all with the seed 0." in text
    assert "plain and wide declare the same space for x: the same values are tried." in text
    assert "largest val/acc at the end of training; between equals, the smallest val/loss" in text
    assert "fresh seeds, 1000 to 1001, the same in every arm" in text


def test_arms_that_share_no_space_are_told_so_and_a_single_arm_is_compared_with_nobody():
    apart = {"a": {"space": X}, "b": {"space": {"x": {"low": 0.1, "high": 1.0}}}}
    assert "No two arms declare the same space" in " ".join(what_is_compared(spec(arms=apart)))
    alone = " ".join(what_is_compared(spec(arms={"a": {"space": X}}, replicates={"count": 0})))
    assert alone.startswith("a: 4 trials alone")
    assert "compared" not in alone


def test_a_search_that_learns_is_checked_and_counted_like_any_other(tmp_path):
    search = {"sampler": "tpe", "trials": 25, "seed": 0, "studies": 2}
    plan = make_plan(spec(search=search), TASK, tmp_path, Probing(0))
    assert [(arm.trials, arm.replicates) for arm in plan.arms] == [(50, 4), (50, 4)]
    text = " ".join(plan.compared)
    assert "searched so 2 times, each time with points and a seed of its own (0 to 1)" in text
    assert "depends on the results before it" in text
    assert "the same values are tried" not in text


def test_each_study_has_points_and_a_seed_of_its_own_and_names_that_say_so():
    sweep = spec(search={"sampler": "halton", "trials": 3, "seed": 7, "studies": 2})
    trials = points_to_expect(sweep, sweep.arm("plain"))
    assert [trial.name for trial in trials] == [
        "plain/0", "plain/1", "plain/2", "plain/1:0", "plain/1:1", "plain/1:2"
    ]  # fmt: skip
    assert [trial.seed for trial in trials] == [7, 7, 7, 8, 8, 8]
    assert len({trial.params["x"] for trial in trials}) == 6
    assert trials[3].overrides == [f"x={trials[3].params['x']}", "seed=8"]


def test_unequal_budgets_are_warned_of():
    plain, wide, wider = (
        Measured(name, total_steps=steps) for name, steps in (("plain", 5), ("wide", 5), ("wide", 6))
    )
    assert differences_of_budget(spec(), [plain, wide]) == []
    assert differences_of_budget(spec(), [plain, wider]) == [
        "The arms train for different numbers of steps (plain 5, wide 6): their budgets are not equal."
    ]
    searched = {"a": {"space": {"data": {"batch_size": {"choices": [32, 64]}}}}}
    sweep = spec(arms=searched, search={"trials": 2})
    assert "a searches data.batch_size" in differences_of_budget(sweep)[0]


def _probe(overrides, root, steps, seconds, report):
    assert list(root.iterdir()) == []
    (root / "kept").write_text("not for long")
    report({"setup_s": 1.0, "total_steps": 100, "step_s": steps / seconds})
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    report({"test_s": 3.0, "log_bytes": 10.0, "checkpoint_bytes": 5.0, "checkpoints": 2, "unheard_of": 1.0})
    print(os.getpid(), file=sys.stderr)
    import time

    time.sleep(0.3)  # to be seen


def test_a_tasks_own_probe_says_what_its_parts_cost_and_memory_is_measured(tmp_path, temporary):
    task: Task = dataclasses.replace(TASK, probe=_probe)
    plan = make_plan(spec(), task, tmp_path, Probing(20, 10.0))
    measured = plan.arms[0].measured
    assert measured.run_s == 1.0 + 100 * 2.0 + 3.0
    assert measured.disk_bytes == 20.0
    assert 60 * 2**20 < measured.own_bytes < measured.peak_bytes
    assert list(temporary.iterdir()) == []


def _endless(overrides, root, steps, seconds, report):
    import time

    report({"setup_s": 1.0})
    time.sleep(600)


def test_a_probe_without_an_end_is_given_up_and_what_it_said_is_kept(tmp_path, temporary):
    plan = make_plan(spec(), dataclasses.replace(TASK, probe=_endless), tmp_path, Probing(50, 0.5))
    assert [arm.measured.setup_s for arm in plan.arms] == [1.0, 1.0]
    assert "plain could not be measured: it took longer than 6 s" in plan.warnings[0]
    assert list(temporary.iterdir()) == []
