"""Where the YAML files lie, and what there is to choose from. Light: `bbi --help` imports it."""

from __future__ import annotations

from pathlib import Path

import bbi_lightning


def config_folder() -> Path:
    """`configs/`: inside the package where a wheel put it, beside the package in a checkout.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    package = Path(bbi_lightning.__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"configs/train.yaml is neither in {package} nor beside it: install bbi_lightning again"
    )


def groups() -> dict[str, tuple[str, ...]]:
    """Every config group with its options, both sorted."""
    folder = config_folder()
    folders = sorted(path for path in folder.rglob("*") if path.is_dir())
    options = {
        p.relative_to(folder).as_posix(): tuple(sorted(f.stem for f in p.glob("*.yaml"))) for p in folders
    }
    return {group: names for group, names in options.items() if names}
