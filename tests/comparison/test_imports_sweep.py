"""Imported runs are a sweep like any other: arms, trials, replicates, one folder a run; twice is once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from foreign_runs import BEST, RATES, SEEDS, csv_folder, made, write_csv
from synthetic_sweep import realistic

from bbi_lightning.comparison.imports import (
    Choices,
    ForeignDataError,
    ForeignRun,
    SortedRuns,
    Written,
    name_runs,
    read_csv_folder,
    sorted_into_arms,
    write_sweep,
)
from bbi_lightning.comparison.imports.naming import NamedRuns
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.tracking.metric_log import read_metrics


@pytest.fixture
def named(tmp_path: Path) -> NamedRuns:
    return name_runs(read_csv_folder(csv_folder(tmp_path / "csv")))


def written(found: SortedRuns, folder: Path, origin: str = "CSV") -> Written:
    return write_sweep(found, folder, origin=origin, source="somewhere")


def test_a_setting_is_a_trial_and_the_bests_other_seeds_its_replicates(named: NamedRuns) -> None:
    found = sorted_into_arms(named)
    assert [arm.name for arm in found.arms] == ["bbi", "sgd"]
    assert found.objective["metric"] == "val/acc"
    for arm in found.arms:
        assert arm.space == {"optim.lr": {"low": 0.01, "high": 1.0, "log": True}}
        own = [placed for placed in found.runs if placed.arm == arm.name]
        search = [placed for placed in own if placed.phase == "search"]
        replicates = [placed for placed in own if placed.phase == "replicate"]
        assert sorted(placed.params["optim.lr"] for placed in search) == list(RATES)
        assert {placed.seed for placed in search} == {0}
        assert [placed.seed for placed in replicates] == list(range(1, SEEDS))
        assert {placed.params["optim.lr"] for placed in replicates} == {BEST}


def test_other_seeds_of_other_settings_decide_nothing(named: NamedRuns) -> None:
    extra = next(run for run in named.runs if run.config["optim.lr"] == 1.0)
    runs = (*named.runs, replace(extra, key="again", config={**extra.config, "seed": 7}))
    found = sorted_into_arms(replace(named, runs=runs))
    assert [placed.phase for placed in found.runs if placed.run.key == "again"] == ["added"]


def test_an_arm_of_one_setting_has_replicates_only(named: NamedRuns, tmp_path: Path) -> None:
    runs = tuple(run for run in named.runs if run.config["optim.lr"] == BEST)
    written(sorted_into_arms(replace(named, runs=runs)), tmp_path / "s")
    comparison = compare_sweep(read_sweep(tmp_path / "s"))
    for result in comparison.results:
        assert len(result.trials) == 0
        assert len(result.replicates) == SEEDS
        assert result.foreign == 0
        assert result.mean is not None


def test_what_is_written_is_compared_as_any_sweep(named: NamedRuns, tmp_path: Path) -> None:
    written(sorted_into_arms(named), tmp_path / "theirs")
    sweep = read_sweep(tmp_path / "theirs")
    assert not sweep.problems
    assert {run.imported for run in sweep.runs} == {"CSV"}
    comparison = compare_sweep(sweep, "sgd")
    assert comparison.missing() == 0, "an arm's plan is what it has"
    by_name = {result.arm.name: result for result in comparison.results}
    expected = {m.optimizer: [] for m in made()}  # type: ignore[var-annotated]
    for m in made():
        if m.lr == BEST and m.seed > 0:
            expected[m.optimizer].append(m.rows[-1]["test/acc"])
    for name, values in expected.items():
        mean = by_name[name].mean
        assert mean is not None
        assert mean.value == pytest.approx(sum(values) / len(values))
        assert mean.n == SEEDS - 1
    difference = by_name["bbi"].versus
    assert difference is not None
    assert difference.difference.value == pytest.approx(0.03)


def test_files_of_a_run_say_what_is_known(named: NamedRuns, tmp_path: Path) -> None:
    written(sorted_into_arms(named), tmp_path / "s")
    run = read_sweep(tmp_path / "s").replicates("bbi")[0]
    assert run.name.startswith("imported-bbi-")
    assert run.seed == 1
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config == {"optim": {"name": "bbi", "lr": 0.1}, "seed": 1, "width": 64}
    rows = read_metrics(run.folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [20, 40, 60, 80, 100]
    assert run.record.extra["imported"]["name"] == "bbi-0.1-1"
    spec = yaml.safe_load((tmp_path / "s" / "sweep.yaml").read_text())
    assert spec["imported"]["from"] == "CSV"
    assert spec["imported"]["by"] == "bbi import"


def modification_times(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_importing_again_touches_nothing(named: NamedRuns, tmp_path: Path) -> None:
    found = sorted_into_arms(named)
    first = written(found, tmp_path / "s")
    before = modification_times(tmp_path / "s")
    again = written(found, tmp_path / "s")
    assert modification_times(tmp_path / "s") == before
    total = len(named.runs)
    assert (first.new, again.new, again.changed, again.same, again.kept) == (total, 0, 0, total, 0)


def test_a_source_that_has_grown_adds_and_changes_only_what_is_new(named: NamedRuns, tmp_path: Path) -> None:
    written(sorted_into_arms(named), tmp_path / "s")
    longer = replace(named.runs[0], rows=(*named.runs[0].rows, {"step": 120, "epoch": 6, "val/loss": 0.1}))
    later = replace(named.runs[0], key="later", config={**named.runs[0].config, "seed": 9})
    grown = replace(named, runs=(longer, *named.runs[1:], later))
    result = written(sorted_into_arms(grown), tmp_path / "s")
    assert (result.new, result.changed, result.same) == (1, 1, len(named.runs) - 1)
    fewer = written(sorted_into_arms(replace(named, runs=named.runs[:-1])), tmp_path / "s")
    assert fewer.kept == 2
    assert len(read_sweep(tmp_path / "s").runs) == len(named.runs) + 1


def test_two_sources_in_one_sweep(named: NamedRuns, tmp_path: Path) -> None:
    sgd = replace(named, runs=tuple(r for r in named.runs if r.config["optim.name"] == "sgd"))
    bbi = replace(named, runs=tuple(r for r in named.runs if r.config["optim.name"] == "bbi"))
    written(sorted_into_arms(sgd), tmp_path / "s", "CSV")
    written(sorted_into_arms(bbi), tmp_path / "s", "W&B")
    sweep = read_sweep(tmp_path / "s")
    assert [arm.name for arm in sweep.arms] == ["sgd", "bbi"]
    assert not sweep.problems
    assert {(run.arm, run.imported) for run in sweep.runs} == {("sgd", "CSV"), ("bbi", "W&B")}
    assert yaml.safe_load((tmp_path / "s" / "sweep.yaml").read_text())["imported"]["from"] == "CSV, W&B"


def test_a_sweep_of_ours_is_not_written_into(named: NamedRuns, tmp_path: Path) -> None:
    ours = realistic(tmp_path / "ours", trials=2, replicates=1)
    before = modification_times(ours)
    with pytest.raises(ForeignDataError, match="is a sweep that was run here"):
        written(sorted_into_arms(named), ours)
    assert modification_times(ours) == before


def test_beside_a_sweep_of_ours(named: NamedRuns, tmp_path: Path) -> None:
    spec = yaml.safe_load((realistic(tmp_path / "ours", trials=4, replicates=2) / "sweep.yaml").read_text())
    found = sorted_into_arms(named, Choices(like=spec))
    assert {arm.name: arm.label for arm in found.arms} == {"bbi": "BBI", "sgd": "SGD"}
    assert found.arms[0].space == {"optim.lr": spec["arms"]["bbi"]["space"]["optim.lr"]}
    assert found.objective == spec["objective"]
    assert list(found.base) == spec["base"]
    without = replace(named, runs=tuple(_without(run, "val/acc") for run in named.runs))
    with pytest.raises(ForeignDataError, match=r"--map NAME=val/acc"):
        sorted_into_arms(without, Choices(like=spec))


def _without(run: ForeignRun, metric: str) -> ForeignRun:
    rows = tuple({k: v for k, v in row.items() if k != metric} for row in run.rows)
    return replace(run, rows=rows, summary={k: v for k, v in run.summary.items() if k != metric})


def test_a_loss_that_ends_on_nan_has_diverged(named: NamedRuns, tmp_path: Path) -> None:
    broken = replace(
        named.runs[0], rows=(*named.runs[0].rows, {"step": 101, "epoch": 6, "train/loss": float("nan")})
    )
    written(sorted_into_arms(replace(named, runs=(broken, *named.runs[1:]))), tmp_path / "s")
    states = [run.state for run in read_sweep(tmp_path / "s").runs]
    assert states.count("diverged") == 1


def test_texts_that_name_a_run_are_no_settings(named: NamedRuns) -> None:
    runs = tuple(replace(run, config={**run.config, "out": f"/x/{run.key}"}) for run in named.runs)
    found = sorted_into_arms(replace(named, runs=runs))
    assert all("out" not in arm.space for arm in found.arms)
    assert all("out" not in placed.run.config for placed in found.runs)
    assert found.runs[0].run.facts["ignored"]["out"].startswith("/x/")


def test_arms_by_name_folder_and_group(named: NamedRuns) -> None:
    bare = tuple(
        replace(run, name=f"{run.config['optim.name']}/{run.key}", facts={"group": run.config["optim.name"]},
                config={"seed": run.config["seed"], "lr": run.config["optim.lr"]})
        for run in named.runs
    )  # fmt: skip
    with pytest.raises(ForeignDataError, match=r"add --arm KEY, one of lr, seed"):
        sorted_into_arms(replace(named, runs=bare))
    for key in ("folder", "group"):
        assert len(sorted_into_arms(replace(named, runs=bare), Choices(arm=key)).arms) == 2
    assert len(sorted_into_arms(replace(named, runs=bare), Choices(arm="name")).arms) == len(bare)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (Choices(arm="optimiser"), "--arm optimiser: no run has this setting"),
        (Choices(ignore=("widht",)), "did you mean width?"),
        (Choices(objective="val/f1"), "--objective val/f1: no run has it"),
        (Choices(objective="test/acc"), "would choose on test data"),
    ],
)
def test_mistakes_in_a_sentence(choices: Choices, words: str, named: NamedRuns) -> None:
    with pytest.raises(ForeignDataError) as caught:
        sorted_into_arms(named, choices)
    assert words in str(caught.value)


def test_classes_are_arms_by_their_last_name(tmp_path: Path) -> None:
    for name, target in (("a", "torch.optim.SGD"), ("b", "bbi_lightning.optim.BBI")):
        write_csv(tmp_path / f"{name}.csv", [{"step": 1, "val/loss": 1.0}])
        with (tmp_path / "runs.csv").open("a") as out:
            out.write(f"{'run,optim._target_,seed' + chr(10) if name == 'a' else ''}{name},{target},0\n")
    found = sorted_into_arms(name_runs(read_csv_folder(tmp_path)))
    assert [(arm.name, arm.label) for arm in found.arms] == [("sgd", "SGD"), ("bbi", "BBI")]


def test_choices_and_constants_make_the_space(named: NamedRuns) -> None:
    kinds: list[Any] = [True, False, "cosine"]
    runs = tuple(
        replace(run, config={**run.config, "decay": kinds[n % 3], "lr2": 0.5 + n / 100})
        for n, run in enumerate(named.runs)
    )
    space = sorted_into_arms(replace(named, runs=runs)).arms[0].space
    assert set(space["decay"]["choices"]) == set(kinds)
    assert space["lr2"]["log"] is False
    assert "width" not in space
