"""The names by which a user may call a run's fields: whole, shortened, or misspelt and corrected.

A field is a fact (`state`), a leaf of the config (`optim.lr`) or a metric of the summary (`test/acc`). Its
last parts are a name too where only one field ends with them (`lr`), or only one that is as short.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from bbi_lightning.tracking.query import QueryError

FACTS = (
    "name",
    "path",
    "state",
    "sweep",
    "arm",
    "phase",
    "study",
    "trial",
    "replicate",
    "imported",
    "optim",
    "model",
    "data",
    "seed",
    "tags",
    "note",
    "host",
    "commit",
    "dirty",
    "created",
    "started",
    "ended",
    "duration",
    "age",
    "attempts",
    "reason",
    "problem",
)
"""Fields that every run may have; asking for one that none has is no mistake."""

ALIASES = {"optimizer": "optim", "dataset": "data", "run": "name", "folder": "path", "tag": "tags"}


class FieldNames:
    """The fields of some runs, to be looked up by what a user wrote.

    Args:
        names: of all fields there are, beside `FACTS`.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.all = frozenset(names) | frozenset(FACTS)
        self._by_ending: dict[str, list[str]] = {}
        for name in self.all:
            for cut in re.finditer(r"[./]", name):
                self._by_ending.setdefault(name[cut.end() :], []).append(name)

    def resolve(self, word: str) -> str:
        """The field that is meant.

        Raises:
            QueryError: there is none, or several; says which would do.
        """
        if word in self.all:
            return word
        if word in ALIASES:
            return ALIASES[word]
        found = self._by_ending.get(word, [])
        shortest = min(map(_parts, found), default=0)
        found = sorted(name for name in found if _parts(name) == shortest)
        if len(found) == 1:
            return found[0]
        if found:
            raise QueryError(f"{word} could be {' or '.join(found)}: write one of them in full")
        raise QueryError(f"no run has a field {word!r}: {self._hint(word)}")

    def short(self, name: str) -> str:
        """The shortest name that `resolve` takes for this field: the heading of a column."""
        cuts = [cut.end() for cut in re.finditer(r"[.]", name)]
        for cut in reversed(cuts):
            ending = name[cut:]
            if ending not in self.all and ending not in ALIASES and self._by_ending.get(ending) == [name]:
                return ending
        return name

    def _hint(self, word: str) -> str:
        known = {name.casefold(): name for name in (*self._by_ending, *self.all, *ALIASES)}
        near = difflib.get_close_matches(word.casefold(), known, n=3, cutoff=0.6)
        if near:
            return f"did you mean {' or '.join(dict.fromkeys(known[name] for name in near))}?"
        return "`bbi runs ls --fields` lists them all"


def _parts(name: str) -> int:
    return len(re.findall(r"[./]", name))
