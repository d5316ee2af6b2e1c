"""wandb-workspaces takes the specification as it is meant; no server is asked."""

import json

import pytest

pytest.importorskip("wandb_workspaces", reason="the extra `dashboard` is not installed")

from bbi_lightning.comparison.dashboard import views
from bbi_lightning.comparison.dashboard.content import dashboard
from bbi_lightning.comparison.figures import all_pictures
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.synthetic_sweep import realistic


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    c = compare_sweep(read_sweep(realistic(tmp_path_factory.mktemp("sweeps") / "digits", trials=6)))
    return dashboard(c, project="optics", entity="me", pictures=all_pictures(c))


def spec_of(thing):
    return json.loads(thing._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


@pytest.fixture(scope="module")
def workspaces(built):
    return {view.key: spec_of(views.workspace(built, view, "me")) for view in built.views}


@pytest.fixture(scope="module")
def report(built):
    return spec_of(views.report(built, "me", lookup=False))


def grids(report):
    return [block["metadata"] for block in report["blocks"] if block["type"] == "panel-grid"]


def filters_of(runset):
    return {
        f["key"]["name"]: (f["key"]["section"], f["op"], f["value"]) for f in runset["filters"]["filters"]
    }


def test_views_list_the_runs_of_the_sweep_and_no_others(workspaces):
    groups = [f"digits/{arm}" for arm in ("bbi", "ecdsep", "sgd", "adamw")]
    (runset,) = workspaces["replicates"]["section"]["runSets"]
    assert filters_of(runset) == {
        "group": ("run", "IN", groups),
        "jobType": ("run", "IN", ["replicate"]),
    }
    (summary,) = workspaces["conclusion"]["section"]["runSets"]
    assert filters_of(summary)["group"] == ("run", "IN", ["digits"])


def test_replicates_are_grouped_by_the_config_key_that_the_logger_writes(workspaces):
    (runset,) = workspaces["replicates"]["section"]["runSets"]
    assert runset["grouping"] == [{"section": "config", "name": "arm.value"}]
    assert workspaces["search"]["section"]["runSets"][0]["grouping"] == []


def test_the_best_runs_come_first(workspaces):
    (runset,) = workspaces["search"]["section"]["runSets"]
    assert runset["sort"]["keys"] == [{"key": {"section": "summary", "name": "val/acc"}, "ascending": False}]


def test_colours_are_those_of_our_pictures(workspaces, built):
    by_run = workspaces["search"]["section"]["customRunColors"]
    assert by_run == built.colours
    by_arm = workspaces["replicates"]["section"]["customRunColors"]
    found = {
        json.loads(json.dumps(key)).split("%22value%22%3A%22")[1].split("%22")[0]: c
        for key, c in by_arm.items()
    }
    assert found == {arm.name: arm.colour for arm in built.arms}


def test_charts_ask_for_the_keys_that_training_logs(workspaces):
    sections = workspaces["replicates"]["section"]["panelBankConfig"]["sections"]
    charts = {p["config"]["chartTitle"]: p["config"] for s in sections for p in s["panels"]}
    over_time = charts["Validation accuracy over seconds"]
    assert (over_time["xAxis"], over_time["metrics"]) == ("time", ["val/acc"])
    assert (over_time["groupBy"], over_time["groupAgg"], over_time["groupArea"]) == (
        "arm.value",
        "mean",
        "stderr",
    )
    assert charts["Training loss over optimizer steps"]["xAxis"] == "trainer/global_step"
    assert charts["Training loss over optimizer steps"]["yLogScale"] is True
    searched = workspaces["search"]["section"]["panelBankConfig"]["sections"]
    scatter = next(
        p["config"] for s in searched for p in s["panels"] if p["config"].get("chartTitle") == "optim.lr"
    )
    assert (scatter["xAxis"], scatter["yAxis"]) == ("config:optim.value.lr", "summary:val/acc")


def test_the_verdict_stands_in_the_workspace_too(workspaces, built):
    (first, *_) = workspaces["conclusion"]["section"]["panelBankConfig"]["sections"]
    texts = [p["config"]["value"] for p in first["panels"] if p["viewType"] == "Markdown Panel"]
    assert texts == [p.text for p in built.views[0].sections[0][1] if p.kind == "text"]
    assert texts[0].startswith("## Verdict")


def test_the_report_has_every_section_and_its_charts(report, built):
    headings = [b["children"][0]["text"] for b in report["blocks"] if b["type"] == "heading"]
    assert headings == [section.title for section in built.sections]
    charts = sum(len(grid["panelBankSectionConfig"]["panels"]) for grid in grids(report))
    assert charts == sum(len(group) for section in built.sections for group in section.panels.values())
    texts = [b["content"] for b in report["blocks"] if b["type"] == "markdown-block"]
    assert texts == [section.text for section in built.sections]


def test_charts_of_a_grid_do_not_overlap(report):
    for grid in grids(report):
        taken = set()
        for panel in grid["panelBankSectionConfig"]["panels"]:
            box = panel["layout"]
            cells = {(box["x"] + i, box["y"] + j) for i in range(box["w"]) for j in range(box["h"])}
            assert not cells & taken
            assert box["x"] + box["w"] <= 24
            taken |= cells


def test_the_same_dashboard_gives_the_same_specification(built, workspaces, report):
    assert {v.key: spec_of(views.workspace(built, v, "me")) for v in built.views} == workspaces
    assert spec_of(views.report(built, "me", lookup=False)) == report


def test_names_that_wandb_workspaces_takes_for_emojis_are_accepted(built):
    import dataclasses

    view = dataclasses.replace(built.views[0], title="a+b < c: x = 2^3 🙂")
    assert views.workspace(built, view, "me").name == "a b   c: x   2 3  "
    titled = dataclasses.replace(built, title="σ → " + "long " * 60)
    assert len(views.report(titled, "me", lookup=False).title) <= 128


def test_a_thousand_runs_make_a_specification_that_can_be_sent(built):
    import dataclasses

    many = dataclasses.replace(built, colours={f"digits-cnn-bbi-{i:010d}-s0": "#0072b2" for i in range(5000)})
    size = len(json.dumps(spec_of(views.report(many, "me", lookup=False))))
    assert size < 2_000_000
