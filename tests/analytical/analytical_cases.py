"""Cases for the analytical backend: a small JSON description, and the graph and backend made from it.

A description has `network` (topology, npus_count, bandwidth, latency), `system`, `memory`, `groups`, `options` and
`ranks`: for each rank a list of nodes ``{"id", "type", "deps", ...}`` with Chakra's attribute names.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from analytical.embedded import EmbeddedBackend, create
from converters.chakra import write_graph
from converters.execution_graph import ABSENT, CollectiveType, ExecutionGraph, NodeType, NodeWork, RankGraph

Description = dict[str, Any]
Node = dict[str, Any]
ATTRIBUTES = ("comm_size", "comm_priority", "comm_tag", "involved_dims")


def network_text(case: Description) -> str:
    return "".join(f"{name}: {json.dumps(column)}\n" for name, column in case["network"].items())


def backend(case: Description, **options: str) -> EmbeddedBackend:
    return create(
        network=network_text(case),
        system=json.dumps(case["system"]),
        memory=json.dumps(case["memory"]),
        options={**case.get("options", {}), **options},
    )


def graph(case: Description) -> ExecutionGraph:
    """The case's execution graph; equal ranks share one RankGraph."""
    shared: dict[str, tuple[list[int], list[dict[str, Any]]]] = {}
    for rank, nodes in enumerate(case["ranks"]):
        relative = [_relative(node, rank) for node in nodes]
        shared.setdefault(json.dumps(relative), ([], relative))[0].append(rank)
    groups = {int(group): tuple(ranks) for group, ranks in case.get("groups", {}).items()}
    return ExecutionGraph([rank_graph(tuple(ranks), nodes) for ranks, nodes in shared.values()], groups)


def _relative(node: dict[str, Any], rank: int) -> dict[str, Any]:
    moved = dict(node)
    for end in ("comm_src", "comm_dst"):
        if end in moved:
            moved[end] -= rank
    return moved


def rank_graph(ranks: tuple[int, ...], nodes: list[dict[str, Any]]) -> RankGraph:
    """A RankGraph of nodes whose peers are relative to the rank; `num_ops` and `tensor_size` may be lists of steps."""
    position = {node["id"]: at for at, node in enumerate(nodes)}
    dependencies = [[position[parent] for parent in node.get("deps", [])] for node in nodes]
    steps = max((len(np.atleast_1d(node.get("num_ops", 0))) for node in nodes), default=1)

    def column(name: str, default: int = ABSENT) -> np.ndarray:
        return np.array([node.get(name, default) for node in nodes], dtype=np.int64)

    def stepped(name: str) -> np.ndarray:
        rows = [np.broadcast_to(np.atleast_1d(node.get(name, ABSENT)), (steps,)) for node in nodes]
        return np.array(rows, dtype=np.int64).T.reshape(steps, len(nodes)).copy()

    names = [node.get("name", "") for node in nodes]
    return RankGraph(
        ranks=ranks,
        names=tuple(dict.fromkeys(names)),
        node_id=column("id"),
        node_type=np.array([NodeType[node["type"]] for node in nodes], dtype=np.int8),
        is_cpu_op=np.array([node.get("is_cpu_op", False) for node in nodes], dtype=np.bool_),
        name=np.array([list(dict.fromkeys(names)).index(name) for name in names], dtype=np.int32),
        duration_us=column("duration_us", 0),
        work=NodeWork.by_node(stepped("num_ops"), stepped("tensor_size")),
        comm_type=np.array(
            [CollectiveType[node["comm_type"]] if "comm_type" in node else -1 for node in nodes], dtype=np.int8
        ),
        comm_src_delta=column("comm_src"),
        comm_dst_delta=column("comm_dst"),
        comm_group=column("group", 0).astype(np.int32),
        dep_offsets=np.cumsum([0, *map(len, dependencies)], dtype=np.int64),
        dep_index=np.array([at for parents in dependencies for at in parents], dtype=np.int64),
        **{name: column(name) for name in ATTRIBUTES},
    )


def longer(work: NodeWork, num_ops: int) -> NodeWork:
    """Return `work` with `num_ops` more operations for every node that has any."""
    return replace(work, num_ops=np.where(work.num_ops > 0, work.num_ops + num_ops, work.num_ops))


def sharing(graph: ExecutionGraph) -> ExecutionGraph:
    """Return `graph` with one table of work for all ranks, and a column of it for all nodes alike."""
    tables = [np.stack((one.num_ops, one.tensor_size), axis=1) for one in graph.rank_graphs]
    distinct, columns = np.unique(np.concatenate(tables, axis=2), axis=2, return_inverse=True)
    num_ops, tensor_size = distinct[:, 0].copy(), distinct[:, 1].copy()
    parts = np.split(columns.reshape(-1), np.cumsum([one.nodes for one in graph.rank_graphs])[:-1])
    ranks = [
        replace(one, work=NodeWork(part, num_ops, tensor_size))
        for one, part in zip(graph.rank_graphs, parts, strict=True)
    ]
    return ExecutionGraph(ranks, graph.groups)


COLLECTIVE: Node = {"id": 1, "type": "COMM_COLL", "comm_type": "ALL_REDUCE", "comm_size": 4096, "deps": [0]}
COMPUTE: Node = {"id": 0, "type": "COMP", "num_ops": 5500, "tensor_size": 1, "deps": []}


def healthy() -> Description:
    """Four ranks: a compute node and an all-reduce."""
    return {
        "network": {"topology": ["Switch"], "npus_count": [4], "bandwidth": [50], "latency": [500]},
        "system": {
            "scheduling-policy": "LIFO",
            "preferred-dataset-splits": 2,
            "local-mem-bw": 1600,
            "peak-perf": 1,
            "roofline-enabled": 1,
            **{f"{name}-implementation": ["ring"] for name in ("all-reduce", "all-gather", "all-to-all")},
        },
        "memory": {"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-bw": 25, "remote-mem-latency": 100},
        "groups": {},
        "options": {},
        "ranks": [[dict(COMPUTE), dict(COLLECTIVE)] for _ in range(4)],
    }


def files(case: Description, folder: Path) -> list[str]:
    """Write `case` and return the command's arguments."""
    write_graph(graph(case), folder / "trace")
    (folder / "network.yml").write_text(network_text(case))
    (folder / "system.json").write_text(json.dumps(case["system"], indent=1))
    (folder / "memory.json").write_text(json.dumps(case["memory"]))
    return [
        f"--workload-configuration={folder / 'trace'}",
        f"--network-configuration={folder / 'network.yml'}",
        f"--system-configuration={folder / 'system.json'}",
        f"--remote-memory-configuration={folder / 'memory.json'}",
    ]
