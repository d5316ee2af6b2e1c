"""The run with our numbers: they are those of the comparison, and the same runs give the same contents."""

import dataclasses
import json
import math

import pytest

from bbi_lightning.comparison.dashboard.summary import summarise, summary_run_id
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.comparison.verdict import verdict
from tests.comparison.synthetic_sweep import SyntheticSweep, realistic


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compare_sweep(read_sweep(realistic(tmp_path_factory.mktemp("sweeps") / "digits", trials=6)))


def test_every_number_is_the_comparison_s(comparison):
    values = summarise(comparison).values
    for r in comparison.results:
        assert values[f"compare/{r.arm.name}/mean"] == r.mean.value
        assert values[f"compare/{r.arm.name}/mean_low"] == r.mean.low
        assert values[f"compare/{r.arm.name}/mean_high"] == r.mean.high
        assert values[f"compare/{r.arm.name}/mean_n"] == len(r.finished)
        assert values[f"compare/{r.arm.name}/conclusion"] == r.conclusion
    for r in comparison.contestants:
        assert values[f"compare/{r.arm.name}/difference"] == r.versus.difference.value
        assert values[f"compare/{r.arm.name}/p_holm"] == r.p_value
        assert values[f"compare/{r.arm.name}/improvement"] == r.improvement.value
    assert f"compare/{comparison.baseline.name}/difference" not in values
    assert values["verdict/headline"] == verdict(comparison).headline


def test_values_are_what_json_and_w_and_b_can_hold(comparison, tmp_path):
    unfinished = compare_sweep(read_sweep(SyntheticSweep(tmp_path / "few", trials=2, replicates=1).write()))
    for c in (comparison, unfinished):  # one replicate has no interval: its ends are left out, not NaN
        values = summarise(c).values
        assert all(not isinstance(v, float) or math.isfinite(v) for v in values.values())
        assert json.loads(json.dumps(dict(values), allow_nan=False)) == values
    assert "compare/bbi/mean_low" not in summarise(unfinished).values
    assert "compare/bbi/mean" in summarise(unfinished).values


def test_the_table_has_one_row_an_arm_and_one_type_a_column(comparison):
    rows = summarise(comparison).rows
    assert [row["arm"] for row in rows] == [arm.name for arm in comparison.sweep.arms]
    for column in rows[0]:
        kinds = {type(row[column]) for row in rows if row[column] is not None}
        assert len(kinds) <= 1, column
    baseline = next(row for row in rows if row["arm"] == comparison.baseline.name)
    assert baseline["difference"] is None


def test_the_same_runs_have_one_digest_and_others_another(comparison, tmp_path):
    assert summarise(comparison).digest == summarise(comparison).digest
    r = comparison.results[0]
    moved = dataclasses.replace(r, mean=dataclasses.replace(r.mean, value=r.mean.value + 1e-12))
    other = dataclasses.replace(comparison, results=(moved, *comparison.results[1:]))
    assert summarise(other).digest != summarise(comparison).digest


@pytest.mark.parametrize("sweep", ["digits_showdown", "a/b", "a:b", "ü" * 200, "x" * 300, "", "a b", "?#%"])
def test_ids_are_such_as_w_and_b_takes(sweep):
    run = summary_run_id(sweep)
    assert 0 < len(run) <= 128
    assert not set(run) & set("/\\#?%:")


def test_ids_of_different_sweeps_differ_even_where_they_look_alike():
    names = ["a/b", "a:b", "a-b", "x" * 300, "x" * 301, "a b"]
    assert len({summary_run_id(name) for name in names}) == len(names)
