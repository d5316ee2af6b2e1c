"""What the doctor says of a cluster, from facts: every trap is found, and has its remedy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bbi_lightning.cluster import ClusterError, Site
from bbi_lightning.cluster.doctor import Facts, Finding, SweepNeeds, examine, gather
from bbi_lightning.cluster.doctor.facts import FolderFacts, folder_facts

FOLDER = FolderFacts("/shared/sweeps", 500 << 30, True, True, True, 2.0, 0.0, "nfs4")
NODE = {"met": True, "signalled": True, "python": "3.11.7", "package": "/env/bbi_lightning", "version": "1.0"}
GOOD = Facts(
    site=Site(defaults={"time": "4:00:00"}),
    config={
        "SLURM_VERSION": "22.05.8",
        "ClusterName": "hub",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "JobRequeue": "1",
        "AuthInfo": "cred_expire=30",
        "KillWait": "30 sec",
        "MaxArraySize": "1001",
        "TaskPlugin": "task/cgroup,task/affinity",
    },
    partition={
        "PartitionName": "low",
        "State": "UP",
        "PreemptMode": "REQUEUE",
        "GraceTime": "120",
        "MaxTime": "1-00:00:00",
        "DefaultTime": "NONE",
    },
    refusal=None,
    folder=FOLDER,
    nodes=[{"node": "n1", **NODE}, {"node": "n2", **NODE, "kept_out": True, "clock_s": 0.1}],
    python={key: str(value) for key, value in NODE.items() if isinstance(value, str)},
    gpus=["NVIDIA H100", "NVIDIA H100"],
    nccl=True,
    wandb_key=True,
)


def with_config(**values: str) -> Facts:
    return dataclasses.replace(GOOD, config={**(GOOD.config or {}), **values})


def with_partition(**values: str) -> Facts:
    return dataclasses.replace(GOOD, partition={**(GOOD.partition or {}), **values})


def with_folder(**values: Any) -> Facts:
    return dataclasses.replace(GOOD, folder=dataclasses.replace(FOLDER, **values))


def with_nodes(first: dict[str, Any], second: dict[str, Any]) -> Facts:
    assert GOOD.nodes is not None
    return dataclasses.replace(GOOD, nodes=[{**GOOD.nodes[0], **first}, {**GOOD.nodes[1], **second}])


def with_sweep(key: bool = True, **values: Any) -> Facts:
    needs = SweepNeeds("s", 10, 1e6, (), ("online",), False)
    return dataclasses.replace(GOOD, sweep=dataclasses.replace(needs, **values), wandb_key=key)


def with_site(**values: Any) -> Facts:
    return dataclasses.replace(GOOD, site=Site(**values))


def test_a_good_cluster_has_nothing_to_mend() -> None:
    assert {finding.level for finding in examine(GOOD)} == {"ok"}


@pytest.mark.parametrize(
    ("facts", "about", "level", "says"),
    [
        (
            with_partition(GraceTime="0"),
            "preemption",
            "warning",
            "requeued 0 s later at the latest: too soon",
        ),
        (with_partition(PreemptMode="CANCEL"), "preemption", "ok", "queues itself anew before"),
        (with_partition(PreemptMode="OFF"), "preemption", "ok", "not preempted"),
        (with_partition(State="DOWN"), "partition", "error", "it is DOWN"),
        (with_config(JobRequeue="0"), "requeueing", "warning", "JobRequeue=0"),
        (with_config(AuthInfo="(null)"), "requeueing", "note", "waits two minutes"),
        (with_site(requeue="never"), "requeueing", "warning", "lets no job go on"),
        (with_site(defaults={"time": "2-00:00:00"}), "time limit", "error", "above the partition's MaxTime"),
        (with_site(defaults={"time": "1:00"}), "time limit", "warning", "60 s leave little"),
        (with_site(), "time limit", "note", "have no limit"),
        (with_config(KillWait="5 sec"), "KillWait", "note", "may be cut off"),
        (with_config(MaxArraySize="11"), "arrays", "ok", "cut to fit"),
        (with_config(MaxArraySize="0"), "arrays", "warning", "switched off"),
        (with_config(TaskPlugin="task/none"), "memory", "note", "is not enforced"),
        (with_folder(locks=None), "shared folder", "note", "symbolic links are used"),
        (with_folder(locks=None, symlinks=False), "shared folder", "error", "neither locks nor"),
        (with_folder(renames=False), "shared folder", "error", "cannot be renamed"),
        (with_folder(fsync_ms=200.0), "shared folder", "warning", "200 ms"),
        (with_folder(clock_s=-90.0), "shared folder", "note", "-90 s off"),
        (with_folder(free=1 << 30), "disk", "warning", "1.0 GiB are free"),
        (with_nodes({"met": False}, {}), "nodes", "error", "does not appear on the other"),
        (with_nodes({}, {"kept_out": False}), "nodes", "error", "does not keep the other out"),
        (with_nodes({}, {"version": "0.9"}), "nodes", "error", "version differs"),
        (with_nodes({"signalled": False}, {}), "signals", "error", "does not reach Python"),
        (with_nodes({}, {"clock_s": -60.0}), "clocks", "note", "60 s off"),
        (with_sweep(bytes_a_run=1e12), "disk", "error", "are free"),
        (with_sweep(), "disk", "ok", "10 runs to come"),
        (with_sweep(data=("/nowhere",)), "data", "warning", "/nowhere is not there"),
        (with_sweep(key=False), "W&B", "error", "there is no key"),
        (dataclasses.replace(GOOD, nodes=None), "nodes", "note", "were not asked"),
        (dataclasses.replace(GOOD, nodes=None, nodes_refusal="busy"), "nodes", "warning", "busy"),
        (dataclasses.replace(GOOD, gpus=None), "GPUs", "error", "cannot be imported"),
        (dataclasses.replace(GOOD, gpus=[]), "GPUs", "note", "torch sees none"),
        (dataclasses.replace(GOOD, nccl=False), "GPUs", "warning", "no NCCL"),
        (dataclasses.replace(GOOD, wandb_key=False), "W&B", "note", "no key was found"),
        (dataclasses.replace(GOOD, config=None), "SLURM", "note", "belongs to no cluster"),
        (dataclasses.replace(GOOD, config=None, refusal="it sleeps"), "SLURM", "error", "it sleeps"),
    ],
)
def test_a_trap_is_found(facts: Facts, about: str, level: str, says: str) -> None:
    found = [finding for finding in examine(facts) if finding.about == about and says in finding.says]
    assert [finding.level for finding in found] == [level], examine(facts)
    if level in ("warning", "error") and about not in ("arrays",):
        assert found[0].remedy


def test_a_site_that_locks_by_links_is_content_with_them() -> None:
    facts = with_nodes({}, {"kept_out": False})
    facts = dataclasses.replace(facts, site=Site(lock="symlink", defaults={"time": "4:00:00"}))
    assert "error" not in {finding.level for finding in examine(facts)}


def test_this_machines_folder_is_tried_out_and_left_as_it_was(tmp_path: Path) -> None:
    facts = folder_facts(tmp_path)
    assert (facts.locks, facts.symlinks, facts.renames) == (True, True, True)
    assert facts.free > 0
    assert facts.fsync_ms > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_without_slurm_the_rest_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    findings = examine(gather(tmp_path, Site()))
    assert Finding("SLURM", "note", "this machine belongs to no cluster", findings[0].remedy) == findings[0]
    assert {finding.about for finding in findings} == {"SLURM", "shared folder", "GPUs", "W&B"}
    assert not any("0" * 40 in finding.says + finding.remedy for finding in findings)


def test_an_unknown_partition_lists_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command, text in (("sbatch", ""), ("scontrol", "PartitionName=low State=UP Default=YES")):
        script = tmp_path / command
        script.write_text(f"#!/bin/sh\necho '{text}'\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ClusterError, match="partition=hihg is unknown: this cluster has low"):
        gather(tmp_path / "sweeps", Site(), "hihg")
