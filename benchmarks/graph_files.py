"""Graphs on disk for the embedded backend as a command: what `python -m benchmarks` measures beside whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.analytical_speed import MEMORY, NETWORK, SYSTEM, layers
from converters.chakra import write_graph
from converters.execution_graph import ABSENT, ExecutionGraph, NodeType, NodeWork, RankGraph

DAG_RANKS, DAG_NODES = 64, 5_000


def dag() -> ExecutionGraph:
    """Return graphs of compute nodes, each of which waits for two of the twenty before it; ranks differ in times."""
    draw = np.random.default_rng(0)
    row = np.arange(DAG_NODES)
    waits = [sorted({max(0, at - int(back)) for back in draw.integers(1, 20, 2)}) if at else [] for at in row.tolist()]
    counts = np.array([len(one) for one in waits])
    absent = np.full(DAG_NODES, ABSENT)
    ns = draw.integers(1_000, 90_000, (DAG_RANKS, 1, DAG_NODES))
    return ExecutionGraph(
        [
            RankGraph(
                ranks=(rank,),
                names=("",),
                node_id=row,
                node_type=np.full(DAG_NODES, NodeType.COMP, dtype=np.int8),
                is_cpu_op=np.zeros(DAG_NODES, dtype=np.bool_),
                name=np.zeros(DAG_NODES, dtype=np.int32),
                duration_us=np.zeros(DAG_NODES, dtype=np.int64),
                work=NodeWork.by_node(ns[rank] * 1000 + 500, np.ones_like(ns[rank])),
                comm_type=np.full(DAG_NODES, -1, dtype=np.int8),
                comm_size=absent,
                comm_priority=absent,
                comm_tag=absent,
                comm_src_delta=absent,
                comm_dst_delta=absent,
                comm_group=np.zeros(DAG_NODES, dtype=np.int32),
                involved_dims=absent,
                dep_offsets=np.concatenate(([0], np.cumsum(counts))),
                dep_index=np.array([before for one in waits for before in one], dtype=np.int64),
            )
            for rank in range(DAG_RANKS)
        ]
    )


GRAPHS: dict[str, tuple[int, Callable[[], ExecutionGraph]]] = {
    "two": (2, lambda: layers(2)),
    "ring": (64, lambda: layers(64)),
    "dag": (DAG_RANKS, dag),
}
"""Ranks, and what makes the graph, by name."""


def write_files(name: str, folder: Path) -> list[str]:
    """Write the graph called `name` with its configurations into `folder`; return flags of `python -m analytical`."""
    ranks, make = GRAPHS[name]
    write_graph(make(), folder / "trace")
    (folder / "network.yml").write_text(NETWORK.format(topology="Ring", npus=ranks))
    (folder / "system.json").write_text(SYSTEM)
    (folder / "memory.json").write_text(MEMORY)
    return [
        f"--workload-configuration={folder / 'trace'}",
        f"--network-configuration={folder / 'network.yml'}",
        f"--system-configuration={folder / 'system.json'}",
        f"--remote-memory-configuration={folder / 'memory.json'}",
    ]
