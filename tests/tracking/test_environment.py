import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bbi_lightning.tracking.environment import code_facts, hardware_facts, version_facts

ROOT = Path(__file__).parents[2]


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    package = tmp_path / "repo" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "repo" / "configs").mkdir()
    git(tmp_path / "repo", "init", "--quiet")
    git(tmp_path / "repo", "add", ".")
    git(tmp_path / "repo", "commit", "--quiet", "-m", "first")
    return tmp_path / "repo"


def test_clean_code_is_its_commit(repository):
    facts = code_facts(repository / "package")
    assert facts.commit == git(repository, "rev-parse", "HEAD")
    assert (facts.dirty, facts.diff_sha256) == (False, None)


def test_changed_and_new_code_is_dirty_and_equal_changes_have_equal_digests(repository):
    package = repository / "package"
    digests = []
    for text in ("a = 1\n", "a = 2\n", "a = 1\n"):
        (package / "__init__.py").write_text(text)
        digests.append(code_facts(package).diff_sha256)
    assert digests[0] == digests[2] != digests[1]

    (repository / "configs" / "new.yaml").write_text("lr: 1\n")
    with_config = code_facts(package)
    assert with_config.dirty
    assert with_config.diff_sha256 not in digests


def test_results_beside_the_code_do_not_make_it_dirty(repository):
    (repository / "notes.txt").write_text("seen\n")
    assert not code_facts(repository / "package").dirty


def test_another_repository_s_environment_variables_do_not_mislead(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert code_facts(repository / "package").commit == git(repository, "rev-parse", "HEAD")


def test_a_package_installed_inside_somebody_s_repository_has_no_commit(repository):
    (repository / ".gitignore").write_text(".venv\n")
    installed = repository / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert code_facts(installed).commit is None
    assert code_facts(repository.parent).commit is None


def test_versions_and_hardware_are_known_without_importing_torch():
    program = """
import json, sys
from bbi_lightning.tracking.run_folder import RunFolder
from bbi_lightning.tracking.environment import hardware_facts, version_facts
print(json.dumps([hardware_facts(), version_facts()]))
heavy = {"torch", "pytorch_lightning", "wandb", "numpy", "pydantic", "omegaconf"} & set(sys.modules)
print(json.dumps(sorted(heavy)))
"""
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (hardware, versions), heavy = map(json.loads, output.splitlines())
    assert heavy == []
    assert hardware["cpu"]
    assert 1 <= hardware["threads"] <= os.cpu_count()
    assert hardware["gpus"] == []
    assert set(versions) == {"python", "torch", "pytorch_lightning", "bbi_lightning"}
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (hardware_facts()["cpu"], version_facts()) == (hardware["cpu"], versions)
