"""A fuzzing session of one target: worker processes one after another until the time is over."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fuzz import corpus
from foundation.errors import UserError

MEMORY_MIB = 1024
INPUT_S = 10
LONGEST = 1 << 16
_COVERAGE = re.compile(r"cov: (\d+)")
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb:\s+(\d+)")


@dataclass(frozen=True)
class Outcome:
    """What a session came to: inputs tried, edges covered, the largest memory (MiB), and the files of its findings."""

    reader: str
    inputs: int
    edges: int
    memory_mib: int
    findings: list[Path]

    def __str__(self) -> str:
        found = f"{len(self.findings)} findings" if self.findings else "no finding"
        return f"{self.reader}: {self.inputs} inputs, {self.edges} edges, at most {self.memory_mib} MiB, {found}"


def run(reader: str, seconds: float, work: Path) -> Outcome:
    """Fuzz `reader` for `seconds`; its inputs and findings are kept in `work` and taken up again the next time."""
    if importlib.util.find_spec("atheris") is None:
        raise UserError("atheris is not installed", fix="pip install -e '.[fuzz]' (it has no wheel for every Python)")
    session = work / reader
    (session / "inputs").mkdir(parents=True, exist_ok=True)
    inputs = edges = memory = 0
    deadline = time.monotonic() + seconds
    while (left := round(deadline - time.monotonic())) > 0:
        said = _worker(reader, session, left)
        inputs += sum(int(number) for number in _EXECUTED.findall(said)[-1:])
        edges = max([edges, *map(int, _COVERAGE.findall(said))])
        memory = max([memory, *map(int, _PEAK.findall(said))])
        if not _EXECUTED.search(said):
            raise UserError(
                f"the worker ended by itself: {said.strip().splitlines()[-1:]}", fix=f"see {session / 'log'}"
            )
    found = sorted(path for path in (session / "findings").iterdir() if path.suffix != ".txt")
    return Outcome(reader, inputs, edges, memory, found)


def _worker(reader: str, session: Path, seconds: int) -> str:
    """Run one worker for `seconds` at most, until a hang or too much memory ends it; return what it printed."""
    command = [sys.executable, "-m", "benchmarks.fuzz.worker", reader, str(session)]
    command += [
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        "-print_final_stats=1",
    ]
    command += [f"-max_len={LONGEST}", f"-artifact_prefix={session / 'findings'}/", "-verbosity=1"]
    command += [str(session / "inputs"), str(corpus.FOLDER / reader)]
    log = session / "log"
    with log.open("wb") as out:
        subprocess.run(command, cwd=corpus.ROOT, stdout=out, stderr=out, env=_environment(), check=False)
    return log.read_text(errors="replace")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(corpus.ROOT)}
