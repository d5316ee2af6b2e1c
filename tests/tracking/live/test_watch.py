"""Runs are found, followed and let go; nothing is written and nothing is read twice."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time

import pytest

from bbi_lightning.tracking.live import watch
from bbi_lightning.tracking.live.finder import RunFinder
from bbi_lightning.tracking.live.run_watch import Plan, RunWatch
from bbi_lightning.tracking.live.watch import Watch
from tests.tracking.live.runs_in_motion import HOST, MovingRun, config, labels, write_sweep


def states(snapshot) -> dict[str, str]:
    return {run.name: run.state for run in snapshot.runs}


class TestFinder:
    def test_finds_runs_at_any_depth_and_nothing_hidden(self, tmp_path):
        for place in ("a", "x/b", "sweeps/s/runs/c", ".trash/d", "code/e", "a/checkpoints/f", "a/inside"):
            (tmp_path / place).mkdir(parents=True)
            (tmp_path / place / "run.json").write_text("{}")
        assert [path.name for path in RunFinder(tmp_path).runs()] == ["a", "c", "b"]

    def test_a_run_is_its_own_root(self, tmp_path):
        (tmp_path / "run.json").write_text("{}")
        assert RunFinder(tmp_path).runs() == [tmp_path]

    def test_a_root_that_is_not_there_has_none_and_may_come(self, tmp_path):
        finder = RunFinder(tmp_path / "runs")
        assert finder.runs() == []
        (tmp_path / "runs" / "a").mkdir(parents=True)
        (tmp_path / "runs" / "a" / "run.json").write_text("{}")
        assert len(finder.runs()) == 1

    def test_a_folder_becomes_a_run_once_its_record_is_there(self, tmp_path):
        finder = RunFinder(tmp_path)
        (tmp_path / "a").mkdir()
        assert finder.runs() == []
        (tmp_path / "a" / "run.json").write_text("{}")
        assert finder.runs() == [tmp_path / "a"]

    def test_lists_no_folder_twice_that_did_not_change(self, tmp_path, monkeypatch):
        for i in range(50):
            (tmp_path / "runs" / f"{i:02}").mkdir(parents=True)
            (tmp_path / "runs" / f"{i:02}" / "run.json").write_text("{}")
        finder = RunFinder(tmp_path)
        monkeypatch.setattr("bbi_lightning.tracking.live.finder._FRESH", -1.0)
        first = finder.runs()
        listed = []
        real = os.scandir
        monkeypatch.setattr("os.scandir", lambda path: (listed.append(path), real(path))[1])
        assert finder.runs() == first
        assert listed == []
        (tmp_path / "runs" / "new").mkdir()
        (tmp_path / "runs" / "new" / "run.json").write_text("{}")
        assert len(finder.runs()) == 51
        assert {str(path) for path in listed} == {str(tmp_path / "runs"), str(tmp_path / "runs" / "new")}

    def test_a_data_set_below_the_root_is_looked_at_seldom_and_not_for_ever_ignored(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("bbi_lightning.tracking.live.finder._FRESH", -1.0)
        for i in range(20):
            (tmp_path / "data" / f"{i:02}").mkdir(parents=True)
        for path in (*tmp_path.glob("data/*"), tmp_path / "data"):
            os.utime(path, (1e9, 1e9))
        (tmp_path / "runs" / "a").mkdir(parents=True)
        (tmp_path / "runs" / "a" / "run.json").write_text("{}")
        finder = RunFinder(tmp_path)
        asked: list[str] = []
        real = finder._listing
        monkeypatch.setattr(finder, "_listing", lambda path: (asked.append(path), real(path))[1])
        assert len(finder.runs()) == 1
        assert sum("/data" in path.removeprefix(str(tmp_path)) for path in asked) == 21
        asked.clear()
        for _ in range(9):
            assert len(finder.runs()) == 1
        assert not any("/data" in path.removeprefix(str(tmp_path)) for path in asked)
        (tmp_path / "data" / "07" / "run.json").write_text("{}")
        assert len(finder.runs()) == 2

    def test_a_link_in_a_circle_ends(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
        assert RunFinder(tmp_path).runs() == []


class TestPlan:
    @pytest.mark.parametrize(
        ("epochs", "steps", "per_epoch", "total"),
        [
            (30, None, 18, 540), (30, None, None, None), (None, 700, None, 700), (30, 700, 18, 540),
            (30, 100, 18, 100), (30, 100, None, 100), (None, None, 18, None),
        ],
    )  # fmt: skip
    def test_the_limit_that_comes_first_ends_it(self, epochs, steps, per_epoch, total):
        plan = Plan.of({"trainer": {"max_epochs": epochs, "max_steps": steps}})
        assert plan.total_steps(per_epoch) == total

    def test_the_sweeps_objective_wins(self):
        assert Plan.of({"checkpoint": {"keep_best": "val/loss"}}).maximize is False
        plan = Plan.of({"checkpoint": {"keep_best": "val/loss"}}, "val/acc", True)
        assert (plan.metric, plan.maximize) == ("val/acc", True)

    @pytest.mark.parametrize("config", [{}, {"trainer": None}, {"trainer": 3, "checkpoint": []}])
    def test_any_config_will_do(self, config):
        assert Plan.of(config).total_steps(18) is None


class TestRun:
    def test_says_how_far_it_is_and_when_it_ends(self, tmp_path):
        run = MovingRun(tmp_path / "a")
        run.train(180, seconds_each=0.1)
        run_watch_ = RunWatch(tmp_path / "a")
        run_watch_.look()
        view = run_watch_.view()
        assert (view.state, view.step, view.planned_steps, view.planned_epochs) == ("running", 180, 540, 30)
        assert view.progress == pytest.approx(1 / 3)
        assert view.steps_per_second == pytest.approx(10, rel=0.01)
        assert view.eta == pytest.approx(36, rel=0.01)
        assert view.best == pytest.approx(1 - 0.9 * math.exp(-180 / 50))
        assert (view.metric, view.best_step, view.host) == ("val/acc", 180, HOST)
        assert view.loss == pytest.approx(2.3 * math.exp(-3) + 1e-4)
        assert view.potential_over_energy == pytest.approx(view.loss / 2.3)
        assert view.energy_error == pytest.approx(0.1)
        assert view.alarms == ()

    def test_follows_it_to_its_end(self, tmp_path):
        run = MovingRun(tmp_path / "a")
        seen = RunWatch(tmp_path / "a")
        seen.look()
        assert (seen.view().state, seen.view().step, seen.view().progress) == ("running", None, None)
        run.train(540)
        seen.look()
        assert seen.view().progress == 1.0
        run.folder.end_attempt("finished", summary={"val/acc": 0.9})
        seen.look()
        assert (seen.view().state, seen.view().eta, seen.view().silent) == ("finished", None, None)

    def test_reads_a_log_once(self, tmp_path):
        run = MovingRun(tmp_path / "a")
        seen = RunWatch(tmp_path / "a")
        for _ in range(20):
            run.train(18)
            seen.look()
        assert seen.tail.read == run.log.stat().st_size

    def test_a_killed_process_leaves_a_lost_run(self, tmp_path):
        program = (
            "import os, sys; from pathlib import Path\n"
            "from tests.tracking.live.runs_in_motion import MovingRun\n"
            f"MovingRun(Path({str(tmp_path / 'a')!r})).train(60); os.kill(os.getpid(), 9)"
        )
        done = subprocess.run([sys.executable, "-c", program], check=False)
        assert done.returncode == -9
        seen = RunWatch(tmp_path / "a")
        seen.look()
        assert seen.view().state == "running"  # it wrote a moment ago: nobody calls it dead so soon
        for file in (tmp_path / "a" / "metrics.jsonl", tmp_path / "a" / "run.json"):
            os.utime(file, (time.time() - 20, time.time() - 20))
        later = RunWatch(tmp_path / "a")
        later.look()
        view = later.view()
        assert (view.state, [alarm.code for alarm in view.alarms]) == ("lost", ["lost"])
        assert HOST in view.alarms[0].sentence
        assert view.eta is None

    def test_a_silent_run_that_is_held_is_not_lost(self, tmp_path):
        run = MovingRun(tmp_path / "a")
        run.train(60)
        run.age(400)
        seen = RunWatch(tmp_path / "a")
        seen.look()
        assert seen.view().state == "running"
        assert [alarm.code for alarm in seen.view().alarms] == ["silent"]
        assert seen.view().silent == pytest.approx(400, abs=5)
        run.train(6)
        seen.look()
        assert seen.view().alarms == ()

    def test_a_file_system_without_locks_calls_nobody_dead(self, tmp_path, monkeypatch):
        import errno
        import fcntl

        run = MovingRun(tmp_path / "a")
        run.train(60)
        run.age(30)

        def no_locks(*_):
            raise OSError(errno.ENOLCK, "no locks")

        monkeypatch.setattr(fcntl, "flock", no_locks)
        seen = RunWatch(tmp_path / "a")
        seen.look()  # and no warning, which would be an error here
        assert seen.view().state == "running"

    def test_another_machines_lock_may_be_invisible(self, tmp_path):
        run = MovingRun(tmp_path / "a")
        run.train(60)
        record = json.loads(run.folder.record_file.read_text())
        record["attempts"][0]["host"] = "another"
        run.folder.release()
        run.folder.record_file.write_text(json.dumps(record))
        run.age(30)
        seen = RunWatch(tmp_path / "a")
        seen.look()
        assert seen.view().state == "running"
        run.age(100)
        seen = RunWatch(tmp_path / "a")
        seen.look()
        assert seen.view().state == "lost"

    def test_a_failed_run_says_why(self, tmp_path):
        run = MovingRun(tmp_path / "a")
        run.folder.end_attempt("failed", exception=RuntimeError("no memory"))
        seen = RunWatch(tmp_path / "a")
        seen.look()
        assert seen.view().alarms[0].sentence == "failed: RuntimeError: no memory"

    def test_a_run_that_goes_on_from_a_checkpoint_forgets_what_was_cut(self, tmp_path):
        run = MovingRun(tmp_path / "a")
        run.train(180)
        seen = RunWatch(tmp_path / "a")
        seen.look()
        assert seen.view().best_step == 180
        run.folder.end_attempt("interrupted")
        lines = run.log.read_text().splitlines(keepends=True)
        run.log.write_text("".join(lines[:20]))
        run.folder.begin_attempt(from_step=80)
        seen.look()
        assert seen.view().step < 100
        assert seen.view().best_step <= 90
        assert seen.view().attempt == 2

    def test_an_unreadable_record_is_shown_and_read_again(self, tmp_path):
        run = MovingRun(tmp_path / "a")
        good = run.folder.record_file.read_text()
        run.folder.record_file.write_text("{")
        seen = RunWatch(tmp_path / "a")
        seen.look()
        assert (seen.view().state, seen.view().alarms[0].code) == ("damaged", "damaged")
        run.folder.record_file.write_text(good)
        seen.look()
        assert seen.view().state == "running"

    def test_follows_the_loss_where_that_is_what_is_kept(self, tmp_path):
        run = MovingRun(tmp_path / "a", text=config(keep_best="val/loss"))
        run.train(90)
        seen = RunWatch(tmp_path / "a")
        seen.look()
        assert (seen.view().metric, seen.view().best_step) == ("val/loss", 90)
        assert seen.view().best == pytest.approx(2.3 * math.exp(-1.5) + 0.1001)

    def test_a_config_that_cannot_be_read_only_hides_the_plan(self, tmp_path):
        run = MovingRun(tmp_path / "a", text="{[")
        run.train(36)
        seen = RunWatch(tmp_path / "a")
        seen.look()
        assert (seen.view().step, seen.view().planned_steps) == (36, None)


class TestWatch:
    def test_sees_runs_come_and_go(self, tmp_path):
        MovingRun(tmp_path / "runs" / "a").train(18)
        seen = Watch([tmp_path])
        assert states(seen.look()) == {"a": "running"}
        second = MovingRun(tmp_path / "runs" / "b")
        assert states(seen.look()) == {"a": "running", "b": "running"}
        second.folder.release()
        shutil.rmtree(tmp_path / "runs" / "b")
        assert states(seen.look()) == {"a": "running"}

    def test_a_run_below_two_roots_is_one(self, tmp_path):
        MovingRun(tmp_path / "runs" / "a")
        assert len(Watch([tmp_path, tmp_path / "runs"]).look().runs) == 1

    def test_ended_runs_are_read_when_there_is_time_and_only_once(self, tmp_path):
        size = 0
        for name in "abc":
            run = MovingRun(tmp_path / name)
            run.train(180)
            run.folder.end_attempt("finished", summary={"val/acc": 0.5, "steps": 180})
            size += run.log.stat().st_size
        seen = Watch([tmp_path])
        first = seen.look(bytes_of_beginnings=0)
        assert not first.complete
        assert {run.newest for run in first.runs} == {0.5}
        looks = 0
        while not seen.look(bytes_of_beginnings=3000).complete:
            looks += 1
            assert looks < 100
        assert all(run.best > 0.9 and len(run.losses) == 30 for run in seen.look().runs)
        assert sum(watched.tail.read for watched in seen._runs.values()) == size

    def test_a_sweep_is_counted_and_its_end_foretold(self, tmp_path):
        sweep = write_sweep(tmp_path / "sweeps" / "s", arms=("bbi", "sgd"), trials=4, count=1)
        for trial in range(3):
            run = MovingRun(sweep / "runs" / f"bbi-{trial}", labels=labels(sweep, "bbi", trial))
            run.train(18)
            run.folder.end_attempt(
                "finished" if trial else "diverged", summary={"val/acc": 0.7 + trial / 10, "wall_s": 60.0}
            )
        MovingRun(sweep / "runs" / "sgd-0", labels=labels(sweep, "sgd", 0)).train(18)
        (view,) = Watch([tmp_path]).look().sweeps
        assert (view.name, view.total, view.ended) == ("s", 10, 3)
        assert view.counts == {"finished": 2, "diverged": 1, "running": 1}
        assert (view.best, view.best_arm) == (pytest.approx(0.9), "bbi")
        assert view.eta == pytest.approx(7 * 60 - 1.8)

    def test_a_sweep_that_grows_is_read_again(self, tmp_path):
        sweep = write_sweep(tmp_path / "s", trials=2, count=0)
        MovingRun(sweep / "runs" / "x", labels=labels(sweep, "bbi", 0))
        seen = Watch([tmp_path])
        assert seen.look().sweeps[0].total == 4
        text = (sweep / "sweep.yaml").read_text().replace("trials: 2", "trials: 5")
        time.sleep(0.01)
        (sweep / "sweep.yaml").write_text(text)
        assert seen.look().sweeps[0].total == 10

    @pytest.mark.parametrize("text", ["", "{[", "arms: 3", "objective: {metric: val/acc}"])
    def test_a_description_that_cannot_be_read_hides_only_the_total(self, tmp_path, text):
        sweep = write_sweep(tmp_path / "s")
        (sweep / "sweep.yaml").write_text(text)
        MovingRun(sweep / "runs" / "x", labels=labels(sweep, "bbi", 0))
        (view,) = Watch([tmp_path]).look().sweeps
        assert (view.total, view.progress, view.counts) == (None, None, {"running": 1})

    def test_a_full_disk_is_an_alarm(self, tmp_path, monkeypatch):

        real = os.statvfs(tmp_path)

        class Facts:
            f_frsize, f_blocks, f_files, f_favail = 4096, 10 * 2**18, real.f_files, real.f_favail
            f_bavail = 2**17  # 512 MiB

        monkeypatch.setattr(watch.os, "statvfs", lambda _: Facts)
        (alarm,) = Watch([tmp_path, tmp_path]).look().alarms
        assert (alarm.level, alarm.code) == ("error", "disk")
        assert "0.5 GiB left" in alarm.sentence
        Facts.f_bavail = 9 * 2**18
        assert Watch([tmp_path]).look().alarms == ()

    def test_changes_nothing(self, tmp_path):
        sweep = write_sweep(tmp_path / "s")
        run = MovingRun(sweep / "runs" / "x", labels=labels(sweep, "bbi", 0))
        run.train(36)
        run.age(100)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        seen = Watch([tmp_path])
        for _ in range(3):
            seen.look()
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.slow
def test_a_thousand_runs_cost_little(tmp_path):
    """20 of them under way: a look takes a few hundredths of a second of a core, measured over ten."""
    template = MovingRun(tmp_path / "template")
    template.train(180)
    moving = [MovingRun(tmp_path / "runs" / f"m{i}") for i in range(20)]
    template.folder.end_attempt("finished", summary={"val/acc": 0.5})
    for i in range(980):
        shutil.copytree(tmp_path / "template", tmp_path / "runs" / f"d{i:03}")
    seen = Watch([tmp_path / "runs"])
    while not seen.look(2**26).complete:
        pass
    spent = 0.0
    for _ in range(10):
        for run in moving:
            run.train(18)
        began = time.process_time()
        assert len(seen.look().runs) == 1000
        spent += time.process_time() - began
    assert spent / 10 < 0.1 * 2  # a tenth of a core at a look every two seconds; measured: 0.01 s
