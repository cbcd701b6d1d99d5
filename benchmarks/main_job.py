"""How long the main job takes on the 100-request sample, whole command, and where the time goes.

    python -m benchmarks.main_job [--repeat N]

Each row is the best of N runs of `main.py` in a fresh process. The aims stand beside the first two rows: under 2 s
on one NPU, under 10 s on 16.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

ROOT = Path(__file__).parents[1]
CASES = (
    ("TP 1", (), "under 2 s"),
    ("TP 16", ("--npu_num", "16"), "under 10 s"),
    ("TP 4 x PP 4", ("--npu_num", "16", "--npu_group", "4"), "under 10 s"),
    ("PP 16", ("--npu_num", "16", "--npu_group", "16"), "under 10 s"),
    ("TP 1, static", ("--scheduling", "none", "--max_batch", "16"), ""),
    ("TP 1, vllm", ("--scheduling", "vllm"), ""),
    ("TP 1, short of memory", ("--npu_mem", "17.5"), ""),
    ("TP 1, one step at a time", ("--macro_steps", "1"), ""),
)


def run(flags: tuple[str, ...], folder: Path) -> tuple[float, dict[str, float]]:
    """Return the seconds of the whole command and the ms a component."""
    output = folder / "out.csv"
    begin = perf_counter()
    subprocess.run(
        [sys.executable, "main.py", "--output", str(output), *flags], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    seconds = perf_counter() - begin
    lines = (folder / "out-simulation-time.tsv").read_text().splitlines()[1:]
    return seconds, {name: float(spent) for name, spent in (line.split("\t") for line in lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each case (%(default)s)")
    repeat = parser.parse_args().repeat
    for name, flags, aim in CASES:
        with TemporaryDirectory() as folder:
            seconds, spent = min(run(flags, Path(folder)) for _ in range(repeat))
        parts = ", ".join(f"{component} {value:.0f}" for component, value in spent.items() if component != "total")
        print(f"{name:26s} {seconds:6.2f} s  {aim:10s} of which ms: {parts}", flush=True)


if __name__ == "__main__":
    main()
