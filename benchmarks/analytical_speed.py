"""Speed of the analytical backend beside the real binary: ``python -m benchmarks.analytical_speed``.

The workload is 32 layers of tensor parallelism: 64 compute nodes and 64 all-reduces a rank, one after another. The
binary's figures are as measured once (2 shared cores, ASTRA-sim 518bd513); with ORRERY_ASTRA_SIM naming a binary it is
run here as well. The file name of a congestion-unaware binary is expected.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from analytical.embedded import EmbeddedBackend, create
from converters.execution_graph import ABSENT, CollectiveType, ExecutionGraph, NodeType, NodeWork, RankGraph

LAYERS = 32
REFERENCE_S = {2: 0.021, 8: 0.045, 64: 1.09, 256: 23.7}
"""Seconds of the binary by ranks: Ring network, ring all-reduce, 1 chunk, start-up included."""

NETWORK = "topology: [ {topology} ]\nnpus_count: [ {npus} ]\nbandwidth: [ 50.0 ]\nlatency: [ 500.0 ]\n"
SYSTEM = json.dumps(
    {
        "scheduling-policy": "LIFO",
        "endpoint-delay": 10,
        "preferred-dataset-splits": 1,
        "local-mem-bw": 1600,
        "roofline-enabled": 1,
        "peak-perf": 1,
        "all-reduce-implementation": ["ring"],
    }
)
MEMORY = json.dumps({"memory-type": "NO_MEMORY_EXPANSION"})


def layers(npus: int, *, compute: int = 1, steps: int = 1, batches: int = 1, beside: bool = False) -> ExecutionGraph:
    """Return `LAYERS` layers of two all-reduces, each after `compute` compute nodes, for `npus` ranks as one.

    `batches`: so many sub-batches that wait for nothing of each other, their blocks alternating in the order of ids;
    `beside`: one more compute node that waits for the first, so that the graph is no chain.
    """
    block = [NodeType.COMP] * compute + [NodeType.COMM_COLL]
    kinds = np.array(block * (2 * LAYERS * batches) + [NodeType.COMP] * beside, dtype=np.int8)
    nodes = len(kinds)
    row = np.arange(nodes)
    first = row % len(block) == 0
    before = np.where(first, row - 1 - (batches - 1) * len(block), row - 1)
    if beside:
        before[-1] = 0
    waits = before >= 0
    communicates = kinds == NodeType.COMM_COLL
    ns = np.random.default_rng(0).integers(1_000, 90_000, (steps, nodes))
    absent = np.full(nodes, ABSENT)
    return ExecutionGraph(
        [
            RankGraph(
                ranks=tuple(range(npus)),
                names=("",),
                node_id=row,
                node_type=kinds,
                is_cpu_op=np.zeros(nodes, dtype=np.bool_),
                name=np.zeros(nodes, dtype=np.int32),
                duration_us=np.zeros(nodes, dtype=np.int64),
                work=NodeWork.by_node(
                    np.where(communicates, ABSENT, ns * 1000 + 500), np.where(communicates, ABSENT, [[1]])
                ),
                comm_type=np.where(communicates, CollectiveType.ALL_REDUCE, -1).astype(np.int8),
                comm_size=np.where(communicates, 1 << 20, ABSENT),
                comm_priority=absent,
                comm_tag=absent,
                comm_src_delta=absent,
                comm_dst_delta=absent,
                comm_group=np.zeros(nodes, dtype=np.int32),
                involved_dims=absent,
                dep_offsets=np.concatenate(([0], np.cumsum(waits))),
                dep_index=before[waits],
            )
        ]
    )


def backend(npus: int, topology: str = "Ring") -> EmbeddedBackend:
    """Return a backend of `npus` NPUs."""
    network = NETWORK.format(topology=topology, npus=npus)
    return create(network=network, system=SYSTEM, memory=MEMORY, options={})


def seconds(action: Callable[[], object], repeats: int = 1) -> float:
    """Return the best time of `repeats` calls."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def through_files(npus: int, folder: Path) -> tuple[float, float | None]:
    """Return the seconds of our command and, where one is named, of the binary, on the same files."""
    from benchmarks.graph_files import write_files

    arguments = write_files({2: "two", 64: "ring"}[npus], folder)

    def run(program: list[str]) -> float:
        environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
        return seconds(
            lambda: subprocess.run([*program, *arguments], cwd=folder, check=True, capture_output=True, env=environment)
        )

    binary = os.environ.get("ORRERY_ASTRA_SIM")
    return run([sys.executable, "-m", "analytical"]), run([binary]) if binary else None


def main() -> None:
    """Print the figures."""
    backend(2).events.run_step(layers(2))  # loads what a run may never need, which is not what is measured
    print("event simulation (phases solved), against the binary's recorded seconds:")
    for npus, recorded in REFERENCE_S.items():
        graph = layers(npus)
        cold = seconds(lambda graph=graph, npus=npus: backend(npus).events.run_step(graph, solve=True))
        print(f"  {npus:5} ranks: {cold:8.3f} s   binary {recorded:7.3f} s   ratio {recorded / cold:6.1f}")
    for npus in (8, 64):
        graph = layers(npus)
        messages = seconds(lambda graph=graph, npus=npus: backend(npus).events.run_step(graph, solve=False))
        print(f"  {npus:5} ranks, message by message: {messages:8.3f} s")

    print("the command on files, start-up and reading included:")
    for npus in (2, 64):
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = through_files(npus, Path(folder))
            beside = "" if theirs is None else f"   binary here {theirs:7.3f} s   ratio {theirs / ours:5.2f}"
            print(f"  {npus:5} ranks: {ours:8.3f} s{beside}")

    print("the embedded backend (chains), an iteration of k steps:")
    for npus, compute, steps in ((16, 5, 1), (16, 5, 50), (16, 45, 50), (2048, 5, 1)):
        graph, engine = layers(npus, compute=compute, steps=steps), backend(npus, "Switch")
        cold = seconds(lambda graph=graph, engine=engine: engine.simulate(graph))
        warm = seconds(lambda graph=graph, engine=engine: engine.simulate(graph), repeats=30)
        nodes = graph.rank_graphs[0].nodes
        print(
            f"  {npus:5} ranks x {nodes:5} nodes x k={steps:2}: first {cold * 1e3:8.2f} ms, then {warm * 1e3:6.3f} ms"
        )
    print("graphs that are no chains, beside a chain of as many nodes a rank:")
    for name, npus, more in (("a node beside the chain", 8, {"beside": True}), ("two sub-batches", 4, {"batches": 2})):
        for steps in (1, 50):
            compare(name, npus, steps, more)


def compare(name: str, npus: int, steps: int, more: dict[str, Any]) -> None:
    """Print what a graph that is no chain costs: by its order, by the event queue, and as multiples of a chain."""
    graph, engine = layers(npus, compute=5, steps=steps, **more), backend(npus, "Switch")
    chain = layers(npus, compute=5 * more.get("batches", 1), steps=steps)
    engine.simulate(chain)
    usual = seconds(lambda: engine.simulate(chain), repeats=50)
    cold = seconds(lambda: engine.simulate(graph))
    warm = seconds(lambda: engine.simulate(graph), repeats=50)
    events = seconds(lambda: engine.events.run_step(graph), repeats=3)
    print(
        f"  {name}, {npus} ranks x {graph.rank_graphs[0].nodes} nodes x k={steps:2}: first {cold * 1e3:6.2f} ms, then "
        f"{warm * 1e3:6.3f} ms = {warm / usual:5.1f} chains of {usual * 1e3:5.3f} ms (one step by events: "
        f"{events * 1e3:6.1f} ms = {events / usual:5.0f} chains)"
    )


if __name__ == "__main__":
    main()
