"""CPU time and memory of whole commands, each in a process of its own, less what the interpreter takes anyway."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.graph_files import write_files
from benchmarks.targets import Work

ROOT = Path(__file__).resolve().parents[1]
SAME = (".csv", "-throughput.tsv")


@dataclass(frozen=True)
class Measured:
    """CPU seconds beyond the interpreter and `import numpy`, and the most memory that was resident (MB, 1e6)."""

    cpu_s: float
    peak_mb: float


class FailedError(Exception):
    """A command that was measured failed; the text says which, and how."""


def spent(command: Sequence[str], folder: Path) -> Measured:
    """Run a command in `folder` and return what it took, start-up included."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process.stderr as stream:
        said = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise FailedError(f"{shlex.join(command)}: exit {process.returncode}: {said.strip().splitlines()[-1:]}")
    return Measured(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


class Bench:
    """Measures work in a checkout of Orrery; the first run of each command, which may compile, does not count."""

    def __init__(self, checkout: Path, *, repeat: int, scale: float) -> None:
        self._checkout, self._repeat, self._scale = checkout, repeat, scale
        self._numpy = min(spent([sys.executable, "-c", "import numpy"], checkout).cpu_s for _ in range(3))
        self._bare = min(spent([sys.executable, "-c", "pass"], checkout).cpu_s for _ in range(3))

    def command(self, work: Work, output: Path | None, graph: Sequence[str] = ()) -> list[str]:
        """Return the command line of a piece of work; `graph`: the flags of the graph that it simulates."""
        where = ["-m", work.module] if work.module is not None else ["main.py"]
        written = ["--output", str(output)] if output is not None else []
        return [sys.executable, *where, *work.arguments(self._scale), *graph, *written]

    def measure(self, work: Work, output: Path) -> Measured:
        """Return the median of several runs; files of the last one are beside `output`."""
        graph = [] if work.graph is None else write_files(work.graph, output.parent)
        command = self.command(work, output if work.writes else None, graph)
        runs = [spent(command, self._checkout) for _ in range(self._repeat + 1)][1:]
        base = self._bare if work.name == "help" else self._numpy
        return Measured(
            max(statistics.median(run.cpu_s for run in runs) - base, 0.0),
            statistics.median(run.peak_mb for run in runs),
        )


def same_files(first: Path, second: Path) -> bool:
    """Whether two runs left the same rows of requests and of throughput."""
    pairs = ((Path(f"{first.with_suffix('')}{end}"), Path(f"{second.with_suffix('')}{end}")) for end in SAME)
    return all(one.read_bytes() == other.read_bytes() for one, other in pairs)
