"""The execution graph every backend simulates, as columns, and the answer a backend gives.

An `ExecutionGraph` is what a set of Chakra ``PREFIX.<rank>.et`` files says, less what no simulator reads. It is
always simulated alone, from t = 0, on an idle network.

Ranks that run the same nodes share one `RankGraph`. Peers of SEND and RECV are stored relative to the rank
(``comm_dst_delta = dst - rank``), so that the ranks of a pipeline stage, each sending to the rank `tp` further on,
are still the same graph.

Attributes are Chakra's: a COMP node carries `num_ops` (FLOPs) and `tensor_size` (bytes), from which the backend's
roofline makes a duration. Exact nanoseconds are written as ``num_ops = 1000 * ns + 500`` and ``tensor_size = 1``
for a system with ``peak-perf: 1``: trunc((1000 ns + 500) / 1e12 * 1e9) = ns on the unmodified binary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass

IntArray = NDArray[np.int64]

ABSENT = np.iinfo(np.int64).min
"""Marks an attribute that a node does not have (upstream has rules for absent ones)."""


class NodeType(IntEnum):
    """Chakra's node types (et_def.proto)."""

    INVALID = 0
    METADATA = 1
    MEM_LOAD = 2
    MEM_STORE = 3
    COMP = 4
    COMM_SEND = 5
    COMM_RECV = 6
    COMM_COLL = 7


class CollectiveType(IntEnum):
    """Chakra's collective types (et_def.proto), the values of the `comm_type` attribute."""

    ALL_REDUCE = 0
    REDUCE = 1
    ALL_GATHER = 2
    GATHER = 3
    SCATTER = 4
    BROADCAST = 5
    ALL_TO_ALL = 6
    REDUCE_SCATTER = 7
    REDUCE_SCATTER_BLOCK = 8
    BARRIER = 9


@dataclass(frozen=True, slots=True, eq=False)
class NodeWork:
    """What nodes compute or move at each of `k` steps. Nodes alike in it, as those of like layers, share a column.

    - `column` ``[n]``: which of the `m` columns of the other two each node has;
    - `num_ops` ``[k, m]``: FLOPs of COMP;
    - `tensor_size` ``[k, m]``, or ``[1, m]`` where steps do not differ: bytes of COMP, MEM_LOAD and MEM_STORE.
    """

    column: IntArray
    num_ops: IntArray
    tensor_size: IntArray

    @classmethod
    def by_node(cls, num_ops: IntArray, tensor_size: IntArray) -> NodeWork:
        """Return the work of nodes that share nothing: ``[k, n]`` each."""
        return cls(np.arange(num_ops.shape[1]), num_ops, tensor_size)

    @property
    def steps(self) -> int:
        """`k`."""
        return int(self.num_ops.shape[0])

    def at(self, step: int) -> tuple[IntArray, IntArray]:
        """Return operations and bytes of every node at one step, ``[n]`` each."""
        sizes = self.tensor_size[step if len(self.tensor_size) > 1 else 0]
        return self.num_ops[step, self.column], sizes[self.column]

    def of_steps(self, steps: IntArray | slice) -> NodeWork:
        """Return the work at some of the steps."""
        sizes = self.tensor_size[steps] if len(self.tensor_size) > 1 else self.tensor_size
        return NodeWork(self.column, self.num_ops[steps], sizes)

    def of_nodes(self, nodes: NDArray[np.bool_]) -> NodeWork:
        """Return the work of some of the nodes."""
        return NodeWork(self.column[nodes], self.num_ops, self.tensor_size)

    def with_nodes(self, count: int, num_ops: int, tensor_size: int) -> NodeWork:
        """Return the work with that of `count` like nodes behind it."""
        last = np.full(count, self.num_ops.shape[1])
        ops, size = (
            np.pad(table, ((0, 0), (0, 1)), constant_values=value)
            for table, value in ((self.num_ops, num_ops), (self.tensor_size, tensor_size))
        )
        return NodeWork(np.append(self.column, last), ops, size)


@dataclass(slots=True, eq=False)
class RankGraph:
    """The nodes that every rank of `ranks` runs, in file order. ``n`` nodes, ``k`` steps.

    Columns of shape ``[n]`` unless said otherwise; `ABSENT` where a node lacks the attribute:

    - `node_id`: unique within the rank; issue order among ready nodes is ascending id.
    - `node_type` (`NodeType`), `is_cpu_op` (bool), `name` (index into `names`).
    - `duration_us`: Chakra's ``duration_micros`` (used where the roofline is off).
    - `work`: FLOPs and bytes of COMP, bytes of MEM_LOAD and MEM_STORE, whose columns are laid out node by node by
      `num_ops` ``[k, n]`` and `tensor_size` ``[k, n]``.
    - `comm_type` (`CollectiveType`), `comm_size` (bytes), `comm_priority`, `comm_tag`.
    - `comm_src_delta`, `comm_dst_delta`: peer rank minus own rank.
    - `comm_group`: id of the communicator group (`ExecutionGraph.groups`), 0 for all ranks.
    - `involved_dims`: bit d set where network dimension d takes part; `ABSENT` means all.
    - `dep_offsets` ``[n + 1]``, `dep_index`: **row positions** (not ids) of the nodes that node i waits for, data and
      control dependencies together: ``dep_index[dep_offsets[i]:dep_offsets[i + 1]]``.
    """

    ranks: tuple[int, ...]
    names: tuple[str, ...]
    node_id: IntArray
    node_type: NDArray[np.int8]
    is_cpu_op: NDArray[np.bool_]
    name: NDArray[np.int32]
    duration_us: IntArray
    work: NodeWork
    comm_type: NDArray[np.int8]
    """-1 where absent."""
    comm_size: IntArray
    comm_priority: IntArray
    comm_tag: IntArray
    comm_src_delta: IntArray
    comm_dst_delta: IntArray
    comm_group: NDArray[np.int32]
    involved_dims: IntArray
    dep_offsets: IntArray
    dep_index: IntArray
    annotations: dict[str, IntArray] = field(default_factory=dict)
    """Attributes of our own (``orrery.*``, see docs/chakra.md), ``[n]`` or ``[k, n]``; no simulator reads them."""

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return int(self.node_id.shape[0])

    @property
    def steps(self) -> int:
        """Number of like iterations the graph stands for."""
        return self.work.steps

    @property
    def num_ops(self) -> IntArray:
        """FLOPs of every node, ``[k, n]``; laid out anew at every call, as the next (`work.at` has one step)."""
        return self.work.num_ops[:, self.work.column]

    @property
    def tensor_size(self) -> IntArray:
        """Bytes of every node, ``[k, n]``."""
        sizes = self.work.tensor_size[:, self.work.column]
        return np.broadcast_to(sizes, (self.steps, sizes.shape[1]))

    def dependencies(self, row: int) -> IntArray:
        """Return the row positions that `row` waits for."""
        return self.dep_index[self.dep_offsets[row] : self.dep_offsets[row + 1]]


@dataclass(slots=True, eq=False)
class ExecutionGraph:
    """One graph over ranks ``0 .. num_ranks - 1``; `groups`: communicator id (>= 1) -> its ranks in ring order."""

    rank_graphs: list[RankGraph]
    groups: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""
        return sum(len(graph.ranks) for graph in self.rank_graphs)

    @property
    def steps(self) -> int:
        """Number of like iterations the graph stands for."""
        return self.rank_graphs[0].steps

    def by_rank(self) -> Iterator[tuple[int, RankGraph]]:
        """Yield each rank and its nodes, in rank order."""
        pairs = [(rank, graph) for graph in self.rank_graphs for rank in graph.ranks]
        return iter(sorted(pairs, key=lambda pair: pair[0]))


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One node (or collective phase) on one rank's timeline, in ns from the start of the graph."""

    rank: int
    track: str
    """``comp``, ``comm``, ``cpu`` or ``recv``: the resource that it occupied."""
    name: str
    node_id: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class IterationResult:
    """What a backend answers: per rank set, when its last node ended and how much of that was not GPU compute.

    `finish_ns` and `exposed_ns` have shape ``[steps, len(rank_sets)]``. `exposed_ns` is ASTRA-sim's "exposed
    communication": finish less the GPU compute time, so it holds idle time and memory traffic too.
    """

    rank_sets: tuple[tuple[int, ...], ...]
    finish_ns: IntArray
    exposed_ns: IntArray
    timeline: tuple[TimelineEvent, ...] = ()

    @property
    def makespan_ns(self) -> IntArray:
        """When the last rank finished, shape ``[steps]``."""
        result: IntArray = self.finish_ns.max(axis=1)
        return result

    def by_rank(self) -> dict[int, tuple[int, int]]:
        """Return ``{rank: (finish, exposed)}`` of the first step, in rank order."""
        pairs = {
            rank: (int(self.finish_ns[0, column]), int(self.exposed_ns[0, column]))
            for column, ranks in enumerate(self.rank_sets)
            for rank in ranks
        }
        return dict(sorted(pairs.items()))
