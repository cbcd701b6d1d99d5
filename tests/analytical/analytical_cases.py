"""Cases for the analytical backend: a small JSON description, and the graph and backend made from it.

A description has `network` (topology, npus_count, bandwidth, latency), `system`, `memory`, `groups`, `options` and
`ranks`: for each rank a list of nodes ``{"id", "type", "deps", ...}`` with Chakra's attribute names.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from analytical.embedded import EmbeddedBackend, create
from converters.execution_graph import ABSENT, CollectiveType, ExecutionGraph, NodeType, RankGraph

Description = dict[str, Any]
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
        num_ops=stepped("num_ops"),
        tensor_size=stepped("tensor_size"),
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
