"""Dependencies point one way, and the optimizers need torch alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bbi_lightning"
MAY_IMPORT = {
    **{room: set() for room in ("optim", "baselines", "problems", "models", "data", "tracking", "cluster")},
    "studies": {"optim", "problems", "models"},
    "comparison": {"tracking"},
    "sweeps": {"cluster", "tracking"},
    "checkpoints": {"tracking"},
    "training": {"optim", "baselines", "problems", "models", "data", "tracking", "studies", "checkpoints"},
    "cli": {
        *("optim", "baselines", "problems", "models", "data", "tracking", "cluster"),
        *("studies", "sweeps", "checkpoints", "training", "comparison"),
    },
}


def imported_rooms(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write imports from bbi_lightning in full"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == "bbi_lightning" and len(p) > 1 and (PACKAGE / p[1]).is_dir()}


@pytest.mark.parametrize("room", sorted(path.name for path in PACKAGE.iterdir() if any(path.rglob("*.py"))))
def test_a_room_imports_only_the_rooms_below_it(room: str):
    allowed = MAY_IMPORT[room] | {room}
    wrong = {
        str(f.name): found for f in (PACKAGE / room).rglob("*.py") if (found := imported_rooms(f) - allowed)
    }
    assert not wrong, f"{room} may import {sorted(MAY_IMPORT[room])} only"


def modules_after(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split()) - sys.stdlib_module_names


def test_the_optimizers_load_torch_and_nothing_else():
    assert modules_after("import bbi_lightning.optim") - modules_after("import torch") == {"bbi_lightning"}
    assert modules_after("import bbi_lightning") <= modules_after("pass") | {"bbi_lightning"}
