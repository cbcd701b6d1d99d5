"""Small execution graphs and configuration files for the tests of external backends."""

import json
from typing import Any

import numpy as np

from converters.execution_graph import ABSENT, ExecutionGraph, NodeType, NodeWork, RankGraph

MEMORY = '{"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 100, "remote-mem-bw": 50}'


def network(npus: int, topology: str = "Ring", latency: float = 500.0) -> str:
    return f"topology: [ {topology} ]\nnpus_count: [ {npus} ]\nbandwidth: [ 50.0 ]\nlatency: [ {latency} ]\n"


def system(**changes: Any) -> str:
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    settings = {
        "scheduling-policy": "LIFO",
        "collective-optimization": "baseline",
        "endpoint-delay": 10,
        "active-chunks-per-dimension": 1,
        "preferred-dataset-splits": 1,
        "local-mem-bw": 1600,
        "roofline-enabled": 1,
        "peak-perf": 1,
        **{f"{kind}-implementation": ["ring"] for kind in kinds},
    }
    return json.dumps(settings | {name.replace("_", "-"): value for name, value in changes.items()})


def configuration(npus: int = 2, **changes: Any) -> dict[str, str]:
    """The three files as keyword arguments of a backend factory."""
    return {"network": network(npus), "system": system(**changes), "memory": MEMORY}


def compute(ns: int, **more: Any) -> dict[str, Any]:
    return {"type": NodeType.COMP, "ns": ns, **more}


def load(size: int, **more: Any) -> dict[str, Any]:
    return {"type": NodeType.MEM_LOAD, "tensor_size": size, **more}


def collective(kind: int, size: int, **more: Any) -> dict[str, Any]:
    return {"type": NodeType.COMM_COLL, "comm_type": kind, "comm_size": size, **more}


def send(by: int, size: int, tag: int = 1, **more: Any) -> dict[str, Any]:
    peers = {"comm_src_delta": 0, "comm_dst_delta": by}
    return {"type": NodeType.COMM_SEND, "comm_size": size, "comm_tag": tag, **peers, **more}


def receive(by: int, size: int, tag: int = 1, **more: Any) -> dict[str, Any]:
    peers = {"comm_src_delta": -by, "comm_dst_delta": 0}
    return {"type": NodeType.COMM_RECV, "comm_size": size, "comm_tag": tag, **peers, **more}


def rank_graph(ranks: tuple[int, ...], nodes: list[dict[str, Any]], steps: int = 1) -> RankGraph:
    """Nodes in a chain, unless a node names its `deps` (rows); step k adds k ns to every compute node."""
    count = len(nodes)
    offsets, index = [0], []
    for row, node in enumerate(nodes):
        index += node.get("deps", [row - 1] if row else [])
        offsets.append(len(index))

    def column(name: str, default: int = ABSENT, dtype: Any = np.int64) -> Any:
        return np.array([node.get(name, default) for node in nodes], dtype)

    def operations(step: int) -> list[int]:
        return [1000 * (node["ns"] + step) + 500 if "ns" in node else ABSENT for node in nodes]

    sizes = [1 if "ns" in node else node.get("tensor_size", ABSENT) for node in nodes]
    return RankGraph(
        ranks=ranks,
        names=("node",),
        node_id=column("id") if any("id" in node for node in nodes) else np.arange(count, dtype=np.int64),
        node_type=np.array([node["type"] for node in nodes], np.int8),
        is_cpu_op=np.array([node.get("cpu", False) for node in nodes], np.bool_),
        name=np.zeros(count, np.int32),
        duration_us=column("duration_us", 0),
        work=NodeWork.by_node(
            np.array([operations(step) for step in range(steps)], np.int64).reshape(steps, count),
            np.array([sizes] * steps, np.int64).reshape(steps, count),
        ),
        comm_type=column("comm_type", -1, np.int8),
        comm_size=column("comm_size"),
        comm_priority=column("comm_priority"),
        comm_tag=column("comm_tag"),
        comm_src_delta=column("comm_src_delta"),
        comm_dst_delta=column("comm_dst_delta"),
        comm_group=column("comm_group", 0, np.int32),
        involved_dims=column("involved_dims"),
        dep_offsets=np.array(offsets, np.int64),
        dep_index=np.array(index, np.int64),
    )


def tensor_parallel(ranks: int = 2, steps: int = 1, ns: int = 1000) -> ExecutionGraph:
    """Compute and all-reduce, as TP does it."""
    nodes = [compute(ns), collective(0, 1 << 20), compute(5)]
    return ExecutionGraph([rank_graph(tuple(range(ranks)), nodes, steps)])


def pipeline(ns: int = 100) -> ExecutionGraph:
    """Two stages, the first of which loads KV blocks before it computes and sends."""
    first = rank_graph((0,), [load(5000), compute(ns), send(1, 4096), compute(0)])
    second = rank_graph((1,), [receive(1, 4096), load(500), compute(7)])
    return ExecutionGraph([first, second])
