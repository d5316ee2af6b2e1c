"""The pictures of a page: by section, in few bytes, each with the names of the files that hold it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from bbi_lightning.comparison.figures import SECTIONS, Picture
from bbi_lightning.comparison.page.archive import figure_files

_STYLE = re.compile(r' style="([^"]*)"')
_NUMBER = re.compile(r'="(-?\d+\.\d{3,})"')
_BETWEEN = re.compile(r">\s*\n\s*<")
_NO_TURN = re.compile(r' transform="rotate\(-?0 [^"]*"')


class Gallery:
    """All pictures of a page.

    Half of an `<svg>` that matplotlib writes are styles, the same ones again and again: here they become
    classes that all pictures share.

    Attributes:
        files: for the archive, see `archive.figure_files`.
    """

    def __init__(self, pictures: Iterable[Picture]) -> None:
        self.files = figure_files(pictures)
        self._classes: dict[str, str] = {}
        self._kinds: dict[str, list[str]] = {}
        for name in self.files:
            key, _, kind = name.rpartition(".")
            self._kinds.setdefault(key, []).append(kind)

    def sections(self, pictures: Sequence[Picture]) -> dict[str, list[dict[str, Any]]]:
        """What the templates show of some of the pictures, by section; no section is missing."""
        sections: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
        for picture in pictures:
            sections[picture.section].append(
                {
                    "key": picture.key,
                    "title": picture.title,
                    "caption": picture.caption,
                    "axis": picture.axis,
                    "small": picture.small,
                    "files": " ".join(self._kinds[picture.key]),
                    "markup": Markup(self.compact(picture.markup)),  # every text in it is escaped there
                }
            )
        return sections

    def compact(self, markup: str) -> str:
        """An `<svg>` with classes in place of styles, coordinates to a hundredth; anything else as it is."""
        if not markup.startswith("<svg"):
            return markup
        markup = _NO_TURN.sub("", _BETWEEN.sub("><", markup))
        markup = _NUMBER.sub(lambda number: f'="{float(number[1]):.2f}"', markup)
        return _STYLE.sub(self._named, markup)

    def _named(self, style: re.Match[str]) -> str:
        name = self._classes.setdefault(style[1], f"p{len(self._classes)}")
        return f' class="{name}"'

    @property
    def css(self) -> str:
        """The rules of the classes given so far."""
        return "".join(f"svg .{name} {{ {style} }}\n" for style, name in self._classes.items())
