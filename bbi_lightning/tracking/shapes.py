"""The fields of many runs in little text: what runs of one kind have in common is kept once.

Runs with the same names of fields are of one shape. A shape is the fields of the first such run; of every
other only what differs from it is kept: of a sweep's runs less than a third, and so is the time to read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


class Shapes:
    """Shapes by their digest, which is that of their text.

    Args:
        texts: shapes as JSON; one that does not have the digest it goes by is damaged, and left out.

    Example:
        >>> shapes = Shapes()
        >>> packed = [shapes.pack({"state": "finished", "lr": lr}) for lr in (0.1, 0.2)]
        >>> packed[1][1]
        '{"lr": 0.2}'
        >>> list(shapes.unpack(packed))
        [{'state': 'finished', 'lr': 0.1}, {'state': 'finished', 'lr': 0.2}]
    """

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self._fields: dict[str, dict[str, Any]] = {}
        self._written: dict[str, dict[str, str]] = {}
        self._by_names: dict[tuple[str, ...], str] = {}
        self.new: dict[str, str] = {}
        for digest, text in (texts or {}).items():
            if _digest(text) == digest:
                self._learn(text)

    def __contains__(self, digest: str) -> bool:
        return digest in self._fields

    def pack(self, fields: Mapping[str, Any]) -> tuple[str, str]:
        """(digest of the shape, what differs from it as JSON). A shape met for the first time is in `new`."""
        names = tuple(fields)
        digest = self._by_names.get(names)
        if digest is None:
            text = _text(fields)
            digest = self._learn(text)
            self.new[digest] = text
        common = self._written[digest]
        # as written: 1, 1.0 and true are equal to Python
        own = {name: value for name, value in fields.items() if _text(value) != common.get(name)}
        return digest, _text(own)

    def unpack(self, packed: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """The fields again, in the order of `packed`."""
        pairs = list(packed)
        # one text and one call: the parser then shares the keys' strings among all runs
        owned = json.loads("[" + ",".join(own for _, own in pairs) + "]")
        for (digest, _), own in zip(pairs, owned, strict=True):
            yield {**self._fields[digest], **own}

    def _learn(self, text: str) -> str:
        digest = _digest(text)
        fields: dict[str, Any] = json.loads(text)
        self._fields[digest] = fields
        self._written[digest] = {name: _text(value) for name, value in fields.items()}
        self._by_names.setdefault(tuple(fields), digest)
        return digest


def _text(value: Any) -> str:
    """JSON that SQLite can hold: half of a surrogate pair, which a file's name may have, becomes "?"."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
