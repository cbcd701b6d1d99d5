"""Random cases of every node type, topology, algorithm, policy, group and chunking: one seed, one case.

Cases are of two kinds. Any case may hold what ASTRA-sim stumbles over (groups that only some ranks are in, messages
that nobody waits for, algorithms that do not fit). A `sound` case is known to complete, so that a test which compares
two ways of simulating it has something to compare; `chainable` ones are sound and of chains whose durations do not
depend on what ran before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from analytical_cases import Description

CLOSING = 900
"""Node id from which sound cases number their closing nodes."""

LOADS = 1000
"""Node id from which `chained` numbers its loads."""


class CaseMaker:
    """Makes the case of one seed."""

    def __init__(
        self, seed: int, *, dims: int = 4, aware: bool = False, sound: bool = False, chainable: bool = False
    ) -> None:
        self.random = random.Random(seed)
        self.aware = aware
        self.sound = sound or chainable
        self.chainable = chainable
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
            "num_queues_per_dim": "1" if self.chainable else pick(["1", "1", "1", "2", "3", "4"]),
            "injection_scale": pick(["1", "1", "1", "2.5"]),
            "rendezvous_protocol": "false" if self.chainable else pick(["false", "false", "false", "true"]),
        }

    def _groups(self) -> dict[int, list[int]]:
        groups: dict[int, list[int]] = {}
        self.partition = self.sound or self.random.random() < 0.7
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
        if self.chainable:
            kind = "PER_NPU_MEMORY_EXPANSION"
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
        if self.random.random() < 0.05 and not self.chainable:
            system["replay-only"] = 1
        if self.random.random() < 0.1 and not self.chainable:
            system |= {"model-shared-bus": 1, "L": pick([0, 5, 40]), "o": pick([1, 3]), "g": pick([0, 2, 20])}
            system |= {"G": pick([0, 0.01, 0.5]), "local-reduction-delay": pick([1, 2])}
        for name in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all"):
            system[f"{name}-implementation"] = self._algorithms(name)
        return system

    def _algorithms(self, collective: str) -> list[str]:
        row: list[str] = []
        shorter = not self.sound and self.random.random() < 0.1
        for count in self.counts[: self.random.randint(1, self.dims) if shorter else self.dims]:
            whole = self._whole(collective, first=not row)
            if whole and self.random.random() < 0.08:
                return [*row, self.random.choice(whole)]
            row.append(self.random.choice(self._names(collective, count, shorter)))
        return row

    def _names(self, collective: str, count: int, shorter: bool) -> list[str]:
        """Return the algorithms that a dimension of `count` NPUs may run."""
        names = ["ring", "ring", "direct", f"direct{self.random.randint(1, 4)}"]
        power = count & (count - 1) == 0
        if power or (not self.sound and self.random.random() < 0.1):
            names += ["halvingDoubling"] * (collective != "all-to-all" and self._halves_in_groups())
        if power and not self.chainable and not (self.sound and self.groups and self.dims == 1):
            names += ["doubleBinaryTree"] * (collective == "all-reduce" and not shorter)
        return names

    def _halves_in_groups(self) -> bool:
        """Whether halvingDoubling ends in the groups too, to which the sole entry of a list applies."""
        sizes = {len(ranks) for ranks in self.groups.values()}
        return not self.sound or self.dims > 1 or all(size & (size - 1) == 0 for size in sizes)

    def _whole(self, collective: str, *, first: bool) -> list[str]:
        """Return the algorithms over all NPUs that may come now; sound ones come alone, for small sizes go to 0."""
        if self.chainable or (self.sound and not first):
            return []
        names = ["oneRing", "oneDirect", "oneDirect2"]
        if self.npus & (self.npus - 1) == 0 and collective != "all-to-all" and not (self.sound and self.groups):
            names.append("oneHalvingDoubling")
        return names

    def _ranks(self) -> list[list[dict[str, Any]]]:
        self.nodes: list[list[dict[str, Any]]] = [[] for _ in range(self.npus)]
        self.last: list[int | None] = [None] * self.npus
        self.chained = self.sound or self.random.random() < 0.9
        self.ids = [self._id_sequence() for _ in range(self.npus)]
        common = self._id_sequence()
        if self.random.random() < 0.7:
            self.ids = [iter(list(common)) for common in [list(common)] for _ in range(self.npus)]
        if self.sound:
            self._opening()
        for tag in range(self.random.randint(1, 14)):
            self._action(tag)
        for rank, nodes in enumerate(self.nodes):
            if self.sound:
                self._close(rank)
            elif not nodes:
                self._compute(rank)
        return self.nodes

    def _opening(self) -> None:
        """Begin with compute of at least 1 ns, for nothing may take 0 ns at t = 0."""
        ops = self.random.randint(10**7, 10**10)
        for rank in range(self.npus):
            self._add(rank, {"type": "COMP", "num_ops": ops, "tensor_size": 1, "duration_us": 1}, chain=True)

    def _close(self, rank: int) -> None:
        """End with compute, for a rank that holds memory nodes may not end with a message."""
        awaited = {parent for node in self.nodes[rank] for parent in node["deps"]}
        sinks = [node["id"] for node in self.nodes[rank] if node["id"] not in awaited]
        node = {"id": CLOSING, "type": "COMP", "num_ops": 10**7, "tensor_size": 1, "deps": sinks}
        self.nodes[rank].append(node)

    def _id_sequence(self) -> Iterator[int]:
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
        elif roll < 0.67 and not self.sound:
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
        if source.random() < 0.02 and not self.sound:
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
        if self.sound and kind == "ALL_REDUCE":
            node["comm_size"] = max(node["comm_size"], 1000)  # halvingDoubling cuts small chunks to nothing
        whole = any(name.startswith("one") for row in self.system.values() if isinstance(row, list) for name in row)
        if not group and self.random.random() < 0.15 and not (self.sound and whole):
            node["involved_dims"] = self.random.randint(1, (1 << self.dims) - 1)
        for chosen, ranks in members.items():
            for rank in ranks:
                self._add(rank, {**node, "group": chosen}, chain=self.chained or self.random.random() < 0.9)

    def _message(self, tag: int) -> None:
        src, dst = self.random.sample(range(self.npus), 2)
        node = {"comm_tag": tag % 3, "comm_size": self.random.choice([1, 1000, 65536, 1 << 20])}
        self._add(src, {"type": "COMM_SEND", "comm_dst": dst, **node}, chain=True)
        if self.sound or self.random.random() < 0.98:
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
        if self.sound and earlier:
            deps.add(earlier[0])  # the opening node
        node["deps"] = sorted(deps)
        self.nodes[rank].append(node)


def random_case(seed: int, *, aware: bool = False) -> Description:
    """The random case of `seed`, sound or not."""
    return CaseMaker(seed, aware=aware).case()


def sound_case(seed: int, *, aware: bool = False) -> Description:
    """A case that completes."""
    return CaseMaker(seed, aware=aware, sound=True).case()


def solvable_case(seed: int) -> Description:
    """A case that completes, and in which messages and packets pass each other."""
    return plain(sound_case(seed))


def chain_case(seed: int) -> Description:
    """A case of chains that completes, and whose collectives take what they take whatever ran before."""
    return chained(CaseMaker(seed, chainable=True).case(), loads=seed % 4)


def plain(case: Description) -> Description:
    """Make `case` one that phases may be solved for: messages and packets pass each other."""
    case["options"]["rendezvous_protocol"] = "false"
    case["system"].pop("model-shared-bus", None)
    case["memory"] = {"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 100, "remote-mem-bw": 25}
    return case


def chained(case: Description, loads: int = 0) -> Description:
    """Make every rank of `case` run its nodes one after another, behind `loads` loads that wait for nothing."""
    for nodes in case["ranks"]:
        for before, node in zip([None, *nodes[:-1]], nodes, strict=True):
            node["deps"] = [] if before is None else [before["id"]]
        ids = [LOADS + (7 * number) % 11 for number in range(loads)]
        nodes[0]["deps"] = ids
        nodes[:0] = [{"id": own, "type": "MEM_LOAD", "tensor_size": 100 * own, "deps": []} for own in ids]
    return case
