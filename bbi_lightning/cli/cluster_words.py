"""`cluster.KEY=VALUE`: what a job asks for, among the words of a command line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

_PREFIX = "cluster."


def taken_apart(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The words that are not about the cluster, and what those that are say.

    Raises:
        ClusterError: a word has no value, or one that is no YAML.
    """
    import yaml

    from bbi_lightning.cluster import ClusterError

    rest: list[str] = []
    asked: dict[str, Any] = {}
    for word in words:
        if not word.startswith(_PREFIX):
            rest.append(word)
            continue
        key, sign, text = word.removeprefix(_PREFIX).partition("=")
        # a time such as 4:00:00 is a number of base 60 to YAML
        try:
            value = text if ":" in text else yaml.safe_load(text)
        except yaml.YAMLError:
            value = None
        if not sign or not key or (value is None and text not in ("null", "~")):
            raise ClusterError(f"{word} says nothing: write it as cluster.gpus=1")
        asked[key] = value
    return rest, asked


def own_keys(asked: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Take these keys out of what was asked; the rest are `Resources`.

    Raises:
        ClusterError: a key is neither; it lists those that are known.
    """
    from bbi_lightning.cluster import Resources
    from bbi_lightning.cluster.errors import unknown

    known = Resources.keys()
    for key in asked:
        if key not in known and key not in keys:
            raise unknown("cluster:", key, [*known, *keys])
    return {key: asked.pop(key) for key in keys if key in asked}
