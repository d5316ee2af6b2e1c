"""`bbi dashboard` against a stand-in for the service: from nothing to a dashboard that agrees, and on."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wandb_workspaces", reason="the extra `dashboard` is not installed")

TESTS = Path(__file__).parents[2]
sys.path.insert(0, str(TESTS / "tracking"))

from wandb_standin import DUMMY_KEY, WandbStandIn, wandb_environment  # noqa: E402

from bbi_lightning.comparison.dashboard.summary import summarise  # noqa: E402
from bbi_lightning.comparison.results import compare_sweep  # noqa: E402
from bbi_lightning.comparison.sweep_data import read_sweep  # noqa: E402
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUNS = 8  # two arms of two trials and two replicates
SUMMARY = "summary-small"


class Place:
    """A sweep, a service, and the verb between them."""

    def __init__(self, root, service):
        self.root, self.service = root, service
        arms = (ARMS[0], ARMS[2])
        self.sweep = SyntheticSweep(
            root / "sweeps" / "small", arms=arms, trials=2, replicates=2, planned_replicates=2
        ).write()
        self.environment = service.environment(root / "home")

    def bbi(self, *arguments, **changes):
        return subprocess.run(
            [sys.executable, "-m", "bbi_lightning.cli", "dashboard", "small", *arguments],
            cwd=self.root, env=self.environment | changes, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def comparison(self):
        return compare_sweep(read_sweep(self.sweep))


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Everything in order, once: what each call said, and what the service had after it."""
    root = tmp_path_factory.mktemp("dashboard")
    with WandbStandIn() as service:
        place = Place(root, service)
        story = {"place": place, "service": service}

        def call(name, *arguments, **changes):
            story[name] = place.bbi(*arguments, **changes)
            story[f"{name} views"] = [
                (v.id, v.type, v.name, v.saved, json.dumps(v.spec)) for v in service.api.views
            ]
            run = service.runs.get(SUMMARY)
            story[f"{name} rows"] = len(run.history) if run else 0

        call("before", "--check")
        call("first", "--upload")
        call("agrees", "--check", "--json")
        report = next(view for view in service.api.views if view.type == "runs")
        report.display_name = "Renamed by hand"
        call("again")
        story["values"] = dict(service.runs[SUMMARY].summary)
        story["expected"] = dict(summarise(place.comparison()).values)

        name = place.comparison().result("sgd").finished[0].name
        record = place.sweep / "runs" / name / "run.json"
        changed = json.loads(record.read_text())
        changed["summary"]["test/acc"] -= 0.25
        record.write_text(json.dumps(changed))
        story["changed run"] = name
        call("differs", "--check", "--json")
        call("mended", "--no-figures")
        story["mended values"] = dict(service.runs[SUMMARY].summary)
        story["mended expected"] = dict(summarise(place.comparison()).values)

        service.refused = {"upsertView"}
        call("refused", "--no-figures")
        yield story


def panels_of(report):
    grids = [block["metadata"] for block in report["blocks"] if block["type"] == "panel-grid"]
    return [panel for grid in grids for panel in grid["panelBankSectionConfig"]["panels"]]


def test_an_empty_project_is_no_agreement_and_no_crash(told):
    assert told["before"].returncode == 1
    assert f"0 of {RUNS} runs are in standin/bbi_lightning" in told["before"].stdout
    assert told["before"].stderr == ""
    assert (
        f"{RUNS + 1} × missing: W&B does not have them: `bbi dashboard small --upload`"
        in told["before"].stdout
    )
    assert "run: ours finished, W&B's nothing" in told["before"].stdout
    mean = told["expected"]["compare/sgd/mean"]
    assert f"sgd test/acc: ours {mean:.10g} of 2, W&B's nothing" in told["before"].stdout


def test_runs_that_were_never_recorded_arrive_whole(told):
    assert told["first"].returncode == 0, told["first"].stderr
    place, service = told["place"], told["service"]
    runs = [run for run in place.comparison().sweep.runs if run.name != told["changed run"]]
    assert len(runs) == RUNS - 1
    for run in runs:
        there = service.runs[run.name]
        assert (there.group, there.job_type, there.state) == (f"small/{run.arm}", run.phase, "finished")
        assert there.config["arm"]["value"] == run.arm
        curve = run.curve("val/acc")
        sent = [(row["trainer/global_step"], row["val/acc"]) for row in there.history if "val/acc" in row]
        assert sent == list(zip(curve.step.tolist(), curve.value.tolist(), strict=True))
        loss = run.curve("train/loss")
        assert [row["time"] for row in there.history if "train/loss" in row] == loss.time.tolist()


def test_every_part_is_made(told):
    kinds = [(kind, name) for _, kind, name, _, _ in told["first views"]]
    assert [kind for kind, _ in kinds] == ["project-view"] * 4 + ["runs"]
    for _, name in kinds[:4]:
        assert re.search(rf"nw={name[3:-2]}\b", told["first"].stdout)
    assert told["first"].stdout.count("created") == 6
    report = next(view for view in told["service"].api.views if view.type == "runs")
    projects = {
        (runset["project"]["entityName"], runset["project"]["name"])
        for block in report.spec["blocks"] if block["type"] == "panel-grid"
        for runset in block["metadata"]["runSets"]
    }  # fmt: skip
    assert projects == {("standin", "bbi_lightning")}


def test_the_summary_run_has_our_numbers_table_pictures_and_page(told):
    run = told["service"].runs[SUMMARY]
    assert (run.group, run.job_type, run.state) == ("small", "summary", "finished")
    ours = {key: told["values"].get(key) for key in told["expected"]}
    assert ours == told["expected"]
    assert told["values"]["compare/table"]["_type"] == "table-file"
    assert told["values"]["page"]["_type"] == "html-file"
    (report,) = [json.loads(spec) for *_, spec in told["first views"] if "blocks" in json.loads(spec)]
    shown = {key for panel in panels_of(report) for key in panel["config"].get("mediaKeys") or []}
    assert shown == {key for key in told["values"] if key.startswith("figures/")}
    captions = {key: told["values"][key].get("caption") for key in shown}
    assert {key for key, caption in captions.items() if caption} >= {"figures/outcomes", "figures/loss"}, (
        captions
    )
    assert shown
    (table,) = [content for name, content in run.files.items() if name.endswith("table.table.json")][:1]
    rows = json.loads(table)
    assert [row[rows["columns"].index("arm")] for row in rows["data"]] == ["bbi", "sgd"]


def test_what_was_pushed_agrees(told):
    assert told["agrees"].returncode == 0, told["agrees"].stdout
    answer = json.loads(told["agrees"].stdout)
    assert answer["agrees"]
    assert (answer["runs"], answer["found"], answer["differences"]) == (RUNS, RUNS, [])
    assert answer["numbers"] >= RUNS * 3 + len(told["expected"])
    for mean in answer["means"]:
        assert mean["theirs"] == pytest.approx(mean["ours"], rel=1e-12)
        assert mean["theirs_n"] == mean["ours_n"] == 2


def test_a_second_call_replaces_and_adds_nothing(told):
    assert told["again"].returncode == 0
    assert "created" not in told["again"].stdout
    assert re.search(r"summary run +unchanged", told["again"].stdout)
    first, again = told["first views"], told["again views"]
    assert [view[:3] for view in again] == [view[:3] for view in first], "no duplicates"
    assert [view[3] for view in again] == [view[3] + 1 for view in first]
    assert [view[4] for view in again] == [view[4] for view in first], "the same specification"
    assert told["again rows"] == told["first rows"] == 1


def test_a_result_that_changed_here_is_found_everywhere_it_matters(told):
    assert told["differs"].returncode == 1
    answer = json.loads(told["differs"].stdout)
    found = {(d["kind"], d["where"], d["what"]) for d in answer["differences"]}
    assert ("number", told["changed run"], "test/acc") in found
    assert ("mean", "sgd", "test/acc") in found
    assert ("summary", SUMMARY, "compare/sgd/mean") in found
    assert not [kind for kind, *_ in found if kind in ("missing", "unknown", "state", "place")]


def test_a_new_result_updates_the_summary_run(told):
    assert told["mended"].returncode == 0
    assert re.search(r"summary run +updated", told["mended"].stdout)
    assert {key: told["mended values"].get(key) for key in told["mended expected"]} == told["mended expected"]
    assert told["mended values"]["compare/sgd/mean"] != told["values"]["compare/sgd/mean"]


def test_a_refusal_is_one_sentence_and_the_specification_is_there(told):
    assert told["refused"].returncode == 1
    assert "Traceback" not in told["refused"].stderr
    assert "permission denied" in told["refused"].stdout
    assert (told["place"].sweep / "dashboard" / "dashboard.json").is_file()


def test_the_key_is_nowhere(told):
    for name in ("first", "agrees", "refused"):
        assert DUMMY_KEY not in told[name].stdout + told[name].stderr
    for file in told["place"].sweep.rglob("*"):
        assert not file.is_file() or DUMMY_KEY.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "nobody is logged in to W&B: run `wandb login`, or set WANDB_API_KEY"),
        ({"WANDB_API_KEY": DUMMY_KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "W&B does not let us in"),
    ],
)
def test_without_an_account_or_a_server_it_says_what_it_would_make(tmp_path, changes, sentence):
    sweep = SyntheticSweep(tmp_path / "sweeps" / "small", arms=ARMS[2:], trials=2, replicates=2).write()
    done = subprocess.run(
        [sys.executable, "-m", "bbi_lightning.cli", "dashboard", "small"],
        cwd=tmp_path, env=wandb_environment(tmp_path / "home") | changes, capture_output=True, text=True,
        check=False, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert sentence in done.stdout
    assert "Traceback" not in done.stderr
    assert "the report " in done.stdout
    assert json.loads((sweep / "dashboard" / "dashboard.json").read_text())["sweep"] == "small"
    assert (sweep / "dashboard" / "report.md").read_text().startswith("# ")
