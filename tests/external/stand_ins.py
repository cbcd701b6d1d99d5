"""Programs that stand where the ASTRA-sim binary should: a good one, and one for every way to fail."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

FINISHED = """for trace in graph.*.et; do
    rank=${trace#graph.}; rank=${rank%.et}
    echo "[t] [workload] [info] sys[$rank] finished, $((1000 + rank)) cycles, exposed communication $rank cycles."
done
"""
FAILURES = {
    "exits non-zero": ("echo first >&2; echo the last words >&2; exit 3", r"exit code 3: first \| the last words"),
    "is killed by a signal": ("kill -SEGV $$", r"signal SIGSEGV|exit code 139 \(SIGSEGV\)"),
    "prints no finished line": ("exit 0", r"exited 0, but ranks 0, 1 printed no finished line"),
    "leaves a rank out": (
        'echo "sys[1] finished, 5 cycles, exposed communication 0 cycles."; echo "[x] [critical] stuck here"',
        r"rank 0 printed no finished line .*stuck here",
    ),
    "gives no duration": (
        'for r in 0 1; do echo "sys[$r] finished, 4611686018427387905 cycles, exposed communication 0 cycles."; done',
        r"rank 0 finished after 4611686018427387905 cycles, which is no duration",
    ),
    "takes no time": (
        'for r in 0 1; do echo "sys[$r] finished, 0 cycles, exposed communication 0 cycles."; done',
        r"rank 0 finished after 0 cycles, but its first node takes longer",
    ),
    "counts beyond all numbers": (
        f'for r in 0 1; do echo "sys[$r] finished, {"9" * 5000} cycles, exposed communication 0 cycles."; done',
        r"exited 0, but ranks 0, 1 printed no finished line",
    ),
    "ends in escape sequences": (
        r"printf '\033[2Jgone %0300d' 7 >&2; exit 3",
        r"exit code 3: \\x1b\[2Jgone 0{190,200}",
    ),
    "hangs": ("sleep 60", r"it hung: no (end after|answer) 0.5 s"),
}


def shell_script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def good(path: Path) -> Path:
    """A binary that finishes rank r after 1000 + r cycles, and leaves a line in `path`.runs each time."""
    return shell_script(path, f"echo run >> {path}.runs\n{FINISHED}")


def runs(path: Path) -> int:
    """How often the binary made by `good` ran."""
    log = Path(f"{path}.runs")
    return len(log.read_text().splitlines()) if log.exists() else 0


def analytical(path: Path) -> Path:
    """Our own command line, which answers as the real binary does."""
    return shell_script(path, f'PYTHONPATH={ROOT} exec {sys.executable} -m analytical "$@"')
