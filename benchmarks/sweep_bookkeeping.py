"""What the sweep's journal costs a trial, and how many workers it can serve.

    python benchmarks/sweep_bookkeeping.py                      # about two minutes
    python benchmarks/sweep_bookkeeping.py --sizes 100 1000

Wall clock, everything on the disk of the temporary folder ($TMPDIR), each transaction with its fsync:

- bookkeeping: microseconds a trial of writing a sweep down, of `claim` and of `tell`, at several sizes. The
  claims and tells are those of the first trials; they should not grow with the sweep. Beside them, round by
  round, Optuna's own `ask` and `tell` on a journal that holds as many trials.
- status: seconds to read the journal and count, in a process that has Optuna imported.
- contention: transactions a second, and the wait for the lock, when 1, 2, 8 processes claim and tell as fast
  as they can.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from timing import interleave

from bbi_lightning.sweeps.spec import SweepSpec, parse_spec
from bbi_lightning.sweeps.status import read_status
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.trial import Outcome, Owner

ROUNDS = 100  # trials that are claimed and told, of a sweep of any size
SECONDS = 4.0  # of contention


def empty_sweep(trials: int) -> SweepSpec:
    """A sweep of two arms, of so many trials together."""
    return parse_spec(
        {
            "name": "bench",
            "objective": {"metric": "val/acc", "direction": "maximize"},
            "search": {"trials": trials // 2},
            "arms": {arm: {"space": {"x": {"low": 0.0, "high": 1.0}}} for arm in "ab"},
        }
    )


def stock(journal: Path, trials: int) -> optuna.Study:
    """A study of Optuna's own, with as many finished trials."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
    distributions = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}
    study.add_trials(
        [
            optuna.trial.create_trial(value=0.5, params={"x": 0.5}, distributions=distributions)
            for _ in range(trials)
        ]
    )
    return study


def bookkeeping(folder: Path, trials: int) -> None:
    """Print what a trial costs in a sweep of this size."""
    spec, owner = empty_sweep(trials), Owner("bench", "1")
    began = time.monotonic()
    studies = Studies(folder / f"{trials}.log", spec)
    studies.plan()
    planned = (time.monotonic() - began) / trials
    study = stock(folder / f"{trials}-optuna.log", trials)
    claiming: list[float] = []

    def ours() -> None:
        began = time.monotonic()
        trial = studies.claim(owner, lambda _: True)
        claiming.append(time.monotonic() - began)
        assert trial is not None
        assert studies.tell(trial, Outcome("finished", value=0.5, seconds=1.0))

    def optunas() -> None:
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        study.tell(trial, 0.5)

    rounds = min(ROUNDS, trials // 2 - 1)
    times = interleave({"ours": ours, "optuna": optunas}, rounds, time.monotonic)
    claim = statistics.median(claiming)
    status = seconds(lambda: read_status(Studies(folder / f"{trials}.log", spec)))
    print(
        f"  {trials:>6}   {1e6 * planned:9.0f} {1e6 * claim:9.0f} {1e6 * (times['ours'].median - claim):9.0f}"
        f" {1e6 * times['optuna'].median:20.0f} {status:12.2f}",
        flush=True,
    )


def seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def contend(journal: Path, trials: int, name: str, start: float) -> None:
    """Claim and tell for a while; print the number of transactions and the median and worst wait."""
    studies = Studies(journal, empty_sweep(trials))
    owner, done = Owner(name, "1"), 0
    waits: list[float] = []
    time.sleep(max(0.0, start - time.time()))
    while time.time() < start + SECONDS:
        trial = studies.claim(owner, lambda _: True)
        assert trial is not None, "more trials are needed"
        began = time.monotonic()
        with studies.alone():
            waits.append(time.monotonic() - began)
        assert studies.tell(trial, Outcome("finished", value=0.5))
        done += 2  # the one between has written nothing
    print(done, statistics.median(waits), max(waits))


def contention(folder: Path, writers: int) -> None:
    """Print what several processes get done together."""
    journal, trials = folder / f"contention-{writers}.log", 10_000
    Studies(journal, empty_sweep(trials)).plan()
    start = str(time.time() + 4.0 + 1.5 * writers)  # all have imported Optuna by then
    command = [sys.executable, __file__, "--contend", str(journal), str(trials), start]
    processes = [
        subprocess.Popen([*command, f"w{number}"], stdout=subprocess.PIPE, text=True)
        for number in range(writers)
    ]
    answers = [process.communicate(timeout=300)[0].split() for process in processes]
    rate = sum(int(answer[0]) for answer in answers) / SECONDS
    median = statistics.median(float(answer[1]) for answer in answers)
    worst = max(float(answer[2]) for answer in answers)
    print(f"  {writers:>6}   {rate:15.0f} {1e3 * median:16.2f} {1e3 * worst:16.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--contend", nargs=4, help=argparse.SUPPRESS)  # what the writers are started with
    options = parser.parse_args()
    if options.contend:
        journal, trials, start, name = options.contend
        contend(Path(journal), int(trials), name, float(start))
        return
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        print("bookkeeping, µs a trial (medians; written down: mean), and the status of the sweep")
        print("  trials   written down   claim      tell   Optuna's ask + tell   status, s")
        Studies(Path(folder) / "warm.log", empty_sweep(10)).plan()  # what is imported late
        for trials in options.sizes:
            bookkeeping(Path(folder), trials)
        print("contention: processes that claim and tell as fast as they can, 10,000 trials")
        print("  writers   transactions/s   median wait, ms   worst wait, ms")
        for writers in options.writers:
            contention(Path(folder), writers)


if __name__ == "__main__":
    main()
