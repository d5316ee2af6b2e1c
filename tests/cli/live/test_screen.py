"""The screen fits its terminal and says what there is to say."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from bbi_lightning.cli.live.choosing import Choice
from bbi_lightning.cli.live.gathering import Gatherer, Queue, Scene, Workers
from bbi_lightning.cli.live.plain_lines import PlainLines
from bbi_lightning.cli.live.screen import Screen
from bbi_lightning.cluster.slurm import QueuedJob
from tests.tracking.live.runs_in_motion import MovingRun, labels, write_sweep


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("top")
    sweep = write_sweep(root / "sweeps" / "digits_showdown", trials=8, count=2)
    held = []
    for arm in ("bbi", "sgd"):
        for trial in range(6):
            run = MovingRun(
                sweep / "runs" / f"digits-cnn-{arm}-{trial}",
                labels=labels(sweep, arm, trial),
                energy=arm == "bbi",
            )
            held.append(run)
            run.train(180 if trial else 540)
            if trial == 0:
                run.folder.end_attempt("finished", summary={"val/acc": 0.97, "wall_s": 54.0})
            if trial == 1:
                run.train(30, train__loss="nan")
            if trial == 2:
                run.folder.end_attempt("failed", exception=RuntimeError(f"out of memory: {len(held)} GiB"))
    alone = MovingRun(root / "runs" / "imagenet-resnet50-bbi-0c1d2e3f4a-s0")
    alone.train(40)
    held.append(alone)
    yield root
    for run in held:
        run.folder.release()


@pytest.fixture(scope="module")
def scene(root) -> Scene:
    return Gatherer([root], 1.0).once()


def text(scene, choice=Choice(), *, width=100, height=None, encoding="utf-8", **more) -> list[str]:  # noqa: B008
    raw = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    console = Console(file=raw, width=width, height=height or 100)
    console.print(Screen(scene, choice, height=height, **more))
    raw.flush()
    return raw.buffer.getvalue().decode(encoding).splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 81, 100, 120, 160, 200, 300])
@pytest.mark.parametrize("height", [10, 24, 50])
@pytest.mark.parametrize(
    "choice", [Choice(), Choice(cursor=10**9), Choice(words="sgd", typing=True), Choice(detail=True)]
)
def test_fits(scene, width, height, choice):
    lines = text(scene, choice, width=width, height=height)
    assert len(lines) == height
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_all_lines_of_the_table_are_equally_long(scene, width):
    lines = text(scene, width=width)
    titles = next(i for i, line in enumerate(lines) if line.startswith("  run "))
    table = [line for line in lines[titles + 1 :] if re.search(r"  (running|finished|failed) ", line)]
    assert len(table) == 13
    where = lines[titles].index("best val") + len("best val")
    assert all(line[:where].rstrip().endswith("%") for line in table if "running" in line)


def test_says_what_matters_at_80_columns(scene):
    page = "\n".join(text(scene, width=80))
    for words in ("9 running", "2 failed", "2 finished", "digits_showdown", "4/20", "best val", "loss curve"):
        assert words in page, words
    assert re.search(r"✖ 2 runs, (bbi|sgd) t2 first: failed: RuntimeError: out of memory: [39] GiB", page)
    assert re.search(r"✖ 2 runs, (bbi|sgd) t1 first: the loss is nan since step 186: lower optim.lr", page)


def test_says_more_where_there_is_room(scene):
    narrow, wide = (
        next(line for line in text(scene, width=width) if line.startswith("  run ")) for width in (80, 200)
    )
    for title in ("epoch", "step", "steps/s", "samples/s", "E error", "V/E", "progress"):
        assert title in wide
        assert title not in narrow
    page = "\n".join(text(scene, width=200))
    assert "180/540" in page
    assert "9/30" in page


def test_the_worst_comes_first(scene):
    lines = text(scene)
    table = [line for line in lines if re.search(r"  (running|finished|failed) ", line)]
    assert [line[0] for line in table[:2]] == ["✖", "✖"]
    assert "finished" in table[-1]


def test_a_terminal_without_unicode_gets_ascii(scene):
    page = "\n".join(text(scene, encoding="ascii", height=30))
    assert "#" in page
    assert "X 2 runs" in page


def test_scrolls_to_the_last_run_and_says_where_it_is(scene):
    first = text(scene, height=16)
    last = text(scene, Choice(cursor=10**9), height=16)
    assert any(re.match(r"  1–\d+ of 13", line) for line in first)
    assert any(re.match(r"  \d+–13 of 13", line) for line in last)


def test_one_run_at_length(scene):
    page = "\n".join(text(scene, Choice(words="bbi t1", detail=True), width=120, height=40))
    assert "digits_showdown/bbi t1  running on" in page
    assert "step 210 of 540  loss nan  began at" in page
    assert "val/acc best" in page
    assert "nan: the loss is nan since step 186" in page
    assert str(scene.snapshot.sweeps[0].folder)[-20:] in page.replace("\n", "")[-2000:]
    bars = [line for line in page.splitlines() if "█" in line and "running" not in line]
    assert len(bars) == 10
    assert "×" in bars[-1]


def test_the_chosen_run_is_marked_on_a_terminal_and_only_there(scene):
    def marked(height):
        console = Console(
            file=io.StringIO(), width=100, height=30, force_terminal=True, color_system="standard"
        )
        console.print(Screen(scene, Choice(cursor=1), height=height))
        return [line for line in console.file.getvalue().splitlines() if "\x1b[1;7m" in line]

    assert len(marked(30)) == 1
    assert marked(None) == []


def test_a_filter_that_nothing_passes_says_how_to_go_back(scene):
    assert any("press Esc" in line for line in text(scene, Choice(words="xyz"), height=20))


def test_no_runs_yet(tmp_path):
    scene = Gatherer([tmp_path], 1.0).once()
    page = "\n".join(text(scene, roots=["runs"]))
    assert "there are no runs below runs yet" in page


def test_before_the_first_look_it_says_what_it_does():
    assert text(None, roots=["/scratch"]) == ["looking at /scratch …"]


def test_an_old_scene_says_how_old_it_is(scene):
    old = Scene(scene.snapshot, scene.queue, scene.workers, time.monotonic() - 42)
    assert "42 s old" in text(old, height=24)[0]
    assert "old" not in text(Scene(scene.snapshot, scene.queue, {}, time.monotonic()), height=24)[0]


def test_the_queue_is_counted_with_its_reasons(scene):
    jobs = [QueuedJob("1_0", "bbi-x", "RUNNING", "None", "n1")]
    jobs += [QueuedJob(f"1_{i}", "bbi-x", "PENDING", "Priority", "") for i in range(1, 4)]
    lines = text(Scene(scene.snapshot, Queue(True, tuple(jobs)), {}, time.monotonic()))
    assert lines[1] == "SLURM  3 pending  1 running (Priority)"
    silent = Scene(scene.snapshot, Queue(True, (), "squeue has not answered for 60 s"), {}, time.monotonic())
    lines = text(silent)
    assert lines[1] == "SLURM  unknown"
    assert "! squeue has not answered for 60 s" in lines


def test_workers_are_counted_and_missed(scene):
    folder = scene.snapshot.sweeps[0].folder
    at_work = Scene(scene.snapshot, Queue(), {folder: Workers(3, ("job 1 on n1",))}, time.monotonic())
    assert any("3 workers" in line for line in text(at_work, width=160))
    assert not at_work.alarms
    gone = Scene(scene.snapshot, Queue(), {folder: Workers(0, ("job 1 on n1",))}, time.monotonic())
    assert [alarm.code for alarm in gone.alarms] == ["workers"]
    assert "job 1 on n1 vanished" in gone.alarms[0].sentence


def test_lines_say_nothing_twice(scene):
    lines = PlainLines(Choice())
    first = list(lines.of(scene))
    assert "9 running, 2 failed, 2 finished" in first[0]
    assert "digits_showdown" in first[0]
    assert sum("the loss is nan" in line for line in first) == 2
    assert list(lines.of(scene)) == []
