"""The doctor on a real cluster, with a probe on both nodes."""

from __future__ import annotations

import json

from slurm.sweeps import Sweeps


def test_the_doctor_looks_at_a_real_cluster_and_asks_both_nodes(sweeps: Sweeps) -> None:
    said = sweeps.bbi("doctor", "--on-nodes", "--json", "--site", sweeps.site)
    findings = {finding["about"]: finding for finding in json.loads(said[said.index("[") :])}
    assert findings["nodes"]["says"] == "n1, n2: same code, same folder, and locks reach across"
    assert findings["signals"]["level"] == "ok"
    assert "requeued 30 s later at the latest" in findings["preemption"]["says"]
    assert findings["arrays"]["says"] == "2 jobs at a time, arrays of up to 10"
    assert findings["memory"]["level"] == "note"
    assert not list(sweeps.root.glob("sweeps/.doctor*"))

    cancelling = json.loads(sweeps.bbi("doctor", "--partition=cancelling", "--json"))
    assert any("queues itself anew before" in finding["says"] for finding in cancelling)
    assert "partition=hihg is unknown" in sweeps.bbi("doctor", "--partition=hihg", check=False)
