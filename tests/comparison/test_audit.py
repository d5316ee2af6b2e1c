"""Every finding: made where its cause is, and not in a sound sweep."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bbi_lightning.comparison.audit as audit_package
from bbi_lightning.comparison.audit import LEVELS, Finding, audit, serious
from bbi_lightning.comparison.audit.codes import CODES
from bbi_lightning.comparison.results import Comparison, compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep

BBI, ECDSEP, SGD, ADAMW = ARMS
# arms of which nothing can be said but how good they are: one searched key each, far from its edges
SOUND = (
    replace(BBI, low=0.028, high=2.8, cliff=9.0, test_error=0.05),
    replace(SGD, low=0.01, high=1.0, cliff=9.0, momentum=False, test_error=0.05),
    replace(ADAMW, low=0.0008, high=0.08, test_error=0.012),
)
Json = dict[str, Any]


def written(folder: Path, **changes: Any) -> Path:
    return SyntheticSweep(folder, **{"arms": SOUND, "trials": 16, "replicates": 10} | changes).write()


def compared(folder: Path) -> Comparison:
    return compare_sweep(read_sweep(folder), "sgd")


def edit_runs(folder: Path, change: Callable[[Json], object], phase: str = "", arm: str = "") -> Path:
    for file in sorted(folder.glob("runs/*/run.json")):
        record = json.loads(file.read_text())
        if phase in ("", record["labels"]["phase"]) and arm in ("", record["labels"]["arm"]):
            change(record)
            file.write_text(json.dumps(record))
    return folder


def edit_spec(folder: Path, change: Callable[[Json], object]) -> Path:
    file = folder / "sweep.yaml"
    spec = json.loads(file.read_text())
    change(spec)
    file.write_text(json.dumps(spec))
    return folder


def edit_rows(folder: Path, change: Callable[[Json], Json], arm: str = "bbi") -> Path:
    for file in folder.glob(f"runs/*-{arm}-*/metrics.jsonl"):
        rows = [change(json.loads(line)) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def give_configs(folder: Path, config: Json, **of_arms: Json) -> Path:
    """A config.yaml for every run, those of some arms changed."""
    for file in folder.glob("runs/*/run.json"):
        arm = json.loads(file.read_text())["labels"]["arm"]
        both = {key: value | of_arms.get(arm, {}).get(key, {}) for key, value in config.items()}
        (file.parent / "config.yaml").write_text(json.dumps(both))
    return folder


def summary(**values: Any) -> Callable[[Json], object]:
    return lambda record: record["summary"].update(values)


def found(folder: Path) -> dict[str, list[Finding]]:
    by_code: dict[str, list[Finding]] = {}
    for finding in audit(compared(folder)):
        by_code.setdefault(finding.code, []).append(finding)
    return by_code


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Finding, ...]:
    return audit(compared(written(tmp_path_factory.mktemp("audit") / "sound")))


def test_nothing_speaks_against_a_sound_sweep(sound: tuple[Finding, ...]):
    assert [finding for finding in sound if finding.level != "note"] == []


def wider(spec: Json) -> None:
    spec["arms"]["bbi"]["space"]["data.batch_size"] = {"choices": [32, 64]}


def foreign(record: Json) -> None:
    record["labels"]["params"]["optim.lr"] *= 1.5


def same_numbers(record: Json) -> None:
    record["summary"]["val/acc"] = record["summary"].get("test/acc", 0.5)


def luck(record: Json) -> None:
    best = record["labels"]["trial"] == 7
    record["summary"]["val/acc"] = 0.99 if best else 0.97 if record["labels"]["trial"] else 0.95


def few_find(record: Json) -> None:
    record["summary"]["val/acc"] = 0.9 if record["labels"]["trial"] == 7 else 0.5


def backwards(record: Json) -> None:
    n = record["labels"]["trial"]
    record["summary"].update({"val/acc": 0.9 + n / 1000, "test/acc": 0.9 - n / 1000})


def tied(record: Json) -> None:
    record["summary"]["val/acc"] = 0.99 if record["labels"]["trial"] < 5 else 0.9


def odd(record: Json) -> None:
    if record["labels"]["trial"] == 3:
        record["overrides"].append("model.width=7")


def seed_again(record: Json) -> None:
    record["name"] = record["name"].replace("-s1003", "-s0")


def double(record: Json) -> None:
    record["name"] = record["name"].replace("-s1004", "-s1005")


def skewed(record: Json) -> None:
    """Eight small steps back and seven large ones ahead: the median is behind, the mean is shown ahead."""
    lead = record["labels"]["arm"] == "bbi"
    record["summary"]["test/acc"] = 0.8 + lead * (0.05 if record["labels"]["replicate"] < 7 else -0.001)


def one_decides(record: Json) -> None:
    lead = [0.011, 0.002, 0.011, 0.011, 0.002, 0.011, 0.0005, 0.002, 0.011, -0.0075, 0.012]
    n = record["labels"]["replicate"]
    record["summary"]["test/acc"] = 0.9 + (record["labels"]["arm"] == "bbi") * lead[n]


def without_test(record: Json) -> None:
    del record["summary"]["test/acc"]


def at_the_end(row: Json) -> Json:
    return {key: value for key, value in row.items() if row["step"] < 540 or not key.startswith("val/")}


def break_a_record(folder: Path) -> Path:
    next(folder.glob("runs/*/run.json")).write_text("{")
    return folder


TRAINER = {"trainer": {"max_epochs": 30, "accumulate_grad_batches": 1}, "data": {"batch_size": 64}}

CASES: dict[str, Callable[[Path], Path]] = {
    "unfinished": lambda f: written(f, planned_replicates=12),
    "unequal-trials": lambda f: written(f, states={("bbi", "search", 3): "running"}),
    "unequal-steps": lambda f: edit_runs(written(f), summary(steps=9), arm="bbi"),
    "unequal-models": lambda f: edit_runs(written(f), summary(parameters=9), arm="bbi"),
    "unequal-samples": lambda f: give_configs(written(f), TRAINER, bbi={"data": {"batch_size": 128}}),
    "unequal-time": lambda f: edit_runs(written(f), summary(wall_s=99.0), arm="bbi"),
    "steps-within-arm": lambda f: edit_runs(
        written(f), lambda r: r["labels"]["replicate"] == 3 and r["summary"].update(steps=9), "replicate"
    ),
    "schedule-unfinished": lambda f: give_configs(written(f), TRAINER, bbi={"trainer": {"max_epochs": 40}}),
    "arm-changes-task": lambda f: edit_runs(
        written(f), lambda r: r["overrides"].append("model=mlp"), arm="bbi"
    ),
    "different-schedules": lambda f: edit_runs(
        written(f), lambda r: r["overrides"].append("scheduler=cosine"), arm="bbi"
    ),
    "odd-runs": lambda f: edit_runs(written(f), odd, "search", "bbi"),
    "search-changes-budget": lambda f: edit_spec(written(f), wider),
    "replicates-diverged": lambda f: written(f, states={("bbi", "replicate", 2): "diverged"}),
    "replicates-failed": lambda f: written(f, states={("bbi", "replicate", 2): "failed"}),
    "trials-failed": lambda f: written(f, states={("bbi", "search", 2): "failed"}),
    "space-mostly-diverges": lambda f: written(f, arms=(replace(SOUND[0], cliff=0.1), *SOUND[1:])),
    "metric-missing": lambda f: edit_runs(written(f), without_test, "replicate", "bbi"),
    "too-few-seeds": lambda f: written(f, replicates=4, planned_replicates=4),
    "broken-pairs": lambda f: written(
        f, states={("bbi", "replicate", 2): "running", ("sgd", "replicate", 3): "running"}
    ),
    "seed-of-the-search": lambda f: edit_runs(written(f), seed_again, "replicate"),
    "seed-twice": lambda f: edit_runs(written(f), double, "replicate"),
    "seeds-do-nothing": lambda f: edit_runs(
        written(f), lambda r: r["summary"].update({"train/loss": 0.25}), "replicate"
    ),
    "replicates-not-of-best": lambda f: edit_runs(written(f), foreign, "replicate"),
    "replicates-left-out": lambda f: edit_runs(
        written(f), lambda r: r["labels"]["replicate"] == 3 and foreign(r), "replicate"
    ),
    "test-selects": lambda f: edit_spec(
        written(f), lambda s: s["objective"].update(metric="test/acc", tie_breaker=None)
    ),
    "test-read-often": lambda f: edit_rows(written(f), lambda row: row | {"test/acc": 0.5}),
    "validation-is-test": lambda f: edit_runs(written(f), same_numbers),
    "measured-before-end": lambda f: edit_rows(written(f), at_the_end),
    "measured-at-different-steps": lambda f: edit_rows(written(f), at_the_end),
    "untuned": lambda f: edit_spec(written(f), lambda s: s["arms"]["sgd"].update(space={})),
    "rate-not-searched": lambda f: edit_spec(
        written(f), lambda s: s["arms"]["bbi"].update(space={"optim.wd": {"low": 0.0, "high": 1.0}})
    ),
    "edge-of-space": lambda f: written(f, arms=(replace(SOUND[0], high=0.3, best=3.0), *SOUND[1:])),
    "ties": lambda f: edit_runs(written(f), tied, "search"),
    "search-not-converged": lambda f: edit_runs(written(f), few_find, "search"),
    "unequal-spaces": lambda f: written(f, arms=(SOUND[0], replace(SOUND[1], momentum=True))),
    "unequal-ranges": lambda f: written(f, arms=(replace(SOUND[0], low=0.1, high=0.9), *SOUND[1:])),
    "lucky-best": lambda f: edit_runs(
        edit_runs(written(f), luck, "search"),
        lambda r: r["summary"].update({"val/acc": 0.951 + r["labels"]["replicate"] / 1000}),
        "replicate",
    ),
    "validation-disagrees": lambda f: edit_runs(written(f), backwards, "search"),
    "unreadable": lambda f: break_a_record(written(f)),
    "mixed-code": lambda f: written(f, commits={"bbi": "f" * 40}),
    "uncommitted-code": lambda f: edit_runs(
        written(f), lambda r: r["attempts"][-1].update(dirty=True, diff_sha256="ab" * 32)
    ),
    "mixed-software": lambda f: edit_runs(
        written(f), lambda r: r["attempts"][0]["versions"].update(torch="1"), arm="bbi"
    ),
    "mixed-hardware": lambda f: written(f, cpus={"bbi": "Another processor"}),
    "imported": lambda f: edit_runs(
        written(f), lambda r: r["labels"].update(imported="W&B export"), arm="bbi"
    ),
    "energy-error": lambda f: edit_rows(written(f), lambda row: row | {"energy/energy_error": -0.7}),
    "at-floor": lambda f: edit_rows(written(f), lambda row: row | {"energy/at_floor": 30.0}),
    "at-rest": lambda f: edit_rows(written(f), lambda row: row | {"energy/potential_over_energy": 1.0}),
    "skipped-steps": lambda f: edit_rows(written(f), lambda row: row | {"energy/skipped": 1.0}),
    "clipping": lambda f: edit_runs(
        written(f), lambda r: r["overrides"].append("trainer.gradient_clip_val=1.0")
    ),
    "more-seeds-would-tell": lambda f: written(
        f, arms=(replace(SOUND[0], test_error=0.046), *SOUND[1:]), seed=1
    ),
    "one-pair-decides": lambda f: edit_runs(
        written(f, replicates=11, planned_replicates=11), one_decides, "replicate"
    ),
    "mean-against-median": lambda f: edit_runs(
        written(f, replicates=15, planned_replicates=15), skewed, "replicate"
    ),
}


@pytest.mark.parametrize("code", CASES)
def test_a_cause_is_found_and_comes_with_a_remedy(code: str, tmp_path: Path, sound: tuple[Finding, ...]):
    assert code not in {finding.code for finding in sound}
    findings = found(CASES[code](tmp_path / "sweep")).get(code, [])
    assert findings
    for finding in findings:
        assert finding.remedy or code in ("unreadable", "replicates-left-out")
        assert finding.sentence.endswith(".") or code == "unreadable"
        assert finding.level in LEVELS
        json.dumps(finding.plain(), allow_nan=False)


def test_every_code_is_declared_and_has_a_case():
    folder = Path(audit_package.__file__).parent
    strings = {
        node.value
        for file in folder.glob("*.py")
        if file.name != "codes.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    computed = {"replicates-diverged", "replicates-failed", "trials-failed"}
    assert set(CODES) - strings == computed
    in_texts = {"best-seed-quoted", "number-not-found"}
    assert {c for c in CODES if not c.startswith("claim-")} - in_texts == set(CASES)


def test_the_page_about_audits_explains_every_code():
    page = (Path(__file__).parents[2] / "docs/jobs/audit.md").read_text()
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == set(CODES)


def test_the_gravest_comes_first(tmp_path: Path):
    findings = audit(compared(CASES["untuned"](tmp_path / "sweep")))
    assert [f.level for f in findings] == sorted((f.level for f in findings), key=LEVELS.index)
    assert (findings[0].code, findings[0].level) == ("untuned", "error")
    assert serious(compared(tmp_path / "sweep")) == tuple(f for f in findings if f.level != "note")
    assert findings[0].sentence.startswith("The baseline SGD was not tuned, while 2 arms")


def test_a_search_that_still_rises_is_told_to_go_on(tmp_path: Path):
    (finding,) = found(CASES["search-not-converged"](tmp_path / "wide"))["search-not-converged"]
    assert "`bbi sweep extend wide 16`" in finding.remedy  # sixteen more


def test_an_imported_sweep_is_told_no_commands(tmp_path: Path):
    folder = edit_runs(CASES["too-few-seeds"](tmp_path / "s"), lambda r: r["labels"].update(imported="W&B"))
    (finding,) = found(folder)["too-few-seeds"]
    assert finding.remedy.endswith(
        "replicates an arm: do it where the runs were made, and import them again."
    )


def test_no_seed_in_common_is_an_error(tmp_path: Path):
    def other_seeds(record: Json) -> None:
        record["name"] = re.sub(r"-s1(\d+)$", r"-s2\1", record["name"])

    findings = found(edit_runs(written(tmp_path / "s"), other_seeds, "replicate", "bbi"))["broken-pairs"]
    assert [(f.arm, f.level) for f in findings] == [("bbi", "error")]
    assert findings[0].sentence.endswith("share no seed: nothing is compared.")


def test_a_validation_one_step_before_the_end_is_at_the_end(tmp_path: Path):
    def earlier(row: Json) -> Json:
        return row | {"step": row["step"] - 1} if "val/acc" in row else row

    assert "measured-before-end" not in found(edit_rows(written(tmp_path / "s"), earlier))


def test_too_few_seeds_says_how_many_more(tmp_path: Path):
    (finding,) = found(CASES["too-few-seeds"](tmp_path / "wide"))["too-few-seeds"]
    # two comparisons: 2 · 2/2ⁿ ≤ 0.05 needs n = 7
    assert "at least 7 replicates an arm: `bbi sweep extend wide --replicates 3`" in finding.remedy


def test_a_best_test_value_that_is_reported_is_an_error(tmp_path: Path):
    folder = edit_rows(
        written(tmp_path / "s"), lambda row: row | {"test/acc": 0.8 if row["step"] == 540 else 0.9}
    )
    assert found(folder)["test-read-often"][0].level == "warning"
    edit_runs(folder, lambda r: r["summary"].update({"test/acc": 0.9}), "replicate", "bbi")
    (finding,) = found(folder)["test-read-often"]
    assert finding.level == "error"
    assert "10 of them report the best" in finding.sentence


def test_the_edge_of_a_list_of_numbers_is_an_edge(tmp_path: Path):
    folder = written(tmp_path / "s")
    best = compared(folder).result("bbi").best
    assert best is not None
    lr = best.params["optim.lr"]

    def choices(*values: Any) -> set[str]:
        edit_spec(folder, lambda s: s["arms"]["bbi"]["space"].update({"optim.lr": {"choices": values}}))
        return {f.sentence for f in found(folder).get("edge-of-space", [])}

    assert len(choices(lr / 100, lr / 10, lr)) == 1
    assert choices(lr / 10, lr, lr * 10) == set()
    assert choices(lr / 10, lr) == set()  # two numbers: either is an end


def test_the_floor_for_a_moment_is_a_note(tmp_path: Path):
    folder = edit_rows(written(tmp_path / "s"), lambda row: row | {"energy/at_floor": 1.0})
    assert found(folder)["at-floor"][0].level == "note"  # 1 of 540 steps


def test_a_loss_that_hits_one_arm_only_says_so(tmp_path: Path):
    states = {("bbi", "replicate", n): "diverged" for n in (2, 3)}
    (finding,) = found(written(tmp_path / "s", states=states))["replicates-diverged"]
    assert finding.sentence.startswith("Replicates diverged (BBI 2)")
    assert "did not hit all arms alike" in finding.sentence
    assert finding.arm == "bbi"


def test_what_an_imported_run_does_not_say_is_no_difference(tmp_path: Path):
    folder = give_configs(written(tmp_path / "s"), {"data": {"name": "digits", "batch_size": 64}})
    edit_runs(folder, lambda r: r["labels"].update(imported="W&B"), arm="bbi")
    for file in folder.glob("runs/*-bbi-*/config.yaml"):
        file.write_text(json.dumps({"data": {"batch_size": 64}}))
    assert "arm-changes-task" not in found(folder)
    for file in folder.glob("runs/*-bbi-*/config.yaml"):
        file.write_text(json.dumps({"data": {"batch_size": 32}}))
    assert "arm-changes-task" in found(folder)


def test_imported_runs_alone_are_a_note(tmp_path: Path):
    folder = edit_runs(written(tmp_path / "s"), lambda r: r["labels"].update(imported="a CSV folder"))
    assert found(folder)["imported"][0].level == "note"


def test_a_sweep_that_has_only_begun_can_be_audited(tmp_path: Path):
    codes = found(written(tmp_path / "s", replicates=0, logs=False))
    assert "unfinished" in codes
    assert not {"too-few-seeds", "broken-pairs"} & set(codes)


def test_commands_of_a_joined_task_name_its_sweeps(tmp_path: Path):
    from bbi_lightning.comparison.suite import compare_suite, read_suite

    for name in ("one", "two"):
        written(tmp_path / name, planned_replicates=12)
    (c,) = compare_suite(read_suite([tmp_path / "one", tmp_path / "two"])).comparisons
    (finding,) = [f for f in audit(c) if f.code == "unfinished"]
    assert "`bbi sweep status one`, `bbi sweep status two`" in finding.remedy
