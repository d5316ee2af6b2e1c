"""The judgements: pure functions from facts to findings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bbi_lightning.cluster.doctor.facts import Facts
from bbi_lightning.cluster.doctor.finding import Finding
from bbi_lightning.cluster.durations import seconds_of

_SAVE = 30.0  # seconds that a worker's trials need to save and leave, at the least
_SLOW_FSYNC = 50.0  # milliseconds
_SKEW = 5.0  # seconds
_LITTLE = 10 << 30  # bytes


def examine(facts: Facts) -> list[Finding]:
    """Everything there is to say, in the order of a job's life."""
    return [finding for check in _CHECKS for finding in check(facts)]


def _slurm(facts: Facts) -> Iterator[Finding]:
    if facts.refusal is not None:
        yield Finding(
            "SLURM", "error", facts.refusal, "ask whoever runs the cluster; bbi sweep run works here"
        )
    elif facts.config is None:
        yield Finding(
            "SLURM",
            "note",
            "this machine belongs to no cluster",
            "bbi sweep run works here; submit from a login node",
        )
    else:
        version = facts.config.get("SLURM_VERSION", "?")
        where = f", partition {facts.partition['PartitionName']}" if facts.partition else ""
        yield Finding("SLURM", "ok", f"version {version}, cluster {facts.config.get('ClusterName')}{where}")
        if facts.partition is None:
            yield Finding(
                "partition", "warning", "this cluster has no default partition", "say cluster.partition=NAME"
            )
        elif facts.partition.get("State") != "UP":
            state = facts.partition.get("State")
            yield Finding("partition", "error", f"it is {state}: jobs wait until it is up", "choose another")


def _preemption(facts: Facts) -> Iterator[Finding]:
    if facts.config is None:
        return
    mode = (facts.partition or {}).get("PreemptMode") or facts.config.get("PreemptMode", "OFF")
    if facts.config.get("PreemptType", "preempt/none") == "preempt/none" or mode == "OFF":
        yield Finding("preemption", "ok", "jobs of this partition are not preempted")
        return
    grace = float((facts.partition or {}).get("GraceTime", 0) or 0)
    if mode == "CANCEL":
        says = (
            f"a preempted job gets SIGTERM, is cancelled {grace:.0f} s later, and queues itself anew before"
        )
    elif mode == "REQUEUE":
        says = f"a preempted job gets SIGTERM and is requeued {grace:.0f} s later at the latest"
    else:
        says = f"a preempted job is treated by {mode}"
    if grace < _SAVE:
        yield Finding(
            "preemption",
            "warning",
            f"{says}: too soon for a save, what was done since the last checkpoint is done again",
            "checkpoint.every=20 keeps that little",
        )
    else:
        yield Finding("preemption", "ok", says)


def _requeueing(facts: Facts) -> Iterator[Finding]:
    if facts.config is None:
        return
    allowed = facts.config.get("JobRequeue", "1") == "1"
    if facts.site.requeue == "requeue" and not allowed:
        yield Finding(
            "requeueing",
            "warning",
            "JobRequeue=0: jobs are not requeued unless they ask, and some clusters refuse even then",
            "requeue: resubmit in the site's profile",
        )
    elif facts.site.requeue == "never":
        yield Finding("requeueing", "warning", "the site's profile lets no job go on", "requeue: requeue")
    else:
        yield Finding("requeueing", "ok", f"interrupted jobs go on: {facts.site.requeue}")
    wait = facts.config.get("AuthInfo", "")
    if "cred_expire" not in wait:
        yield Finding(
            "requeueing", "note", "a requeued job waits two minutes for its old credential to expire"
        )


def _time(facts: Facts) -> Iterator[Finding]:
    if facts.config is None:
        return
    longest = seconds_of((facts.partition or {}).get("MaxTime", ""))
    asked = facts.site.defaults.get("time")
    limit = seconds_of(str(asked)) if asked else seconds_of((facts.partition or {}).get("DefaultTime", ""))
    if longest is not None and limit is not None and limit > longest:
        yield Finding(
            "time limit", "error", f"time={asked} is above the partition's MaxTime", "ask for less time"
        )
    elif limit is None:
        yield Finding(
            "time limit", "note", "jobs without cluster.time have no limit, and wait longer for a gap"
        )
    elif limit < 4 * _SAVE:
        yield Finding(
            "time limit", "warning", f"{limit:.0f} s leave little between start and save", "ask for more time"
        )
    else:
        yield Finding(
            "time limit", "ok", f"{limit:.0f} s; workers save {min(45.0, limit / 4):.0f} s before its end"
        )
    wait = facts.config.get("KillWait", "").split()[0:1]
    if wait and wait[0].isdigit() and int(wait[0]) < 10:
        yield Finding(
            "KillWait", "note", f"{wait[0]} s from SIGTERM to SIGKILL at scancel: a save may be cut off"
        )


def _arrays(facts: Facts) -> Iterator[Finding]:
    if facts.config is None:
        return
    size = facts.config.get("MaxArraySize", "")
    if size.isdigit() and int(size) > 1:
        fits = facts.site.max_jobs < int(size)
        says = f"{facts.site.max_jobs} jobs at a time, arrays of up to {int(size) - 1}"
        yield Finding("arrays", "ok", says if fits else f"{says}: they are cut to fit")
    else:
        yield Finding("arrays", "warning", "job arrays are switched off: jobs are queued one by one")


def _memory(facts: Facts) -> Iterator[Finding]:
    if facts.config is None:
        return
    enforced = "cgroup" in facts.config.get("TaskPlugin", "")
    if not enforced:
        yield Finding(
            "memory",
            "note",
            "a job's memory is not enforced (no task/cgroup): a greedy trial can take its neighbours along",
            "cluster.trial_memory=4G ends a trial that holds more",
        )
    else:
        yield Finding(
            "memory", "ok", "SLURM ends what uses more than it asked for; trials go before their worker"
        )


def _folder(facts: Facts) -> Iterator[Finding]:
    folder = facts.folder
    about = "shared folder"
    if folder.locks is None and facts.site.lock == "flock":
        yield Finding(about, "error", f"{folder.path} has no locks", "lock: symlink in the site's profile")
    elif folder.locks is not True and facts.site.lock == "auto":
        yield Finding(about, "note", f"{folder.path} has no locks that exclude: symbolic links are used")
    if not folder.symlinks and folder.locks is not True:
        yield Finding(
            about, "error", f"{folder.path} has neither locks nor symbolic links", "use another folder"
        )
    if not folder.renames:
        yield Finding(about, "error", f"folders in {folder.path} cannot be renamed", "use another folder")
    if folder.fsync_ms > _SLOW_FSYNC:
        says = f"an append with fsync takes {folder.fsync_ms:.0f} ms, and a trial makes about three"
        yield Finding(about, "warning", says, "let trials be longer, or use a faster disk")
    if abs(folder.clock_s) > _SKEW:
        says = f"its clock is {folder.clock_s:+.0f} s off this machine's; only ages told by itself are used"
        yield Finding(about, "note", says)
    if folder.free < _LITTLE:
        says = f"{folder.free / 2**30:.1f} GiB are free in {folder.path}"
        yield Finding("disk", "warning", says, "bbi sweep plan says what a sweep needs")
    kind = f" ({folder.kind})" if folder.kind else ""
    yield Finding(
        about,
        "ok",
        f"{folder.path}{kind}: {folder.free / 2**30:,.0f} GiB free, fsync {folder.fsync_ms:.1f} ms",
    )


def _nodes(facts: Facts) -> Iterator[Finding]:
    if facts.config is None:
        return
    if facts.nodes_refusal is not None:
        yield Finding(
            "nodes", "warning", f"they could not be asked: {facts.nodes_refusal}", "try again later"
        )
        return
    if facts.nodes is None:
        yield Finding(
            "nodes", "note", "they were not asked", "bbi doctor --on-nodes starts a probe on two of them"
        )
        return
    yield from _judged(facts, list(facts.nodes))


def _judged(facts: Facts, nodes: list[Any]) -> Iterator[Finding]:
    names = ", ".join(sorted(str(node["node"]) for node in nodes))
    if len(nodes) < 2 or not all(node["met"] for node in nodes):
        says = f"{names}: a file made on one does not appear on the other"
        yield Finding("nodes", "error", says, "use a folder that all nodes share: --dir")
        return
    for key in ("python", "package", "version"):
        values = {str(node[key]) for node in nodes} | {facts.python[key]}
        if len(values) > 1:
            says = f"{key} differs between here and {names}: {', '.join(sorted(values))}"
            yield Finding(
                "nodes", "error" if key != "package" else "warning", says, "activate one environment: setup"
            )
    if not all(node.get("signalled", True) for node in nodes):
        says = f"a signal to a job step does not reach Python on {names}: trials cannot save before they end"
        yield Finding("signals", "error", says, "no wrapper between srun and python, none that keeps signals")
    else:
        yield Finding("signals", "ok", "a signal to a job step reaches Python on the nodes")
    skew = max(abs(float(node.get("clock_s", 0.0))) for node in nodes)
    if skew > _SKEW:
        yield Finding(
            "clocks", "note", f"a node's clock is {skew:.0f} s off the folder's; ages are told by the latter"
        )
    if any(node.get("kept_out") for node in nodes):
        yield Finding("nodes", "ok", f"{names}: same code, same folder, and locks reach across")
        return
    says = f"a lock held on one of {names} does not keep the other out"
    if facts.site.lock == "symlink":
        yield Finding("nodes", "ok", f"{says}; the site uses symbolic links")
    else:
        yield Finding("nodes", "error", says, "lock: symlink in the site's profile")


def _devices(facts: Facts) -> Iterator[Finding]:
    wanted = int(facts.site.defaults.get("gpus", 0) or 0)
    if facts.gpus is None:
        yield Finding("GPUs", "error", "torch cannot be imported here", "install bbi_lightning again")
    elif facts.gpus:
        yield Finding("GPUs", "ok", f"{len(facts.gpus)} here: {', '.join(sorted(set(facts.gpus)))}")
        if not facts.nccl:
            says = "torch has no NCCL: several GPUs talk through gloo, slowly"
            yield Finding("GPUs", "warning", says, "install a CUDA build of torch")
    else:
        place = "on this machine (a login node, perhaps)" if facts.config is not None else "on this machine"
        note = "; the site's jobs ask for them" if wanted else ""
        yield Finding("GPUs", "note", f"torch sees none {place}{note}")


def _wandb(facts: Facts) -> Iterator[Finding]:
    if facts.wandb_key:
        yield Finding("W&B", "ok", "a key was found: tracking=online works where nodes reach the internet")
    else:
        says = "no key was found: tracking=offline needs none"
        yield Finding("W&B", "note", says, "bbi sweep sync uploads later, from where there is a key")


def _sweep(facts: Facts) -> Iterator[Finding]:
    sweep = facts.sweep
    if sweep is None:
        return
    if sweep.bytes_a_run is not None:
        needed = sweep.left * sweep.bytes_a_run
        says = f"{sweep.left} runs to come, about {needed / 2**30:.1f} GiB"
        if needed > facts.folder.free:
            yield Finding(
                "disk", "error", f"{says}, and {facts.folder.free / 2**30:.1f} GiB are free", "make room"
            )
        else:
            yield Finding("disk", "ok", says)
    for place in sweep.data:
        if not Path(place).is_dir():
            says = f"the data folder {place} is not there: the first run must fetch or make it"
            yield Finding("data", "warning", says, "run one training where there is internet")
        else:
            yield Finding("data", "ok", place)
    if "online" in sweep.tracking and not facts.wandb_key:
        yield Finding(
            "W&B", "error", "its runs want tracking=online, and there is no key", "tracking=offline"
        )
    if sweep.gpus and facts.gpus == [] and facts.config is None:
        yield Finding(
            "GPUs", "error", "its runs insist on a GPU, and there is none", "runtime.accelerator=cpu"
        )


_CHECKS = (
    *(_slurm, _preemption, _requeueing, _time, _arrays, _memory),
    *(_folder, _nodes, _devices, _wandb, _sweep),
)
