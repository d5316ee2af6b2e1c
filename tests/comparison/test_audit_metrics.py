"""A metric that the runs do not have, and numbers that do not exist."""

import math
from pathlib import Path

from bbi_lightning.comparison.audit import Finding
from bbi_lightning.comparison.verdict import verdict
from tests.comparison.test_audit import compared, edit_spec, found, written


def test_a_metric_that_no_run_has_is_not_called_broken_pairs_or_a_wrong_best(tmp_path: Path):
    folder = edit_spec(
        written(tmp_path / "s"), lambda s: s["objective"].update(metric="val/f1", tie_breaker=None)
    )
    by_code = found(folder)
    assert [f.evidence["metric"] for f in by_code["metric-missing"]] == ["val/f1", "test/f1"]
    assert "there is val/acc, val/loss" in by_code["metric-missing"][0].sentence
    assert not {"broken-pairs", "replicates-not-of-best", "replicates-left-out"} & by_code.keys()
    said = verdict(compared(folder))
    assert said.headline == "No verdict: no finished replicate has test/f1."
    assert said.sentences[0].endswith("has test/f1: nothing to judge.")


def test_a_number_that_does_not_exist_is_null_for_scripts():
    finding = Finding(
        "note", "claim-holds", "So.", evidence={"low": math.nan, "of": {"sgd": [math.inf, 1.0]}}
    )
    assert finding.plain()["evidence"] == {"low": None, "of": {"sgd": [None, 1.0]}}
