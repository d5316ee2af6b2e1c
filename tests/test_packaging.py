"""The wheel is complete: installed alone in an empty environment, it trains."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLEAN_ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return next(out.glob("*.whl"))


def test_wheel_carries_package_configs_and_templates(wheel: Path) -> None:
    files = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"bbi_lightning/{p.relative_to(ROOT)}" for p in (ROOT / "configs").rglob("*.yaml")}
    package = ROOT / "bbi_lightning"
    sources = (p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    expected |= {str(p.relative_to(ROOT)) for p in sources}
    assert expected <= files, f"missing from the wheel: {sorted(expected - files)}"
    assert not [f for f in files if f.startswith(("tests/", "benchmarks/"))]


@pytest.mark.slow
def test_wheel_in_an_empty_environment_trains(wheel: Path, tmp_path: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        pytest.skip("uv is not installed: `make test` brings it")
    environment = tmp_path / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    python = environment / "bin" / "python"
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    install = [uv, "pip", "install", "--quiet", "--python", str(python), *constraint, str(wheel)]
    subprocess.run(install, check=True, timeout=240)

    overrides = ["model=mlp", "optim=bbi", "trainer.max_epochs=2", "tracking=none", "runtime.root=runs"]
    trained = subprocess.run(
        [environment / "bin" / "bbi", "train", *overrides],
        cwd=tmp_path,
        env=CLEAN_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert trained.returncode == 0, trained.stderr
    assert next((tmp_path / "runs").glob("*/run.json"))
