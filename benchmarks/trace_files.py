"""Traces and files: lowering, writing and reading .et, converting long texts. ``python -m benchmarks.trace_files``.

Prints milliseconds, and ratios to the plain way where there is one: lowering anew every iteration, and encoding
every rank's nodes with protobuf.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from converters.chakra import GraphWriter, read_graph, read_nodes
from converters.chakra.wire import frame
from converters.lowering import Lowering
from tests.converters.traces import transformer
from trace_gen.trace import Trace

STEPS, LAYERS = 50, 62
DEPLOYMENTS = ((16, 1), (4, 4), (1, 16))
ROWS = (10_000, 100_000)
COLUMNS = (
    "Layername comp_time input_loc input_size weight_loc weight_size output_loc output_size comm_type comm_size misc"
)


def milliseconds(run: Callable[[], object], repeats: int) -> float:
    """Return the fastest of `repeats` runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def lowering(tp: int, pp: int) -> None:
    traces: list[Trace] = [transformer(tp, pp, LAYERS, STEPS, latency) for latency in (1000, 1001)]
    kept = Lowering()
    kept.lower(traces[0])
    anew = milliseconds(lambda: Lowering().lower(traces[0]), 5)
    steady = milliseconds(lambda: [kept.lower(trace) for trace in traces], 20) / 2
    print(f"  TP {tp:2} x PP {pp:2}: {steady:7.3f} ms, {anew:7.3f} ms the first time ({anew / steady:.0f} times)")


def files(tp: int, pp: int, folder: Path) -> None:
    graph = Lowering().lower(transformer(tp, pp, LAYERS))
    writer = GraphWriter()
    written = writer.write(graph, folder / "g")
    encode = milliseconds(lambda: [list(writer.encode(own)) for own in graph.rank_graphs], 10)
    nodes = [list(read_nodes(path)) for path in written.ranks]
    theirs = milliseconds(lambda: [frame(node.SerializeToString()) for own in nodes for node in own], 5)
    write = milliseconds(lambda: writer.write(graph, folder / "g"), 5)
    read = milliseconds(lambda: read_graph(folder / "g"), 5)
    print(
        f"  TP {tp:2} x PP {pp:2}: encode {encode:5.1f} ms (protobuf, its objects made: {theirs:5.1f} ms), "
        f"with {len(written.ranks)} files {write:5.1f} ms, read {read:5.1f} ms"
    )


def long_texts(folder: Path) -> None:
    for rows in ROWS:
        path = folder / f"{rows}.txt"
        with path.open("w") as out:
            out.write(f"COLOCATED\t\tmodel_parallel_NPU_group: 1\n{rows}\n{COLUMNS}\n")
            for row in range(rows):
                comm = "ALLREDUCE 8192" if row % 4 == 0 else "NONE 0"
                out.write(f"op_{row} {1000 + row % 97} LOCAL 8192 LOCAL 640 LOCAL 8192 {comm} NONE\n")
        code = (
            "import resource, sys; from converters.convert import Spreading, text_to_et\n"
            "text_to_et(sys.argv[1], sys.argv[2], Spreading(4))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        )
        start = time.perf_counter()
        command = [sys.executable, "-c", code, str(path), str(folder / "long")]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
        peak = answer.stdout.strip()
        print(f"  {rows:7} rows to 4 ranks: {seconds:5.1f} s ({rows / seconds:,.0f} rows/s), peak {peak} MB")


def main() -> None:
    """Print all figures."""
    print(f"lowering {STEPS} steps of {LAYERS} layers, durations new, structure known:")
    for tp, pp in DEPLOYMENTS:
        lowering(tp, pp)
    with TemporaryDirectory() as folder:
        print(".et files of one step:")
        for tp, pp in DEPLOYMENTS:
            files(tp, pp, Path(folder))
        print("text to .et, streamed:")
        long_texts(Path(folder))


if __name__ == "__main__":
    main()
