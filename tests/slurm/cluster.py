"""A real SLURM of two nodes on this machine: munge, slurmctld and two slurmd of its own, in one folder.

Nothing outside the folder is used: sockets, ports, keys and states are its own, so that several clusters can
run side by side. To play with one (it ends with Ctrl-C, or after an hour):

    python tests/slurm/cluster.py /tmp/cluster        # prints what to export
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
REMEDY = "apt-get install slurm-wlm munge"
NODES = ("n1", "n2")
CORES = 4  # of each node, as SLURM believes
LONGEST = 3600.0  # seconds that a cluster lives

_CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
SlurmdTimeout=5
MinJobAge=3600
MaxArraySize=11
PropagateResourceLimits=NONE
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{n1}-{n2}] CPUs={cores} RealMemory=8000
PartitionName=low Nodes=n[1-2] Default=YES PriorityTier=1 GraceTime=30 PreemptMode=REQUEUE
PartitionName=cancelling Nodes=n[1-2] PriorityTier=1 GraceTime=30 PreemptMode=CANCEL
PartitionName=high Nodes=n[1-2] PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """What this machine lacks for a cluster, in a sentence; None: nothing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if absent:
        return f"there is no {', '.join(absent)} here: {REMEDY}"
    return None if os.getuid() == 0 else "SLURM's daemons are started by root alone"


class Cluster:
    """Two nodes, n1 and n2, of four cores each; partitions low, cancelling (both preemptable) and high."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.conf = self.folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._reaper: subprocess.Popen[bytes] | None = None
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SLURM", "SBATCH", "SQUEUE", "PYTEST"))
        }
        self.environment |= {
            "SLURM_CONF": str(self.conf),
            "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
            "MASTER_ADDR": "127.0.0.1",  # both nodes are this machine
        }

    def start(self) -> None:
        """Bring it up; returns when both nodes take jobs."""
        munge = self.folder / "munge"
        munge.mkdir(parents=True, mode=0o711)
        (self.folder / "state").mkdir()
        key = munge / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        first = _free_ports(3)
        host = socket.gethostname().partition(".")[0]
        ports = {"controller": first, "n1": first + 1, "n2": first + 2}
        text = _CONFIGURATION.format(folder=self.folder, host=host, cores=CORES, **ports)
        self.conf.write_text(text.lstrip())
        self._watch()
        options = [f"--{name}-file={munge / name}" for name in ("key", "pid", "seed", "log")]
        self._run("munged", "munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *options)
        self.wait_for(lambda: (munge / "socket").exists(), "munge's socket")
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_for(lambda: set(self.states().values()) == {"idle"}, "two idle nodes")

    def start_controller(self) -> None:
        """Start slurmctld, with the state it had."""
        self._run("slurmctld", "slurmctld", "-D")

    def restart_controller(self) -> None:
        """As an administrator would."""
        process = self._daemons.pop("slurmctld")
        process.terminate()
        process.wait(30)
        self.start_controller()

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        self._run(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """SIGKILL to a node's slurmd and to every job's processes there: a node that fails."""
        process = self._daemons.pop(node)
        victims = self._of_jobs(node)
        for pid in (process.pid, *victims):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def states(self) -> dict[str, str]:
        """The nodes and what SLURM says of them."""
        lines = self.ask("sinfo", "--noheader", "--Node", "--partition=low", "--format=%N %T").split("\n")
        return dict(line.split() for line in lines if line)

    def ask(self, *command: str, check: bool = True) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def preempt(self) -> None:
        """Let a job of the high partition take both nodes for three seconds."""
        asked = ("--partition=high", "--ntasks=2", f"--cpus-per-task={CORES}", "--output=/dev/null")
        self.ask("sbatch", *asked, "--wrap=sleep 3")

    def queue(self) -> list[str]:
        """The jobs that wait, run or end, one a line: id, name, state. RuntimeError: nobody answers."""
        return self.ask("squeue", "--noheader", "--array", "--format=%i %j %T").splitlines()

    def jobs(self) -> list[dict[str, str]]:
        """All jobs SLURM remembers, newest last, key to value."""
        lines = self.ask("scontrol", "--oneliner", "show", "job", check=False).splitlines()
        words = ([word for word in line.split() if "=" in word] for line in lines)
        return [dict(word.split("=", 1) for word in line) for line in words if line]

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 60.0) -> object:
        """Wait until the condition holds; its value. If it never does, an AssertionError."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(RuntimeError):
                if value := condition():
                    return value
            if time.monotonic() > deadline:
                tails = [_tail(file) for file in sorted(self.folder.glob("slurm*.log"))]
                lines = [f"waited {seconds:.0f} s for {what}", self.ask("squeue", check=False), *tails]
                raise AssertionError("\n".join(lines))
            time.sleep(0.1)

    def clear(self) -> None:
        """End every job, and have both nodes back."""
        self.ask("scancel", "--user=root", check=False)
        for node in NODES:
            if node not in self._daemons:
                self.start_node(node)
        self.wait_for(lambda: not self.queue(), "an empty queue")
        self.wait_for(lambda: set(self.states().values()) == {"idle"}, "two idle nodes")

    def stop(self) -> None:
        """End everything that was started, jobs first."""
        self.ask("scancel", "--user=root", check=False)
        deadline = time.monotonic() + 10
        with contextlib.suppress(RuntimeError):
            while self.queue() and time.monotonic() < deadline:
                time.sleep(0.2)
        for daemon in list(self._daemons):
            if daemon != "munged":
                self._daemons[daemon].terminate()
        for daemon, process in self._daemons.items():
            if daemon == "munged":
                process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._reaper and self._reaper.stdin:  # a step may outlive its daemon
            self._reaper.stdin.close()
            self._reaper.wait(30)

    def _of_jobs(self, node: str) -> list[int]:
        """The processes of jobs on a node, and the managers of their steps."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                variables = process.environ()
                here = variables.get("SLURM_CONF") == str(self.conf) and "SLURM_JOB_ID" in variables
                if here and variables.get("SLURMD_NODENAME") == node:
                    found.append(process.pid)
                    parent = process.parent()
                    if parent and parent.name().startswith("slurmstepd"):
                        found.append(parent.pid)
        return found

    def _watch(self) -> None:
        """Have everything ended when this process is, even by SIGKILL, and after an hour at the latest."""
        reaper = [sys.executable, str(Path(__file__).with_name("reaper.py")), str(self.conf), str(LONGEST)]
        # a session of its own: what ends this process's group must not take it along
        self._reaper = subprocess.Popen(reaper, stdin=subprocess.PIPE, start_new_session=True)

    def _run(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                preexec_fn=_die_with_parent,
            )


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that runs, and is gone afterwards."""
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _die_with_parent() -> None:
    """In the child: SIGTERM when the process that started the cluster is gone, however that went."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _free_ports(count: int) -> int:
    """The first of so many free ports in a row, on the loopback."""
    for first in range(21_000 + os.getpid() % 4000, 32_000, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("there are no free ports")


def _tail(file: Path) -> str:
    return f"--- {file.name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-8:])


if __name__ == "__main__":
    with cluster(Path(sys.argv[1])) as up:
        print(f"export SLURM_CONF={up.conf} MASTER_ADDR=127.0.0.1", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(LONGEST)
