"""The trash: it gives back what it took, and takes nothing else."""

import dataclasses

import pytest

from bbi_lightning.tracking.registry import RegistryError, read_runs
from bbi_lightning.tracking.run_folder import RunBusyError, RunFolder
from bbi_lightning.tracking.trash import delete, restore, throw_away, trashed_runs
from tests.tracking.made_runs import make


@pytest.fixture
def root(tmp_path):
    """A run by hand and one of a sweep."""
    make(tmp_path / "runs" / "digits-sgd-aa-s0")
    make(tmp_path / "sweeps/show/runs/digits-adamw-bb-s1")
    return tmp_path


def test_the_trash_gives_back_what_it_took(root):
    folder = root / "sweeps/show/runs/digits-adamw-bb-s1"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    throw_away(folder, root)
    assert len(read_runs([root]).runs) == 1
    (thrown,) = trashed_runs(root)
    assert (thrown.name, thrown.was) == (folder.name, "sweeps/show/runs/digits-adamw-bb-s1")
    assert restore(thrown) == folder
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert list(trashed_runs(root)) == []


def test_the_trash_overwrites_nothing(root):
    folder = root / "runs" / "digits-sgd-aa-s0"
    throw_away(folder, root)
    make(folder, accuracy=0.1)
    throw_away(folder, root)
    make(folder, accuracy=0.2)
    assert len(list(trashed_runs(root))) == 2
    with pytest.raises(RegistryError, match=r"exists: move that one away"):
        restore(next(trashed_runs(root)))
    for thrown in trashed_runs(root):
        delete(thrown)
    assert RunFolder(folder).record.summary["test/acc"] == 0.2


def test_the_trash_takes_no_living_run_and_puts_nothing_outside_its_root(root):
    alive = RunFolder.create(root / "runs" / "alive-s0", config="seed: 0\n")
    alive.begin_attempt()
    with pytest.raises(RunBusyError, match="being trained"):
        throw_away(alive.path, root)
    alive.release()
    with pytest.raises(RegistryError, match="is not below"):
        throw_away(root / "runs" / "digits-sgd-aa-s0", root / "sweeps")
    thrown = throw_away(alive.path, root)
    with pytest.raises(RegistryError, match="outside"):
        restore(dataclasses.replace(thrown, was="../outside"))
