"""What one iteration costs with each backend: ``python -m benchmarks.backends [--astra_sim PATH] [--image NAME]``.

Takes the graphs of a small serving job (Llama-3.1-8B, 1 to 3 requests decoding) on 1 NPU, TP 4, PP 4, 2 x 2. Simulates
each with the embedded backend, with a binary as a process, behind a spool folder and in a container, then from the
result cache, and prints the median and the least wall time of an iteration; `binary alone` is the bare program on files
already written. Every answer must be the embedded backend's. Without a binary only the embedded backend and our own
command behind the spool folder are measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from analytical.embedded import create as create_embedded
from converters.chakra.graph_reader import read_graph
from converters.chakra.graph_writer import GraphWriter
from converters.execution_graph import ExecutionGraph
from external.astra_sim.adapt import adapt, adapt_configuration
from external.astra_sim.case import write_case
from external.astra_sim.factories import create_docker, create_process, create_spool

ROOT = Path(__file__).parents[1]
SHAPES = {"TP 1": ("1", "1"), "TP 4": ("4", "1"), "PP 4": ("4", "4"), "hybrid 2 x 2": ("4", "2")}
REQUESTS = "120\t14\t0\n40\t16\t5000000\n300\t12\t20000000\n"
CREATE = {"embedded": create_embedded, "astra-sim": create_process, "spool": create_spool, "docker": create_docker}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--astra_sim", default=os.environ.get("ORRERY_ASTRA_SIM"), help="the binary to measure")
    parser.add_argument("--image", help="an image that holds a binary")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("| shape | nodes a rank | backend | median, ms | least, ms |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, _served(Path(folder), arguments.astra_sim) as spool:
        for shape, (npus, group) in SHAPES.items():
            work = Path(folder) / shape
            graphs, files = _graphs(work, npus, group)
            ways = {
                name: CREATE[kind](**files, options=options)
                for name, kind, options in _ways(work, arguments.astra_sim, arguments.image, spool)
            }
            alone = Alone(work, files, arguments.astra_sim) if arguments.astra_sim else None
            milliseconds = _measure(graphs, ways, alone)
            nodes = max(rank_graph.nodes for rank_graph in graphs[-1].rank_graphs)
            for name, times in milliseconds.items():
                print(f"| {shape} | {nodes} | {name} | {statistics.median(times):.2f} | {min(times):.2f} |", flush=True)
            for backend in ways.values():
                backend.close()


class Alone:
    """The bare binary, its files written beforehand."""

    def __init__(self, work: Path, files: dict[str, str], binary: str) -> None:
        self.work, self.configuration, self.binary = work, adapt_configuration(**files), binary

    def run(self, graph: ExecutionGraph) -> float:
        """Return the wall time in ms."""
        folder = Path(tempfile.mkdtemp(dir=self.work))
        flags = write_case(folder, adapt(graph, 0, self.configuration), self.configuration, {}, GraphWriter())
        started = time.perf_counter()
        subprocess.run([self.binary, *flags], cwd=folder, check=True, capture_output=True)
        return 1000 * (time.perf_counter() - started)


def _measure(graphs: list[ExecutionGraph], ways: dict[str, Any], alone: Alone | None) -> dict[str, list[float]]:
    """Return the wall times (ms) of every way, which take turns so that whatever else runs here slows all alike."""
    milliseconds: dict[str, list[float]] = defaultdict(list)
    for graph in graphs:
        expected = None
        if alone is not None:
            milliseconds["binary alone"].append(alone.run(graph))
        for name, backend in ways.items():
            started = time.perf_counter()
            answer = backend.simulate(graph).by_rank()
            milliseconds[name].append(1000 * (time.perf_counter() - started))
            expected = expected or answer
            if answer != expected:
                raise SystemExit(f"{name}: {answer} instead of {expected}")
    return milliseconds


def _ways(work: Path, binary: str | None, image: str | None, spool: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    uncached = {"no_cache": "1"}
    yield "embedded", "embedded", {}
    if binary:
        named = {"astra_sim": binary}
        yield "astra-sim", "astra-sim", named | uncached
        for name in ("astra-sim, filling the cache", "astra-sim, from the cache"):
            yield name, "astra-sim", named | {"cache_dir": str(work / "cache")}
    yield "spool" if binary else "spool, our command", "spool", {"spool_dir": str(spool)} | uncached
    if image:
        yield "docker", "docker", {"astra_sim_image": image} | uncached


def _graphs(work: Path, npus: str, group: str) -> tuple[list[ExecutionGraph], dict[str, str]]:
    """Run the job and return its graphs, as the files hold them, with the configuration they belong to."""
    work.mkdir()
    (work / "work.tsv").write_text(REQUESTS)
    job = ["main.py", "--npu_num", npus, "--npu_group", group, "--dataset", str(work / "work.tsv")]
    job += ["--trace_dir", str(work / "graphs"), "--write_configs", str(work)]
    subprocess.run([sys.executable, *job], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    prefixes = sorted({path.name.split(".")[0] for path in (work / "graphs").glob("*.0.et")})
    names = {"network": "network.yml", "system": "system.json", "memory": "memory.json"}
    files = {kind: (work / name).read_text() for kind, name in names.items()}
    return [read_graph(work / "graphs" / prefix) for prefix in prefixes], files


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
