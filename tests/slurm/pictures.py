"""Draws the pictures of docs/jobs/slurm.md: a session on a real SLURM, as a user sees it.

    python tests/slurm/pictures.py docs/pictures          # about two minutes

Every picture is what the commands printed on a terminal of 96 columns, in colour. One sweep is planned,
submitted with too little memory for its trials, looked at, repaired, and compared.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from slurm.cluster import Cluster, cluster  # noqa: E402

WIDTH = 96
SWEEP = "sweep=demo.yaml cluster.jobs=2 cluster.cpus=1"
CHANGES = {  # of the shipped smoke test: enough replicates for a conclusion, trials long enough to be watched
    "name: smoke": "name: demo",
    "A sweep to try the machinery with": "BBI against SGD on eight by eight digits",
    "max_epochs=2": "max_epochs=50",
    "trials: 2": "trials: 3",
    "replicates: {count: 1": "replicates: {count: 6",
}


class Terminal:
    """A login shell of the cluster, in an empty folder; keeps what was typed and shown."""

    def __init__(self, slurm: Cluster, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        bbi = folder / "bin" / "bbi"
        bbi.write_text(f'#!/bin/sh\nexec {sys.executable} -m bbi_lightning.cli "$@"\n')
        bbi.chmod(0o755)
        self.environment = slurm.environment | {
            "PATH": f"{bbi.parent}:{slurm.environment['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "COLUMNS": str(WIDTH),
            "LINES": "60",
            "TERM": "xterm-256color",
            "OMP_NUM_THREADS": "1",
        }

    def type(self, command: str) -> str:
        """The command, and what it shows on a terminal in the end."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            command, shell=True, cwd=self.folder, env=self.environment, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += (piece := os.read(ours, 65536))
            except OSError:  # the terminal is closed with its last process
                break
            if not piece:
                break
        process.wait()
        os.close(ours)
        return f"\x1b[1;32m$\x1b[0m {command}\n{_settled(shown.decode(errors='replace'))}"

    def until_over(self) -> None:
        """Wait until nobody works on the sweep."""
        deadline = time.monotonic() + 150
        while subprocess.check_output(["squeue", "--noheader"], env=self.environment).strip():
            if time.monotonic() > deadline:
                raise TimeoutError("the sweep does not end")
            time.sleep(0.5)


def _settled(shown: str) -> str:
    """What stays on the screen of what moves on it: each line as it was last, without what was erased."""
    lines: list[str] = [""]
    row = 0
    for part in re.split(r"(\r\n|\r|\x1b\[\d*[ABK]|\x1b\[2K|\x1b\[\?25[lh])", shown):
        if part == "\r\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b["):
            row = max(0, row - int(part[2:-1] or 1))
        elif part == "\r" or re.fullmatch(r"\x1b\[\d*K", part):
            lines[row] = ""
        elif not part.startswith("\x1b[?"):
            lines[row] += part
    return "\n".join(lines).rstrip()


def draw(screens: list[str], file: Path, title: str) -> None:
    """The screens, one under the other, as a picture that needs nothing from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi("\n\n".join(screens)))
    svg = console.export_svg(title=title)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, ", "")
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    file.write_text(svg, encoding="utf-8")
    print(f"{file}: {len(svg) // 1024} KiB")


def main(pictures: Path) -> None:
    """Play the session, draw its pictures."""
    with tempfile.TemporaryDirectory() as place, cluster(Path(place) / "cluster") as slurm:
        home = Path(place) / "home"
        home.mkdir()
        terminal = Terminal(slurm, home)
        (home / "demo.yaml").write_text(_description())
        draw([terminal.type(f"bbi sweep plan {SWEEP}")], pictures / "slurm_plan.svg", "plan")
        submitted = [terminal.type(f"bbi sweep submit {SWEEP} cluster.trial_memory=20M") for _ in range(2)]
        draw(submitted, pictures / "slurm_submit.svg", "submit, twice")
        terminal.until_over()
        draw([terminal.type("bbi sweep status demo")], pictures / "slurm_status.svg", "status")
        repaired = [terminal.type("bbi sweep retry demo --failed")]
        repaired.append(terminal.type(f"bbi sweep submit {SWEEP} cluster.trial_memory=4G"))
        time.sleep(20)
        repaired.append(terminal.type("bbi sweep status demo"))
        draw(repaired, pictures / "slurm_retry.svg", "retry, submit, status")
        terminal.until_over()
        ended = [terminal.type("bbi sweep best demo"), terminal.type("bbi compare demo")]
        draw(ended, pictures / "slurm_compare.svg", "best, compare")


def _description() -> str:
    """The sweep of the session."""
    text = (Path(__file__).parents[2] / "configs" / "sweep" / "smoke.yaml").read_text(encoding="utf-8")
    for old, new in CHANGES.items():
        if old not in text:
            raise ValueError(f"{old!r} is no part of smoke.yaml any more: change CHANGES")
        text = text.replace(old, new)
    return text


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
