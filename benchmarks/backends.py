"""What one iteration costs with each backend: ``python -m benchmarks.backends [--astra_sim PATH] [--image NAME]``.

Runs the same small serving job (Llama-3.1-8B) on 1 NPU, TP 4 and PP 4 with the embedded backend, with a binary as a
process, behind a spool folder and in a container, without the result cache, then once more from the cache; checks that
every CSV is the embedded backend's byte for byte, and prints the backend's wall time an iteration. Without a binary (or
image) our own `analytical` command stands in for it behind the spool folder, and those rows are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHAPES = {"TP 1": ("1", "1"), "TP 4": ("4", "1"), "PP 4": ("4", "4"), "hybrid 2x2": ("4", "2")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--astra_sim", default=os.environ.get("ORRERY_ASTRA_SIM"), help="the binary to measure")
    parser.add_argument("--image", help="an image that holds a binary")
    parser.add_argument("--req_num", default="2", help="requests to serve (default: %(default)s)")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{'shape':12} {'backend':26} {'iterations':>10} {'ms an iteration':>16}  CSV as embedded's")
    with tempfile.TemporaryDirectory() as work, _served(Path(work), arguments.astra_sim) as spool:
        for shape, (npus, group) in SHAPES.items():
            job = ["--npu_num", npus, "--npu_group", group, "--req_num", arguments.req_num]
            reference = None
            for name, flags in _backends(Path(work) / "cache" / shape, arguments.astra_sim, arguments.image, spool):
                csv, iterations, milliseconds = _run(Path(work), [*job, *flags])
                reference = reference if reference is not None else csv
                equal = "yes" if csv == reference else "NO"
                print(f"{shape:12} {name:26} {iterations:10} {milliseconds / iterations:16.3f}  {equal}", flush=True)


def _backends(cache: Path, binary: str | None, image: str | None, spool: Path) -> Iterator[tuple[str, list[str]]]:
    yield "embedded", []
    if binary:
        process = ["--backend", "astra-sim", "--astra_sim", binary]
        yield "process", [*process, "--no_cache"]
        yield "process, one job", [*process, "--no_cache", "--backend_jobs", "1"]
        yield "process, filling the cache", [*process, "--cache_dir", str(cache)]
        yield "process, from the cache", [*process, "--cache_dir", str(cache)]
    served = "spool" if binary else "spool, our command"
    yield served, ["--backend", "spool", "--spool_dir", str(spool), "--no_cache"]
    if image:
        yield "docker", ["--backend", "docker", "--astra_sim_image", image, "--no_cache"]


def _run(work: Path, flags: list[str]) -> tuple[bytes, int, float]:
    """Return the CSV, the iterations, and the backend's wall time in ms."""
    output = work / "out.csv"
    command = [sys.executable, "main.py", *flags, "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    iterations = json.loads((work / "out-summary.json").read_text())["iterations"]
    rows = dict(line.split("\t") for line in (work / "out-simulation-time.tsv").read_text().splitlines())
    return output.read_bytes(), int(iterations), float(rows["backend"])


@contextmanager
def _served(work: Path, binary: str | None) -> Iterator[Path]:
    """Serve a spool folder with the binary, or with our own command."""
    spool = work / "spool"
    command = [sys.executable, "-m", "external.astra_sim", "serve", "--spool_dir", str(spool)]
    server = subprocess.Popen([*command, *(["--astra_sim", binary] if binary else [])], cwd=ROOT)
    while not (spool / "servers").is_dir():
        time.sleep(0.05)
    try:
        yield spool
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
