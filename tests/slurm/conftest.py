"""One cluster for all tests of this folder, and what every test of a sweep on it begins and ends with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.cluster import Cluster, cluster, missing
from slurm.sweeps import Sweeps


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("slurm"))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real SLURM of two nodes."""
    lacking = missing()
    if lacking and os.environ.get("BBI_REQUIRE_SLURM"):
        pytest.fail(f"the tests of SLURM must run here, but {lacking}")
    if lacking:
        pytest.skip(lacking)
    with cluster(tmp_path_factory.mktemp("slurm") / "cluster") as up:
        yield up


@pytest.fixture
def sweeps(slurm: Cluster, tmp_path: Path) -> Iterator[Sweeps]:
    """Sweeps in a folder of their own; afterwards the queue must be empty, or is emptied."""
    yield Sweeps(slurm, tmp_path)
    slurm.clear()
