"""Configurations beside each other, and several searches of one arm."""

import json
import re

from bbi_lightning.comparison.page.page import render_page
from bbi_lightning.comparison.provenance import configurations
from bbi_lightning.comparison.results import compare_sweep
from bbi_lightning.comparison.sweep_data import read_sweep
from tests.comparison.page.outline import columns_of, text_of
from tests.comparison.synthetic_sweep import ARMS, SyntheticSweep


def compared(folder):
    return compare_sweep(read_sweep(folder))


class TestConfigurations:
    def config(self, folder, arm, **changes):
        for run in (folder / "runs").glob(f"*-{arm}-*"):
            content = {
                "data": {"batch_size": 64},
                "optim": {"_target_": arm, "lr": 0.1},
                "seed": 0,
                "runtime": {"threads": 1},
            }
            (run / "config.yaml").write_text(json.dumps(content | changes))

    def test_shows_what_differs_and_marks_what_should_not(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", arms=ARMS[1:3], trials=3).write()
        self.config(folder, "ecdsep")
        self.config(folder, "sgd", data={"batch_size": 128}, seed=3, runtime={"threads": 4})
        c = compared(folder)
        table = configurations(c)
        rows = {key: (cells, odd) for key, cells, odd in table.different}
        assert rows == {
            "data.batch_size": ((("64", False), ("128", False)), True),
            "optim._target_": ((("ecdsep", False), ("sgd", False)), False),
        }
        assert table.common == (("optim.lr", "0.1"),)
        page = render_page(c)
        assert re.search(r'<tr class="marked"><th scope="row"><code>data.batch_size', page)

    def test_a_damaged_file_falls_back_on_the_overrides(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", arms=ARMS[1:3], trials=3).write()
        for run in (folder / "runs").iterdir():
            (run / "config.yaml").write_text("data: [1,")
        table = configurations(compared(folder))
        assert ("data", "digits") in table.common
        assert "optim.lr" in [key for key, _, _ in table.different]


class TestSeveralStudies:
    def test_a_seed_has_a_row_for_each_study(self, tmp_path):
        folder = SyntheticSweep(tmp_path / "s", trials=4, replicates=2).write()
        spec = json.loads((folder / "sweep.yaml").read_text())
        spec["search"] |= {"trials": 2, "studies": 2}
        (folder / "sweep.yaml").write_text(json.dumps(spec))
        for file in (folder / "runs").glob("*/run.json"):
            record = json.loads(file.read_text())
            labels = record["labels"]
            number = labels["trial"] if labels["phase"] == "search" else labels["replicate"]
            labels["study"] = number % 2
            file.write_text(json.dumps(record))
        c = compared(folder)
        text = text_of(render_page(c))
        assert "1000, study 1" in text
        assert "1001, study 2" in text
        assert "2 studies" in text
        assert "Study" in columns_of(c)
