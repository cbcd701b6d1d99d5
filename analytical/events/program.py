"""A rank's graph made ready to run on one machine: nodes in order of id, kinds, runtimes, children.

Every rank of a `RankGraph` shares one `Program`. What ASTRA-sim would abort on or get stuck at is refused here or, if
it depends on the rank, in `validation`.
"""

from __future__ import annotations

from array import array
from enum import IntEnum

import numpy as np

from analytical.machine.compute import roofline_nodes, step_runtimes
from analytical.machine.limits import LONGEST_NS
from astra_files.system import SystemConfig
from converters.execution_graph import CollectiveType, IntArray, NodeType, RankGraph
from foundation.errors import SimulationError
from foundation.printable import shorten
from foundation.records import dataclass


class Task(IntEnum):
    """What issuing a node does."""

    RUN = 0
    """Occupies its slot for its runtime (a roofline COMP, or a replay)."""

    SKIP = 1
    """Ends at once; its children wait for the rank's next event (INVALID nodes, COMP without bytes)."""

    MEMORY = 2
    SEND = 3
    RECEIVE = 4
    COLLECTIVE = 5
    BROADCAST = 6
    """A collective that is only replayed: it takes its runtime and moves nothing."""


CPU, COMPUTE, COMMUNICATE, FREE = range(4)
"""The slots of an NPU, one node each at a time; receives need none (`FREE`)."""


@dataclass(slots=True, eq=False)
class Program:
    """Columns by row, rows in ascending node id, so that the lowest row is the lowest id; compact, as ranks may differ.

    ``order[row]`` is the node's position in the graph. `task` and `slot` are what issuing the node does and takes;
    `gpu` is 1 where the node's runtime counts as GPU time; ``children[child_offsets[i]:child_offsets[i + 1]]`` wait for
    row i, and `parents` says for how many each row waits.
    """

    graph: RankGraph
    order: IntArray
    task: bytes
    slot: bytes
    gpu: bytes
    parents: array[int]
    child_offsets: array[int]
    children: array[int]
    roots: list[int]
    untimed_row: int | None
    """The first row that ASTRA-sim's statistics cannot count: memory, INVALID or on the CPU."""

    @property
    def rows(self) -> int:
        """Number of nodes."""
        return len(self.task)

    def attribute(self, name: str, row: int) -> int:
        """Return a value of the graph's column `name`."""
        return int(getattr(self.graph, name)[self.order[row]])

    def runtime(self, step: int, system: SystemConfig) -> IntArray:
        """Return the ns of every row that has a runtime of its own, ``[n]``.

        Raises `SimulationError` for a node that takes longer than times are counted.
        """
        runtime = step_runtimes(self.graph, step, system)[self.order]
        if runtime.size and runtime.max() > LONGEST_NS:
            node = self.describe(int(runtime.argmax()))
            said = (
                f"rank {self.graph.ranks[0]}, {node}: it takes longer than 104 days; correct its work or the roofline"
            )
            raise SimulationError(said)
        return runtime.astype(np.int64)

    def size(self, step: int) -> IntArray:
        """Return the bytes that every row loads or stores, ``[n]``; empty if none does."""
        return self.graph.work.at(step)[1][self.order] if Task.MEMORY in self.task else self.order[:0]

    def describe(self, row: int) -> str:
        """Return how messages call a node: ``node 7 (name, COMM_COLL)``."""
        name = shorten(self.graph.names[self.attribute("name", row)])
        kind = NodeType(self.attribute("node_type", row)).name
        number = self.attribute("node_id", row)
        return f"node {number} ({name}, {kind})" if name else f"node {number} ({kind})"


def compile_graph(graph: RankGraph, system: SystemConfig) -> Program:
    """Return the program of `graph` under `system`."""
    order = np.argsort(graph.node_id, kind="stable")
    task = _tasks(graph, system)
    slot = np.full(graph.nodes, COMMUNICATE)
    slot[graph.node_type == NodeType.COMM_RECV] = FREE
    slot[graph.node_type == NodeType.COMP] = COMPUTE
    slot[graph.is_cpu_op] = CPU
    parents, offsets, children = _family(graph, order)
    counted = (task == Task.RUN) & ~graph.is_cpu_op
    untimed = np.flatnonzero((graph.is_cpu_op | (graph.node_type < NodeType.COMP))[order])
    return Program(
        graph=graph,
        order=order,
        task=task[order].astype(np.uint8).tobytes(),
        slot=slot[order].astype(np.uint8).tobytes(),
        gpu=counted[order].astype(np.uint8).tobytes(),
        parents=compact(parents),
        child_offsets=compact(offsets),
        children=compact(children),
        roots=np.flatnonzero(parents == 0).tolist(),
        untimed_row=int(untimed[0]) if untimed.size else None,
    )


def compact(values: IntArray) -> array[int]:
    """Return `values` as an array whose items are read fast one by one."""
    return array("q", values.astype(np.int64, copy=False).tobytes())


def _tasks(graph: RankGraph, system: SystemConfig) -> IntArray:
    task = np.full(graph.nodes, int(Task.RUN))
    if system.replay_only:
        return task
    kind = graph.node_type
    task[kind == NodeType.INVALID] = Task.SKIP
    task[(kind == NodeType.MEM_LOAD) | (kind == NodeType.MEM_STORE)] = Task.MEMORY
    task[kind == NodeType.COMM_SEND] = Task.SEND
    task[kind == NodeType.COMM_RECV] = Task.RECEIVE
    task[kind == NodeType.COMM_COLL] = Task.COLLECTIVE
    task[(kind == NodeType.COMM_COLL) & (graph.comm_type == CollectiveType.BROADCAST)] = Task.BROADCAST
    if system.roofline_enabled:
        task[roofline_nodes(graph, system) & (graph.work.at(0)[1] == 0)] = Task.SKIP
    return task


def _family(graph: RankGraph, order: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return (number of parents, child offsets, children) by row; a parent named twice counts, and ends, twice."""
    nodes = graph.nodes
    rank_of = np.empty(nodes, dtype=np.int64)
    rank_of[order] = np.arange(nodes)
    child = rank_of[np.repeat(np.arange(nodes), np.diff(graph.dep_offsets))]
    parent = rank_of[graph.dep_index]
    parent, child = np.divmod(np.sort(parent * nodes + child), max(nodes, 1))
    parents = np.bincount(child, minlength=nodes)
    offsets = np.concatenate(([0], np.cumsum(np.bincount(parent, minlength=nodes))))
    return parents, offsets, child
