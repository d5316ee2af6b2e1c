"""The specification: the same sections for every sweep, all its arms and searched parameters, plain JSON."""

import json
import re

import pytest

from bbi_lightning.comparison.dashboard.content import chosen, dashboard
from bbi_lightning.comparison.dashboard.report import report_markdown
from bbi_lightning.comparison.dashboard.specification import JOB_TYPES, report_mark, view_name
from bbi_lightning.comparison.dashboard.summary import summarise
from bbi_lightning.comparison.figures import all_pictures
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from bbi_lightning.comparison.verdict import verdict
from bbi_lightning.tracking.wandb_logger import group_of
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep, realistic


def compared(folder):
    return compare_sweep(read_sweep(folder))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return compared(realistic(tmp_path_factory.mktemp("sweeps") / "digits", trials=6))


@pytest.fixture(scope="module")
def built(comparison):
    return dashboard(comparison, project="optics", entity="me", pictures=all_pictures(comparison))


def panels(built):
    return [panel for section in built.sections for group in section.panels.values() for panel in group]


def test_every_sweep_has_the_same_sections_and_views(built, tmp_path):
    unlike = SyntheticSweep(tmp_path / "other", arms=ARMS[2:], trials=2, replicates=0).write()
    other = dashboard(compared(unlike), project="optics")
    assert [s.key for s in other.sections] == [s.key for s in built.sections]
    assert [v.key for v in other.views] == [v.key for v in built.views]
    assert not {v.name for v in other.views} & {v.name for v in built.views}


def test_what_a_sweep_lacks_is_said_and_not_charted(tmp_path):
    without_energy = dashboard(
        compared(SyntheticSweep(tmp_path / "sgd_adamw", arms=ARMS[2:], trials=3, replicates=2).write()),
        project="optics",
    )
    (energy,) = [section for section in without_energy.sections if section.key == "energy"]
    assert energy.text == "No arm of this sweep logs an energy."
    assert not any(energy.panels.values())
    not_begun = dashboard(
        compared(SyntheticSweep(tmp_path / "new", trials=1, replicates=0).write()), project="optics"
    )
    (outcomes,) = [section for section in not_begun.sections if section.key == "outcomes"]
    assert not [panel for panel in outcomes.panels["summary"] if panel.kind == "bars"]


def test_each_searched_parameter_is_charted_on_its_own_scale(built):
    scatters = {p.x: p.log_x for p in panels(built) if p.kind == "scatter" and p.x.startswith("config:optim")}
    assert scatters == {"config:optim.lr": True, "config:optim.momentum": False}
    (parallel,) = [panel for panel in panels(built) if panel.kind == "parallel"]
    assert parallel.metrics == ("config:arm", "config:optim.lr", "config:optim.momentum", "val/acc")
    assert parallel.log_columns == ("config:optim.lr",)


def test_curves_stand_against_every_axis_that_training_logs(built):
    (curves,) = [section for section in built.sections if section.key == "curves"]
    axes = {panel.x for panel in curves.panels["replicates"] if panel.metrics == ("val/acc",)}
    assert axes == {"trainer/global_step", "epoch", "samples", "time"}


def test_our_means_are_charted_from_the_run_with_our_numbers(built, comparison):
    values = summarise(comparison).values
    (means,) = [p for p in panels(built) if p.kind == "bars" and p.metrics[0].startswith("compare/")]
    assert set(means.metrics) == {f"compare/{arm.name}/mean" for arm in comparison.sweep.arms}
    assert set(means.metrics) <= values.keys()


def test_the_report_says_the_numbers_of_the_comparison(built, comparison):
    (outcomes,) = [section for section in built.sections if section.key == "outcomes"]
    for r in comparison.results:
        assert comparison.test.number(r.mean.value) in outcomes.text
        assert comparison.test.interval(r.mean) in outcomes.text
    for r in comparison.contestants:
        assert comparison.test.number(r.versus.difference.value, signed=True) in outcomes.text


def test_pictures_stand_in_the_section_of_the_page_once(built, comparison):
    shown = [key for panel in panels(built) if panel.kind == "media" for key in panel.metrics]
    assert shown == list(dict.fromkeys(shown))
    expected = {f"figures/{picture.key}" for picture in chosen(all_pictures(comparison))}
    assert set(shown) == expected
    assert not [key for key in shown if key.endswith(("-epoch", "-samples", "-time"))], "one axis is enough"


def test_the_first_view_says_the_verdict_and_shows_the_page(built, comparison):
    (title, panels), *_ = built.views[0].sections
    assert title == "In words"
    assert verdict(comparison).headline in "\n".join(panel.text for panel in panels)
    assert panels[-1].metrics == ("page",)
    without = dashboard(comparison, project="optics").views[0].sections
    assert not [p for _, panels in without for p in panels if p.kind == "media"], "nothing that was not sent"


def test_runs_are_found_by_attributes_that_the_logger_gives_them(built, comparison):
    groups = {group_of("digits", arm.name) for arm in comparison.sweep.arms}
    for runs in JOB_TYPES:
        conditions = dict(built.conditions(runs))
        assert set(conditions["Group"]) == ({"digits"} if runs == "summary" else groups)
    assert dict(built.conditions("search"))["JobType"] == ("search",)
    assert set(JOB_TYPES["all"]) == {"search", "replicate", "added"}  # every phase of a sweep's runs


def test_each_run_has_its_arm_s_colour(built, comparison):
    colours = {arm.name: arm.colour for arm in built.arms}
    assert len(set(colours.values())) == len(colours)
    assert built.colours == {run.name: colours[run.arm] for run in comparison.sweep.runs}


def test_names_depend_on_sweep_and_view_alone():
    assert view_name("digits", "search") == view_name("digits", "search")
    names = [view_name(sweep, key) for sweep in ("digits", "digits2") for key in ("search", "runs", "report")]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"nw-[0-9a-z]{11}-v", name) for name in names)
    assert report_mark("digits") != report_mark("digits2")


def test_the_specification_is_plain_json_and_the_same_every_time(built, comparison):
    again = dashboard(comparison, project="optics", entity="me", pictures=all_pictures(comparison))
    assert again.to_json() == built.to_json()
    plain = json.loads(built.to_json())
    assert plain["project"] == "optics"
    assert [view["key"] for view in plain["views"]] == [view.key for view in built.views]


def test_the_report_in_words_has_every_section_and_chart(built):
    text = report_markdown(built)
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert headings[:-1] == [section.title for section in built.sections]
    assert all(panel.title in text for panel in panels(built))
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(widths) == 1, table


def test_a_bar_in_a_label_does_not_break_the_tables(tmp_path):
    arms = (ARMS[0].__class__(**{**vars(ARMS[0]), "label": "BBI | fast"}), *ARMS[2:])
    text = report_markdown(
        dashboard(compared(SyntheticSweep(tmp_path / "bars", arms=arms, trials=2).write()), project="p")
    )
    assert "| BBI \\| fast |" in text
