"""What a figure is before it is drawn: its words, its data, and how to draw it on a page or in a paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from matplotlib.figure import Figure

from bbi_lightning.comparison.figures.style import SCREEN, Style
from bbi_lightning.comparison.figures.svg import to_markup

Section = Literal["tasks", "outcomes", "curves", "tuning", "profiles", "sensitivity", "energy", "matched"]
SECTIONS: tuple[Section, ...] = (
    "tasks", "outcomes", "curves", "tuning", "profiles", "sensitivity", "energy", "matched",
)  # fmt: skip

AXES = {
    "step": "optimizer steps",
    "epoch": "epochs",
    "samples": "training samples",
    "time": "training time (s)",
}


def key_of(*parts: str) -> str:
    """A picture's key from words: letters, digits, dashes and underscores."""
    return "-".join(re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-") for part in parts)


Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Picture:
    """A figure with its words and numbers. It is drawn when `markup` is asked for, or by `save_figures`.

    Attributes:
        key: unique on a page, fit for an id and a file's name.
        section: the part of the page it belongs to, one of `SECTIONS`.
        title: a heading.
        caption: how to read it. Of small pictures of a kind only the first has one; `reading` all of them.
        description: what it shows, for those who do not see it.
        draw: makes the figure in a style.
        data: the numbers drawn, one row a mark, for a CSV file; empty where a table has them already.
        group: pictures of one group show the same against different axes: a page shows one of them at a time.
        axis: a key of `AXES` where there is a group, else "".
        small: one of several that belong beside each other, with the arm's name drawn inside.
        task: the sweep it is about; "" for what is about all of them.
        reading: how to read it where `caption` is empty because a picture before it says so.
    """

    key: str
    section: Section
    title: str
    caption: str
    description: str
    draw: Callable[[Style], Figure] = field(repr=False, compare=False)
    data: Rows = field(default=(), repr=False)
    group: str = ""
    axis: str = ""
    small: bool = False
    task: str = ""
    reading: str = ""

    @cached_property
    def markup(self) -> str:
        """The figure as an `<svg>` (or `<img>`) element that takes the page's colours."""
        return to_markup(self.draw(SCREEN), self.key, self.description)

    def of_task(self, task: str, prefix: str = "") -> Picture:
        """The same picture, said to be about `task`, its key prefixed where a page shows several tasks."""
        group = prefix + self.group if self.group else ""
        return replace(self, key=prefix + self.key, group=group, task=task)
