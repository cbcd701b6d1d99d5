"""Cases for the analytical backend: a small JSON description, the graph made from it, and a generator of random ones.

A description has `network` (topology, npus_count, bandwidth, latency), `system`, `memory`, `groups`, `options` and
`ranks`: for each rank a list of nodes ``{"id", "type", "deps", ...}`` with Chakra's attribute names.
"""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np

from analytical.backend import EmbeddedBackend, create
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


class CaseMaker:
    """Random cases of every node type, topology, algorithm, policy, group and chunking; one seed, one case."""

    def __init__(self, seed: int, *, dims: int = 4, aware: bool = False) -> None:
        self.random = random.Random(seed)
        self.aware = aware
        self.dims = 1 if aware else self.random.choice([1, 1, 1, 2, 2, 3, 4][: 3 + dims])
        sizes = {1: [2, 3, 4, 5, 6, 8], 2: [2, 3, 4], 3: [2, 2, 3], 4: [2]}[self.dims]
        self.counts = [self.random.choice(sizes) for _ in range(self.dims)]
        self.npus = int(np.prod(self.counts))

    def case(self) -> Description:
        pick = self.random.choice
        topology = [pick(["Ring", "FullyConnected", "Switch"]) for _ in self.counts]
        if self.aware and self.counts == [2]:
            topology = [pick(["FullyConnected", "Switch"])]
        self.groups = self._groups()
        self.memory = self._memory()
        self.system = self._system()
        return {
            "network": {
                "topology": topology,
                "npus_count": self.counts,
                "bandwidth": [pick([12.5, 25.0, 25.5, 50.0, 100.0, 112.5, 400.0]) for _ in self.counts],
                "latency": [pick([0.0, 1.0, 10.0, 50.0, 500.0, 500.5, 936.25]) for _ in self.counts],
            },
            "system": self.system,
            "memory": self.memory,
            "groups": {str(group): ranks for group, ranks in self.groups.items()},
            "options": self._options(),
            "ranks": self._ranks(),
        }

    def _options(self) -> dict[str, str]:
        pick = self.random.choice
        return {
            "num_queues_per_dim": pick(["1", "1", "1", "2", "3", "4"]),
            "injection_scale": pick(["1", "1", "1", "2.5"]),
            "rendezvous_protocol": pick(["false", "false", "false", "true"]),
        }

    def _groups(self) -> dict[int, list[int]]:
        groups: dict[int, list[int]] = {}
        self.partition = self.random.random() < 0.7
        ranks = list(range(self.npus))
        if self.partition:  # every rank in as many groups: collectives over all ranks still meet
            size = self.random.choice([size for size in range(2, self.npus + 1) if self.npus % size == 0])
            if self.random.random() < 0.5:
                self.random.shuffle(ranks)
            cuts = range(0, self.npus if self.random.random() < 0.7 else 0, size)
            return {cut // size + 1: ranks[cut : cut + size] for cut in cuts}
        for group in range(1, self.random.choice([0, 1, 2, 3]) + 1):
            self.random.shuffle(ranks)
            size = self.random.randint(2, self.npus)
            groups[group] = ranks[:size] if self.random.random() < 0.3 else sorted(ranks[:size])
        return groups

    def _memory(self) -> dict[str, Any]:
        pick = self.random.choice
        kind = pick(["NO_MEMORY_EXPANSION", "PER_NPU_MEMORY_EXPANSION", "PER_NODE_MEMORY_EXPANSION", "MEMORY_POOL"])
        each = pick([1, 2])
        return {
            "memory-type": kind,
            "remote-mem-latency": pick([0, 120, 200]),
            "remote-mem-bw": pick([1, 25, 40]),
            **({"num-nodes": self.npus, "num-npus-per-node": each} if "NODE" in kind else {}),
        }

    def _system(self) -> dict[str, Any]:
        pick = self.random.choice
        system: dict[str, Any] = {
            "scheduling-policy": pick(["LIFO", "FIFO", "EXPLICIT"]),
            "collective-optimization": pick(["localBWAware", "baseline"]),
            "active-chunks-per-dimension": pick([1, 1, 2, 3, 5]),
            "preferred-dataset-splits": pick([1, 1, 2, 3, 4, 7]),
            "local-mem-bw": pick([3, 100, 1600, 3350]),
            "peak-perf": pick([1, 900]),
            "roofline-enabled": pick([0, 1, 1, 1]),
        }
        if self.random.random() < 0.8:
            system["endpoint-delay"] = pick([1, 10, 10, 10, 37, 100])
        if self.random.random() < 0.05:
            system["replay-only"] = 1
        if self.random.random() < 0.1:
            system |= {"model-shared-bus": 1, "L": pick([0, 5, 40]), "o": pick([1, 3]), "g": pick([0, 2, 20])}
            system |= {"G": pick([0, 0.01, 0.5]), "local-reduction-delay": pick([1, 2])}
        for name in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all"):
            system[f"{name}-implementation"] = self._algorithms(name)
        return system

    def _algorithms(self, collective: str) -> list[str]:
        row = []
        shorter = self.random.random() < 0.1
        for count in self.counts[: self.random.randint(1, self.dims) if shorter else self.dims]:
            names = ["ring", "ring", "direct", f"direct{self.random.randint(1, 4)}"]
            if count & (count - 1) == 0 or self.random.random() < 0.1:
                names += ["halvingDoubling"] * (collective != "all-to-all")
            if count & (count - 1) == 0:
                names += ["doubleBinaryTree"] * (collective == "all-reduce" and not shorter)
            if self.random.random() < 0.08:
                whole = ["oneRing", "oneDirect", "oneDirect2"]
                if self.npus & (self.npus - 1) == 0 and collective != "all-to-all":
                    whole.append("oneHalvingDoubling")
                return [*row, self.random.choice(whole)]
            row.append(self.random.choice(names))
        return row

    def _ranks(self) -> list[list[dict[str, Any]]]:
        self.nodes: list[list[dict[str, Any]]] = [[] for _ in range(self.npus)]
        self.last: list[int | None] = [None] * self.npus
        self.chained = self.random.random() < 0.9
        self.ids = [self._id_sequence() for _ in range(self.npus)]
        common = self._id_sequence()
        if self.random.random() < 0.7:
            self.ids = [iter(list(common)) for common in [list(common)] for _ in range(self.npus)]
        for tag in range(self.random.randint(1, 14)):
            self._action(tag)
        for rank, nodes in enumerate(self.nodes):
            if not nodes:
                self._compute(rank)
        return self.nodes

    def _id_sequence(self) -> Any:
        ids = list(range(400))
        if self.random.random() < 0.3:
            self.random.shuffle(ids)
        return iter(ids)

    def _action(self, tag: int) -> None:
        roll = self.random.random()
        if roll < 0.4:
            self._collective()
        elif roll < 0.6:
            self._message(tag)
        elif roll < 0.65 and self.memory["memory-type"] != "NO_MEMORY_EXPANSION":
            self._memory_nodes()
        elif roll < 0.67:
            self._add(self.random.randrange(self.npus), {"type": "INVALID"}, chain=False)
        elif roll < 0.8:
            template = self.random.getrandbits(30)
            for rank in range(self.npus):  # the same compute everywhere
                self._compute(rank, random.Random(template))
        else:
            for rank in range(self.npus):
                if self.random.random() < 0.5:
                    self._compute(rank)

    def _compute(self, rank: int, source: random.Random | None = None) -> None:
        source = source or self.random
        node: dict[str, Any] = {"type": "COMP", "duration_us": source.choice([0, 0, 1, 3])}
        style = source.random()
        if style < 0.5:
            node |= {"num_ops": 1000 * source.choice([1, 9, 10, 20, 40, 521, 5000]) + 500, "tensor_size": 1}
        else:
            node |= {"num_ops": source.randint(10**6, 10**11), "tensor_size": source.randint(1, 10**6)}
        if source.random() < 0.02:
            node["tensor_size"] = 0
        if source.random() < 0.03:
            node["is_cpu_op"] = True
        self._add(rank, node, chain=source.random() < 0.5)

    def _collective(self) -> None:
        group = self.random.choice([0, 0, *self.groups])
        members = {group: self.groups[group] if group else list(range(self.npus))}
        if group and self.partition:
            members = self.groups
        kind = self.random.choice(["ALL_REDUCE", "ALL_REDUCE", "ALL_GATHER", "REDUCE_SCATTER", "ALL_TO_ALL"])
        if self.random.random() < 0.05:
            kind = "BROADCAST"
        node = {
            "type": "COMM_COLL",
            "comm_type": kind,
            "comm_size": self.random.choice([7, 100, 8192, 65536, 1 << 20, self.random.randint(1, 1 << 22)]),
            "group": group,
            "duration_us": self.random.choice([0, 2]),
            "comm_priority": self.random.randint(0, 3),
        }
        if not group and self.random.random() < 0.15:
            node["involved_dims"] = self.random.randint(1, (1 << self.dims) - 1)
        for chosen, ranks in members.items():
            for rank in ranks:
                self._add(rank, {**node, "group": chosen}, chain=self.chained or self.random.random() < 0.9)

    def _message(self, tag: int) -> None:
        src, dst = self.random.sample(range(self.npus), 2)
        node = {"comm_tag": tag % 3, "comm_size": self.random.choice([1, 1000, 65536, 1 << 20])}
        self._add(src, {"type": "COMM_SEND", "comm_dst": dst, **node}, chain=True)
        if self.random.random() < 0.98:
            self._add(dst, {"type": "COMM_RECV", "comm_src": src, **node}, chain=self.random.random() < 0.5)

    def _memory_nodes(self) -> None:
        for rank in range(self.npus):
            if self.random.random() < 0.7:
                kind = self.random.choice(["MEM_LOAD", "MEM_STORE"])
                self._add(rank, {"type": kind, "tensor_size": self.random.choice([0, 1000, 10**6])}, chain=True)

    def _add(self, rank: int, node: dict[str, Any], chain: bool) -> None:
        """Add a node; chained ones follow the rank's last chained node, so that ranks agree on the order."""
        node["id"] = next(self.ids[rank])
        earlier = [other["id"] for other in self.nodes[rank]]
        deps = set(self.random.sample(earlier, min(len(earlier), self.random.choice([0, 0, 1, 1, 2]))))
        if chain:
            if self.last[rank] is not None:
                deps.add(self.last[rank])
            self.last[rank] = node["id"]
        node["deps"] = sorted(deps)
        self.nodes[rank].append(node)


def random_case(seed: int, *, aware: bool = False) -> Description:
    """The random case of `seed`."""
    return CaseMaker(seed, aware=aware).case()
