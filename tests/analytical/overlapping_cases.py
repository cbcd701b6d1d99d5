"""Cases of serving graphs that are no chains: sub-batches that alternate on a rank's slots, and pipelines of them.

All complete. Durations come in `steps` steps, each a little longer than the one before, as in steady decoding, or of
another size altogether.
"""

from __future__ import annotations

import random
from typing import Any

from analytical_cases import Description, Node


class GraphMaker:
    """Nodes of like ranks. `ids`: whether the ids of sub-batches alternate, follow each other, or are drawn."""

    def __init__(self, source: random.Random, steps: int, ids: str) -> None:
        self._source = source
        self._steps = steps
        self._ids = ids
        self._wild = source.random() < 0.3
        self._nodes: list[tuple[int, int, Node]] = []
        self.last: dict[int, int | None] = {}

    def add(self, batch: int, node: Node, *more: int) -> int:
        """Append a node to a sub-batch, behind its last one and others; return its place."""
        place = len(self._nodes)
        before = self.last.get(batch)
        waits = [*more, *([] if before is None else [before])]
        self._nodes.append((batch, place, {**node, "deps": waits}))
        self.last[batch] = place
        return place

    def compute(self, batch: int, *more: int) -> int:
        """Append compute of some microseconds."""
        low, high = (1, 40_000) if self._wild else (5_000, 30_000)
        first = self._source.randint(low, high)
        growth = self._source.choice([0, 1, 7, 200])
        ns = [self._source.randint(low, high) if self._wild else first + growth * step for step in range(self._steps)]
        return self.add(batch, {"type": "COMP", "tensor_size": 1, "num_ops": [1000 * one + 500 for one in ns]}, *more)

    def nodes(self) -> list[Node]:
        """Return the nodes, numbered."""
        order = list(range(len(self._nodes)))
        if self._ids == "follow":
            order.sort(key=lambda place: (self._nodes[place][0], place))
        elif self._ids == "drawn":
            self._source.shuffle(order)
        number = {place: at for at, place in enumerate(order)}
        found = [
            {**node, "id": number[place], "deps": sorted({number[parent] for parent in node["deps"]})}
            for _, place, node in self._nodes
        ]
        return sorted(found, key=lambda node: int(node["id"]))


def sub_batches(seed: int, *, steps: int) -> Description:
    """Tensor parallelism over all ranks, two or three sub-batches, perhaps of different sizes, loads and joints."""
    source = random.Random(seed)
    tp, batches, layers = source.choice([2, 4, 8]), source.choice([2, 2, 3]), source.randint(2, 5)
    maker = GraphMaker(source, steps, source.choice(["alternate", "follow", "drawn"]))
    sizes = [source.choice([70_000, 500_000, 3_000_001]) for _ in range(batches)]
    shape = [source.randint(1, 4) for _ in range(batches)]
    if source.random() < 0.3:
        for batch in range(batches):
            maker.add(batch, {"type": "MEM_LOAD", "tensor_size": source.randint(1, 10**6)})
    if source.random() < 0.5:
        first = maker.compute(batches)
        maker.last.update(dict.fromkeys(range(batches), first))
    for _ in range(layers):
        for batch in range(batches):
            for _ in range(shape[batch]):
                maker.compute(batch)
            kind = source.choice(["ALL_REDUCE", "ALL_REDUCE", "ALL_TO_ALL", "BROADCAST"])
            maker.add(batch, {"type": "COMM_COLL", "comm_type": kind, "comm_size": sizes[batch], "duration_us": 3})
        if source.random() < 0.3:
            joint = maker.compute(batches, *(last for last in maker.last.values() if last is not None))
            maker.last.update(dict.fromkeys(range(batches), joint))
    if source.random() < 0.5:
        maker.compute(batches, *(last for last in maker.last.values() if last is not None))
    case = _case(source, [tp])
    case["ranks"] = [maker.nodes()] * tp
    return case


def pipeline_of_batches(seed: int, *, steps: int) -> Description:
    """Two or three stages of tensor-parallel ranks; sub-batches go through them one behind the other.

    The stages are groups on one ring, whose ranks are not always in step, or a dimension of the network.
    """
    source = random.Random(seed)
    stages, tp, batches = source.choice([2, 3]), source.choice([2, 3, 4]), source.choice([2, 3])
    by_dimension = source.random() < 0.4
    case = _case(source, [tp, stages] if by_dimension else [tp * stages])
    ids = source.choice(["alternate", "follow", "drawn"])
    kind, layers = source.choice(["ALL_REDUCE", "ALL_GATHER", "REDUCE_SCATTER"]), source.randint(1, 3)
    same_tag, size = source.random() < 0.5, source.choice([4096, 2_000_000])
    if not by_dimension:
        case["groups"] = {str(stage + 1): list(range(stage * tp, (stage + 1) * tp)) for stage in range(stages)}
    for stage in range(stages):
        where: dict[str, Any] = {"involved_dims": 1} if by_dimension else {"group": stage + 1}
        maker = GraphMaker(source, steps, ids)
        for batch in range(batches):
            message = {"comm_tag": 0 if same_tag else batch, "comm_size": size}
            if stage:
                maker.add(batch, {"type": "COMM_RECV", "comm_src": -tp, **message})
            for _ in range(layers):
                maker.compute(batch)
                maker.add(batch, {"type": "COMM_COLL", "comm_type": kind, "comm_size": 70_000, **where})
            maker.compute(batch)
            if stage + 1 < stages:
                maker.add(batch, {"type": "COMM_SEND", "comm_dst": tp, **message})
        for rank in range(stage * tp, (stage + 1) * tp):
            case["ranks"].append([_moved(node, rank) for node in maker.nodes()])
    return case


def _moved(node: Node, rank: int) -> Node:
    """Return a node with its peer as a rank, not as a distance."""
    return node | {end: node[end] + rank for end in ("comm_src", "comm_dst") if end in node}


def _case(source: random.Random, counts: list[int]) -> Description:
    algorithm = source.choice(["ring", "direct"])
    return {
        "network": {
            "topology": [source.choice(["Ring", "Switch", "FullyConnected"]) for _ in counts],
            "npus_count": counts,
            "bandwidth": [source.choice([50, 400]) for _ in counts],
            "latency": [source.choice([500, 900.5]) for _ in counts],
        },
        "system": {
            "scheduling-policy": source.choice(["LIFO", "FIFO"]),
            "collective-optimization": source.choice(["baseline", "localBWAware"]),
            "preferred-dataset-splits": source.choice([1, 1, 3]),
            "active-chunks-per-dimension": source.choice([1, 2]),
            "local-mem-bw": 1600,
            "peak-perf": 1,
            "roofline-enabled": 1,
            **{
                f"{name}-implementation": [algorithm] * len(counts)
                for name in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
            },
        },
        "memory": {"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 100, "remote-mem-bw": 25},
        "groups": {},
        "options": {},
        "ranks": [],
    }
