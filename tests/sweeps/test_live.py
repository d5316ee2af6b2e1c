import dataclasses
import io

import pytest
import toy_task
from rich.console import Console
from toy_task import begin, runnable

from bbi_lightning.sweeps.live import WIDE, LiveTable, PlainLines, display, table
from bbi_lightning.sweeps.status import read_status
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.trial import Outcome, Owner
from bbi_lightning.sweeps.workers import WorkerInfo

WORKER = WorkerInfo(Owner("me", "1"), "here", 7, None, 2, "2026-01-01T00:00:00+00:00")


@pytest.fixture
def studies(tmp_path):
    spec = toy_task.spec(title="A sweep of formulas", replicates={"count": 12})
    studies = Studies(tmp_path / "journal.log", spec)
    studies.plan()
    return studies


def tell(studies, arm, *outcomes):
    for trial, outcome in zip(runnable(studies, arm), outcomes, strict=False):
        assert studies.tell(begin(studies, trial), outcome)


@pytest.fixture
def halfway(studies):
    tell(studies, "plain", *[Outcome("finished", 0.9 + i / 100, 0.001, seconds=2.0) for i in range(4)])
    tell(studies, "wide", Outcome("finished", 0.5, 1e-5, seconds=4.0), Outcome("diverged", seconds=4.0))
    studies.claim(WORKER.owner, lambda owner: True)
    return studies


def printed(renderable, width):
    output = io.StringIO()
    Console(file=output, width=width, color_system=None).print(renderable)
    return output.getvalue()


def test_the_table_says_where_each_arm_stands(halfway):
    lines = printed(table(read_status(halfway, living=[WORKER]), 120), 120).splitlines()
    plain, wide = (next(line for line in lines if line.split()[:1] == [arm]) for arm in ("plain", "wide"))
    assert plain.split()[2:6] == ["4/4", "0.9300", "0.0010", "x=0.3162"] or "4/4" in plain
    assert " 0.9300 " in plain
    assert "x=" in plain
    assert " 0/12" in plain
    assert " 2/4 " in wide
    assert "1 running  1 diverged" in wide
    assert " 1e-05 " in wide
    assert "A sweep of formulas" in lines[1]


@pytest.mark.parametrize("width", [40, 60, 80, 100, WIDE, 200])
def test_it_fits(halfway, width):
    status = read_status(halfway)
    text = printed(table(status, width), width)
    assert max(map(len, text.splitlines())) <= width
    if width >= 80:
        assert "…" not in text


def test_what_nobody_runs_is_interrupted(halfway):
    text = printed(table(read_status(halfway, living=()), 120), 120)
    assert "1 interrupted" in text
    assert "running" not in text


def test_nothing_yet(studies):
    status = read_status(studies)
    assert (status.ended, status.total, status.eta) == (0, 32, None)
    assert "–" in printed(table(status, 120), 120)


def test_the_eta_comes_from_measured_durations(halfway):
    four = [dataclasses.replace(WORKER, slots=4)]
    status = read_status(halfway, living=four)
    assert (status.ended, status.total, status.running) == (6, 32, 1)
    assert status.eta == (12 * 2.0 + (2 + 12) * 4.0) / 4  # plain: replicates; wide: two trials and replicates
    key = next(t.key for t in halfway.trials("wide") if t.state == "running")
    assert read_status(halfway, {key: 3.0}, living=four).eta == status.eta - 3.0 / 4
    assert read_status(halfway, {key: 99.0}, living=four).eta == status.eta - 4.0 / 4, "late, not negative"


def test_the_display_suits_the_console():
    assert isinstance(display(Console(file=io.StringIO())), PlainLines)
    assert isinstance(display(Console(file=io.StringIO(), force_terminal=True)), LiveTable)


def test_plain_lines_come_at_intervals_and_only_when_something_happened(halfway):
    output = io.StringIO()
    lines = PlainLines(Console(file=output, width=60), interval=0.0)
    status = read_status(halfway)
    for _ in range(3):
        lines.update(status)
    (line,) = output.getvalue().splitlines()
    assert line.startswith(
        "6/32 runs · 0 s so far · about 40 s to go · best val/acc: plain 0.9300, wide 0.5000"
    )

    output.truncate(0)
    slow = PlainLines(Console(file=output), interval=60.0)
    slow.update(status)
    tell(halfway, "wide", Outcome("finished", 0.6, seconds=1.0))
    slow.update(read_status(halfway))
    assert output.getvalue().count("\n") == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_notes_are_not_taken_for_markup(halfway, terminal):
    output = io.StringIO()
    shown = display(Console(file=output, force_terminal=terminal, width=200))
    with shown.busy("checking [bold]"):
        pass
    shown.note("journal[0] is [bold]")
    shown.update(read_status(halfway))
    shown.close(read_status(halfway))
    assert "journal[0] is [bold]" in output.getvalue()
    assert "0.9300" in output.getvalue()


@pytest.mark.parametrize("width", [84, 100, WIDE, 130])
def test_bars_make_room_for_words(halfway, width):
    """What runs, diverged or failed is never cut off in favour of a bar."""
    said = printed(table(read_status(halfway, living=[WORKER]), width), width)
    assert "1 running  1 diverged" in said
    assert "…" not in said
    assert ("━" in said) == (width >= 100)
