"""`bbi top`: runs and sweeps as they go on, here and on the cluster."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from bbi_lightning.cli.live.choosing import Choice
    from bbi_lightning.cli.live.gathering import Gatherer, Scene

_DEFAULT_ROOTS = ("runs", "sweeps")
_TICK = 0.25  # seconds between two looks at the keyboard
_WIDE = 200  # columns of what is no terminal

HELP = """
Watch runs and sweeps: progress, speed, time left, loss, best validation, energy, alarms.

[bold]Examples[/bold]

  bbi top                               # all below ./runs and ./sweeps
  bbi top sweeps/digits_showdown        # one sweep, or any folder above runs
  bbi top /scratch/me --interval 10     # gently, on a slow disk
  bbi top --once --filter running       # print once and leave
  bbi top --once --json | jq '.runs[] | select(.alarms != [])'

[bold]Keys[/bold]

  q          quit
  s, S       another order, back: state, eta, loss, best, speed, name
  f          only runs with these words (!word: without it); Esc clears
  a          all, those that run, those with alarms
  arrows     choose a run, page keys too; Enter shows it at length

[bold]Alarms[/bold]

  lost       its process is gone        failed, ranks   how it ended
  nan        the loss is no number      skipped         steps without a loss
  stall      at V ≤ 0, or at rest       energy          steps change E by > E
  rising     loss above its start       data            it waits for data
  silent     no row for long            disk, workers, queue

  docs/jobs/top.md says what to do about each.

Into a file or a pipe it writes a line whenever something has changed.
It only reads. Exit codes: 0; 2 no such folder.
"""


def top(
    roots: Annotated[
        list[Path] | None,
        typer.Argument(metavar="ROOT", help="Folders with runs below. Default: runs and sweeps."),
    ] = None,
    interval: Annotated[float, typer.Option("--interval", "-n", help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print it once and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for every look.")] = False,
    words: Annotated[str, typer.Option("--filter", "-f", metavar="WORDS", help="Only runs with these.")] = "",
    order: Annotated[
        str, typer.Option("--sort", "-s", help="state, eta, loss, best, speed or name.", show_default=True)
    ] = "state",
) -> None:
    """Watch runs and sweeps as they go on."""
    from rich.console import Console

    from bbi_lightning.cli.live.choosing import Choice

    with _mistakes_in_a_sentence():
        _check(interval, order)
        folders = _roots(roots)
    console = Console()
    choice = Choice(order=order, words=words)
    if once:
        _once(console, folders, choice, as_json)
    elif as_json:
        _stream(folders, choice, interval)
    elif console.is_terminal:
        _show(console, folders, choice, interval)
    else:
        _lines(console, folders, choice, interval)


@contextlib.contextmanager
def _mistakes_in_a_sentence() -> Iterator[None]:
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        raise typer.Exit(2) from None


def _check(interval: float, order: str) -> None:
    from bbi_lightning.cli.live.choosing import ORDERS

    if not 0.1 <= interval < math.inf:
        raise ValueError(f"--interval={interval:g} is too short: give 0.1 or more seconds")
    if order not in ORDERS:
        raise ValueError(f"--sort={order} is no order: use one of {', '.join(ORDERS)}")


def _roots(given: Sequence[Path] | None) -> list[Path]:
    if given:
        for root in given:
            if not root.is_dir():
                raise FileNotFoundError(f"there is no folder {root}: give one that has runs below it")
        return list(given)
    found = [Path(name) for name in _DEFAULT_ROOTS if Path(name).is_dir()]
    if not found:
        raise FileNotFoundError(
            "neither runs/ nor sweeps/ is here: give a folder that has runs below it, as in bbi top /scratch"
        )
    return found


def _once(console: Console, folders: list[Path], choice: Choice, as_json: bool) -> None:
    from rich.console import Console

    from bbi_lightning.cli.live.gathering import Gatherer
    from bbi_lightning.cli.live.screen import Screen

    scene = Gatherer(folders, 1.0).once()
    if as_json:
        print(json.dumps(plain(scene, choice), indent=2))
        return
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=_WIDE)  # a file has no width
    console.print(Screen(scene, choice, roots=[str(folder) for folder in folders]), highlight=False)


def _stream(folders: list[Path], choice: Choice, interval: float) -> None:
    from bbi_lightning.cli.live.gathering import Gatherer

    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        for scene in _scenes(Gatherer(folders, interval)):
            print(json.dumps(plain(scene, choice)), flush=True)


def _lines(console: Console, folders: list[Path], choice: Choice, interval: float) -> None:
    from bbi_lightning.cli.live.gathering import Gatherer
    from bbi_lightning.cli.live.plain_lines import PlainLines

    lines = PlainLines(choice)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        for scene in _scenes(Gatherer(folders, interval)):
            for line in lines.of(scene):
                print(line, flush=True)


def _scenes(gatherer: Gatherer) -> Iterator[Scene]:
    """Every new scene, until the gatherer fails."""
    gatherer.start()
    seen = None
    while gatherer.trouble is None:
        scene = gatherer.scene()
        if scene is not None and scene is not seen:
            seen = scene
            yield scene
        time.sleep(_TICK)
    raise gatherer.trouble


def _show(console: Console, folders: list[Path], choice: Choice, interval: float) -> None:
    from rich.live import Live

    from bbi_lightning.cli.live.gathering import Gatherer
    from bbi_lightning.cli.live.keys import Keys, NoKeys
    from bbi_lightning.cli.live.screen import Screen

    for ending in (signal.SIGTERM, signal.SIGHUP):  # the connection is lost: leave a terminal in order
        signal.signal(ending, _leave)
    gatherer = Gatherer(folders, interval)
    gatherer.start()
    names = [str(folder) for folder in folders]

    def picture() -> Screen:
        trouble = f"it cannot look any more: {gatherer.trouble}" if gatherer.trouble else ""
        return Screen(
            gatherer.scene(), choice, height=console.height, interval=interval, roots=names, trouble=trouble
        )

    keys = Keys() if sys.stdin.isatty() else NoKeys()
    with contextlib.suppress(KeyboardInterrupt), keys, Live(
        console=console, screen=True, auto_refresh=False, vertical_overflow="crop"
    ) as live:  # fmt: skip
        shown: tuple[Any, ...] = ()
        while True:
            second = int(time.monotonic() / max(1.0, interval))  # ages grow though nothing else changes
            now = (gatherer.scene(), choice, console.size, gatherer.trouble, second)
            if now != shown:
                live.update(picture(), refresh=True)
                shown = now
            key = keys.next(_TICK)
            if key is None:
                continue
            screen = picture()
            pressed = choice.pressed(key, screen.page(console.width), screen.count())
            if pressed is None:
                return
            choice = pressed


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def plain(scene: Scene, choice: Choice) -> dict[str, Any]:
    """A scene as plain JSON values: what is not a number is null."""
    snapshot = scene.snapshot
    return {
        "at": snapshot.at,
        "complete": snapshot.complete,
        "runs": [_plain(run, leave_out=("losses",)) for run in choice.of(snapshot.runs)],
        "sweeps": [
            _plain(sweep) | {"ended": sweep.ended, "workers": vars(scene.workers[sweep.folder])}
            if sweep.folder in scene.workers
            else _plain(sweep) | {"ended": sweep.ended}
            for sweep in snapshot.sweeps
        ],
        "alarms": [vars(alarm) for alarm in scene.alarms],
        "queue": [vars(job) for job in scene.queue.jobs] if scene.queue.here else None,
    }


def _plain(value: Any, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    return {
        field.name: _json(getattr(value, field.name))
        for field in fields(value)
        if field.name not in leave_out
    }


def _json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return [vars(alarm) for alarm in value] if isinstance(value, tuple) else value
