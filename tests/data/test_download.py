"""Many processes ask for a data set at once: one fetches it, and no half file is ever seen."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from torchvision import datasets

from bbi_lightning.data.download import fetch

FILES = {f"MNIST/raw/{number}": bytes([number]) * 1000 for number in range(4)}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands in for torchvision: writes its files slowly and in pieces; tells where it was asked to."""
    asked: list[Path] = []

    def init(self: datasets.MNIST, root: Path, train: bool, download: bool) -> None:
        if download:
            asked.append(Path(root))
            for name, content in FILES.items():
                path = Path(root) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content[:500])
                time.sleep(0.02)
                path.write_bytes(content)
        if any((Path(root) / name).stat().st_size != len(content) for name, content in FILES.items()):
            raise RuntimeError("Dataset not found or corrupted.")

    monkeypatch.setattr(datasets.MNIST, "__init__", init)
    return asked


def visible(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_of_many_who_ask_at_once_one_fetches(tmp_path: Path, server: list[Path]) -> None:
    folder = tmp_path / "new" / "datasets"
    found: list[dict[str, bytes]] = []

    def ask() -> None:
        fetch("MNIST", folder)
        found.append({name: (folder / name).read_bytes() for name in FILES})

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server) == 1
    assert found == [FILES] * 6
    assert set(visible(folder)) == {*FILES, ".MNIST.lock"}


def test_no_half_file_is_ever_seen(tmp_path: Path, server: list[Path]) -> None:
    thread = threading.Thread(target=fetch, args=("MNIST", tmp_path))
    thread.start()
    seen = set()
    while thread.is_alive():
        for name in FILES:
            path = tmp_path / name
            if path.exists():
                seen.add(len(path.read_bytes()))
    thread.join()
    assert seen <= {1000}
    assert visible(tmp_path).keys() >= FILES.keys()


def test_what_a_killed_process_left_behind_is_removed_and_not_used(
    tmp_path: Path, server: list[Path]
) -> None:
    half = tmp_path / ".MNIST.unfinished-abc" / "MNIST" / "raw" / "0"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    fetch("MNIST", tmp_path)
    assert set(visible(tmp_path)) == {*FILES, ".MNIST.lock"}
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES


def test_a_damaged_file_is_fetched_again(tmp_path: Path, server: list[Path]) -> None:
    fetch("MNIST", tmp_path)
    fetch("MNIST", tmp_path)
    assert len(server) == 1
    (tmp_path / "MNIST/raw/2").write_bytes(b"")
    fetch("MNIST", tmp_path)
    assert len(server) == 2
    assert (tmp_path / "MNIST/raw/2").read_bytes() == FILES["MNIST/raw/2"]


def test_a_download_that_fails_leaves_what_was_there(
    tmp_path: Path, server: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "0").write_bytes(b"mine")
    monkeypatch.setitem(FILES, "MNIST/raw/" + "x" * 300, b"")  # no file system takes this name
    with pytest.raises(FileNotFoundError, match=r"data\.download=true could not fetch MNIST into .*too long"):
        fetch("MNIST", tmp_path)
    assert {name for name in visible(tmp_path) if not name.endswith(".lock")} == {"MNIST/raw/0"}
    assert (tmp_path / "MNIST/raw/0").read_bytes() == b"mine"


def test_another_process_is_waited_for_until_it_is_killed(tmp_path: Path, server: list[Path]) -> None:
    program = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / ".MNIST.lock")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == "held\n"
    thread = threading.Thread(target=fetch, args=("MNIST", tmp_path))
    thread.start()
    time.sleep(0.3)
    assert server == []
    holder.kill()
    holder.wait()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert len(server) == 1
