"""The code of a sweep: copied once and whole, and run by whoever works on the sweep."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy_task
import yaml

from bbi_lightning.sweeps import snapshot, source_trees
from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.snapshot import Code, take
from bbi_lightning.tracking.environment import code_facts
from bbi_lightning.tracking.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bbi_lightning"
SAY = "import bbi_lightning; print(bbi_lightning.__version__)"
PATIENCE = 60.0  # seconds


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments], env=environment, capture_output=True, check=True
    )


def repository(folder, **files):
    """A git work tree with these files committed."""
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    folder.mkdir(exist_ok=True)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "first")
    return folder


def run_python(code, *, path=None, environment=None, cwd="/"):
    """What a fresh Python prints."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    variables |= {"PYTHONPATH": os.pathsep.join(map(str, path))} if path else {}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=variables | (environment or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def only_tree(folder, without=Path("/nowhere")):
    trees, _ = source_trees.trees_in_use(without, [str(folder)])
    return next(tree for tree in trees if tree.root == folder)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout of this project that may be edited."""
    folder = tmp_path_factory.mktemp("checkout") / "project"
    for name in ("bbi_lightning", "configs", "slurm"):
        files = tuple(
            p.relative_to(ROOT).as_posix()
            for p in (ROOT / name).rglob("*")
            if p.is_file() and "__pycache__" not in p.parts
        )
        source_trees.copy(source_trees.Tree(ROOT, files, (".",)), folder)
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    return repository(folder, __gitignore="__pycache__/\n")


def edit_version(checkout, version):
    (checkout / "bbi_lightning" / "__init__.py").write_text(f'__version__ = "{version}"\n')


def take_from(checkout, code, *, path=()):
    text = (
        "from pathlib import Path; from bbi_lightning.sweeps.snapshot import take; "
        f"print(take(Path({str(code)!r})).commit)"
    )
    return run_python(text, path=[checkout, *path])


def test_editing_the_checkout_changes_no_process_that_runs_from_the_snapshot(checkout, tmp_path):
    edit_version(checkout, "1.0")
    take_from(checkout, tmp_path / "code")
    edit_version(checkout, "2.0")
    assert run_python(SAY, path=[checkout]) == "2.0"
    environment = snapshot.Code.read(tmp_path / "code").environment
    assert run_python(SAY, environment=environment, cwd=tmp_path) == "1.0"
    if sys.version_info >= (3, 11):  # before, Python always looks into the working folder first
        assert run_python(SAY, environment=environment, cwd=checkout) == "1.0"


def test_a_sweep_goes_on_with_the_code_it_was_queued_with(checkout, tmp_path):
    text = (ROOT / "tests" / "sweeps" / "toy_task.py").read_text()
    assert text.count("round(math.exp(-loss), 2)") == 1
    before, after = (text.replace("round(math.exp(-loss), 2)", value) for value in ("0.125", "0.875"))
    own = repository(tmp_path / "own", **{"mine.py": before})
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(toy_task.description(task="mine:TASK")))
    edit_version(checkout, "1.0")
    take_from(checkout, tmp_path / "toy" / "code", path=[own])
    code = Code.read(tmp_path / "toy" / "code")

    (own / "mine.py").write_text(after)
    edit_version(checkout, "2.0")
    words = ["sweep", "run", f"sweep={tmp_path / 'toy.yaml'}", "--dir", str(tmp_path)]
    run = f"import sys; sys.argv[1:] = {words}; from bbi_lightning.cli import main; main()"
    output = run_python(run, path=[checkout, own])
    assert "It goes on with a snapshot of" in output
    assert "The checkout has changed since (.trees/own/mine.py and 1 more): --live runs it" in output

    records = [RunFolder(file.parent).record for file in (tmp_path / "toy" / "runs").glob("*/run.json")]
    assert len(records) == 12
    assert {record.summary["val/acc"] for record in records} == {0.125}
    assert {record.attempts[-1].diff_sha256 for record in records} == {code.diff_sha256}
    assert code.diff_sha256 is not None


def test_the_children_of_a_fork_server_run_from_the_snapshot_too(checkout, tmp_path):
    edit_version(checkout, "1.0")
    take_from(checkout, tmp_path / "code")
    edit_version(checkout, "2.0")
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing\n"
        "def say(line):\n"
        "    import bbi_lightning\n"
        "    line.send(bbi_lightning.__version__)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('forkserver')\n"
        "    context.set_forkserver_preload(['bbi_lightning.sweeps.snapshot'])\n"
        "    ours, theirs = context.Pipe()\n"
        "    context.Process(target=say, args=(theirs,)).start()\n"
        "    print(ours.recv())\n"
    )
    environment = os.environ | snapshot.Code.read(tmp_path / "code").environment
    result = subprocess.run(
        [sys.executable, program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "1.0"


def test_a_process_goes_on_in_the_snapshot_by_itself_and_only_once(checkout, tmp_path):
    edit_version(checkout, "1.0")
    take_from(checkout, tmp_path / "code")
    edit_version(checkout, "2.0")
    enter = (
        "from pathlib import Path; from bbi_lightning.sweeps.snapshot import Code, enter; "
        f"enter(Code.read(Path({str(tmp_path / 'code')!r})), ['--version']); print('here')"
    )
    assert run_python(enter, path=[checkout]) == "bbi_lightning 1.0"
    inside = snapshot.Code.read(tmp_path / "code").environment
    assert run_python(enter, environment=inside, cwd=tmp_path) == "here"


def test_a_snapshot_that_cannot_be_imported_from_is_said_and_not_tried_for_ever(tmp_path, monkeypatch):
    code = take(tmp_path / "code")
    monkeypatch.setenv("BBI_SNAPSHOT", str(code.folder))
    with pytest.raises(SweepError, match=r"is imported instead of .*use --live"):
        snapshot.enter(code)


def test_runs_in_a_snapshot_carry_the_commit_and_the_changes_of_the_checkout(checkout, tmp_path):
    edit_version(checkout, "changed")
    facts = "import dataclasses, json; from bbi_lightning.tracking.environment import code_facts; "
    facts += "print(json.dumps(dataclasses.asdict(code_facts())))"
    before = json.loads(run_python(facts, path=[checkout]))
    take_from(checkout, tmp_path / "code")
    edit_version(checkout, "and again")
    environment = snapshot.Code.read(tmp_path / "code").environment
    inside = json.loads(run_python(facts, environment=environment, cwd=tmp_path))
    assert inside == before
    assert inside["dirty"]
    assert inside["diff_sha256"]


def test_the_users_own_modules_are_part_of_the_snapshot(checkout, tmp_path):
    own = repository(tmp_path / "own", **{"src/mine.py": "answer = 41\n"})
    (own / "src" / "mine.py").write_text("answer = 42\n")
    take_from(checkout, tmp_path / "code", path=[own / "src"])
    (own / "src" / "mine.py").write_text("answer = 43\n")
    environment = snapshot.Code.read(tmp_path / "code").environment
    assert run_python("import mine; print(mine.answer)", environment=environment, cwd=tmp_path) == "42"


def test_a_folder_on_the_path_that_is_under_no_git_stays_where_it_is(checkout, tmp_path):
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "mine.py").write_text("answer = 1\n")
    take_from(checkout, tmp_path / "code", path=[tmp_path / "loose"])
    (tmp_path / "loose" / "mine.py").write_text("answer = 2\n")
    environment = snapshot.Code.read(tmp_path / "code").environment
    assert run_python("import mine; print(mine.answer)", environment=environment, cwd=tmp_path) == "2"


def test_what_has_changed_in_the_checkout_since_is_known(checkout, tmp_path):
    edit_version(checkout, "1.0")
    take_from(checkout, tmp_path / "code")
    code = Code.read(tmp_path / "code")
    assert code.changed_since() == []
    edit_version(checkout, "2.0")
    assert code.changed_since() == ["bbi_lightning/__init__.py"]


def test_a_tree_is_what_git_tracks_or_would_track_as_it_is_at_the_moment(tmp_path):
    tree = repository(tmp_path / "r", **{"a.py": "1", "b.py": "1", "c.py": "1", "__gitignore": "*.log\n"})
    (tree / "a.py").write_text("2")
    (tree / "b.py").unlink()
    (tree / "new.py").write_text("3")
    (tree / "x.log").write_text("ignored")
    source_trees.copy(only_tree(tree), tmp_path / "copy")
    copied = {p.name: p.read_text() for p in (tmp_path / "copy").iterdir()}
    assert copied == {"a.py": "2", "c.py": "1", "new.py": "3", ".gitignore": "*.log\n"}
    assert not os.access(tmp_path / "copy" / "a.py", os.W_OK) or os.geteuid() == 0
    assert (tmp_path / "copy" / "a.py").stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("mark", ["journal.log", "run.json", "pyvenv.cfg"])
def test_sweeps_runs_and_environments_are_no_code_even_where_git_does_not_ignore_them(tmp_path, mark):
    tree = repository(tmp_path / "r", **{"a.py": "1"})
    (tree / "left" / "deep").mkdir(parents=True)
    (tree / "left" / mark).write_text("")
    (tree / "left" / "deep" / "large.bin").write_text("")
    assert only_tree(tree).files == ("a.py",)


def test_the_sweeps_own_folder_is_no_code(tmp_path):
    tree = repository(tmp_path / "r", **{"a.py": "1"})
    (tree / "mine").mkdir()
    (tree / "mine" / "sweep.yaml").write_text("")
    assert only_tree(tree, without=tree / "mine").files == ("a.py",)
    assert "mine/sweep.yaml" in only_tree(tree).files


def test_large_files_become_links_and_links_out_of_the_tree_lead_to_the_same_place(tmp_path, monkeypatch):
    monkeypatch.setattr(source_trees, "LARGEST_FILE", 10)
    tree = repository(tmp_path / "r", **{"a.py": "1", "data.bin": "x" * 11})
    (tmp_path / "outside.txt").write_text("outside")
    (tree / "out").symlink_to("../outside.txt")
    (tree / "in").symlink_to("a.py")
    copied = source_trees.copy(only_tree(tree), tmp_path / "deep" / "copy")
    assert copied.linked == ["data.bin"]
    assert (copied.files, copied.bytes) == (1, 1)
    copy = tmp_path / "deep" / "copy"
    assert (copy / "data.bin").resolve() == tree / "data.bin"
    assert (copy / "out").read_text() == "outside"
    assert (copy / "in").resolve() == copy / "a.py"


def test_a_tree_that_is_too_large_is_refused_with_the_folder_that_makes_it_so(tmp_path, monkeypatch):
    monkeypatch.setattr(source_trees, "LARGEST_TREE", 10)
    tree = repository(tmp_path / "r", **{"a.py": "1", "results/b.txt": "x" * 11})
    with pytest.raises(SweepError, match=r"\.gitignore \(results, say\), or use --live"):
        source_trees.copy(only_tree(tree), tmp_path / "copy")


def test_an_installed_package_is_copied_with_what_belongs_to_it(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages" / "bbi_lightning"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    (tmp_path / "site-packages" / "other.py").write_text("")
    (tmp_path / "site-packages" / "configs").mkdir()
    (tmp_path / "site-packages" / "configs" / "train.yaml").write_text("")
    monkeypatch.setattr(source_trees.bbi_lightning, "__file__", str(installed / "__init__.py"))
    trees, loose = source_trees.trees_in_use(tmp_path / "sweep", [str(tmp_path / "site-packages")])
    assert [tree.files for tree in trees] == [("bbi_lightning/__init__.py", "configs/train.yaml")]
    assert loose == []


def test_a_second_snapshot_is_the_first_one(tmp_path):
    first = take(tmp_path / "code")
    (tmp_path / "code" / "mark").touch()
    assert take(tmp_path / "code") == first
    assert (tmp_path / "code" / "mark").exists()


def test_of_several_that_take_it_at_once_all_have_the_same_one(checkout, tmp_path):
    text = (
        "from pathlib import Path; from bbi_lightning.sweeps.snapshot import take; "
        f"take(Path({str(tmp_path / 'code')!r}))"
    )
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    crowd = [subprocess.Popen([sys.executable, "-c", text], env=environment, cwd="/") for _ in range(4)]
    assert [process.wait(PATIENCE) for process in crowd] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["code"]
    assert Code.read(tmp_path / "code").changed_since() == []


def test_a_snapshot_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot, "copy", full)
    with pytest.raises(OSError, match="No space left"):
        take(tmp_path / "code")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_snapshot_is_said_in_a_sentence(tmp_path):
    take(tmp_path / "code")
    (tmp_path / "code" / "code.json").write_text("{")
    with pytest.raises(SweepError, match=r"not a whole snapshot .* restore it from a copy"):
        take(tmp_path / "code")


def test_live_takes_nothing_and_uses_the_checkout(tmp_path):
    code = take(tmp_path / "code", live=True)
    assert code.live
    assert code.environment == snapshot.Code.read(tmp_path / "code").environment == {}
    assert (code.commit, code.diff_sha256) == (code_facts().commit, code_facts().diff_sha256)
    assert not (tmp_path / "code").exists()
    assert "the checkout as it is" in code.sentence()
