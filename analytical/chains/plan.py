"""Graphs in which every rank runs one node after another: their order of evaluation does not depend on time.

In a chain a rank's slots, queues and ties decide nothing, so no event queue is needed: nodes are evaluated in the order
of their dependencies, for all steps at once and for all ranks of a `RankGraph` that are in step as one. A `ChainPlan`
is that order; it depends on the graph's structure only and is kept for graphs that bring new durations and sizes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from analytical.chains.meetings import Meeting, MeetingFinder
from analytical.chains.repeats import Repeat, find_repeats
from analytical.chains.stops import CollectiveStop, MessageStop, ReceiveStop, SoloRun, Stop
from analytical.chains.stretches import MOST_PIECES, OwnNodes, Shares, share_out
from analytical.machine.description import Machine
from analytical.machine.messages import WRAPPING_GROUPS, point_to_point_tag
from converters.execution_graph import CollectiveType, ExecutionGraph, IntArray, NodeType, RankGraph
from foundation.recent import Recent
from foundation.records import dataclass

SIZES_KEPT = 64
"""Of a plan, so many ways in which its stops have had bytes."""


@dataclass(slots=True, eq=False)
class SetPlan:
    """One `RankGraph`, and its rows that wait for others: collectives, sends and receives.

    Stretch 0 lies before the first stop, stretch i behind the i-th.
    """

    ranks: tuple[int, ...]
    stop_rows: NDArray[np.int64]


Together = tuple[int, bool, int, list[tuple[Meeting, int]]]
"""Collectives in a row: their number, whether ranks in step stay so, the ns of all, and the streams of each kind."""


@dataclass(slots=True, eq=False)
class KnownSizes:
    """The bytes of all stops, by set and stop, the smallest of them, and what follows from them.

    `alone`: what the collectives of a `SoloRun` take, by its set and first stop.
    """

    sizes: list[list[int]]
    smallest: int
    alone: dict[tuple[int, int], Together] = field(default_factory=dict)

    @classmethod
    def of(cls, sizes: list[IntArray]) -> KnownSizes:
        """Look at the bytes of every set's stops."""
        smallest = min((int(of_set.min()) for of_set in sizes if of_set.size), default=1)
        return cls([of_set.tolist() for of_set in sizes], smallest)


@dataclass(slots=True)
class ChainPlan:
    """The sets and the order in which their stops are evaluated.

    `shares` are those of all sets side by side; `begins` says where each set's stretches begin there, and where they
    end. `shared`: sets meet each other in collectives. `repeats`: which stops come again and again. `sizes`: what is
    known by the bytes of all stops.
    """

    sets: list[SetPlan]
    stops: list[Stop]
    slots: int
    shares: Shares
    begins: list[int]
    shared: bool
    repeats: list[Repeat]
    sizes: Recent[KnownSizes] = field(default_factory=lambda: Recent(SIZES_KEPT))


def plan_chains(graph: ExecutionGraph, machine: Machine) -> ChainPlan | None:
    """Return the plan of a checked graph, or None if it is not of chains or has what only the event queue knows."""
    if not machine.chainable or any(group >= WRAPPING_GROUPS for group in graph.groups):
        return None
    sets: list[SetPlan] = []
    between: list[OwnNodes] = []
    for rank_graph in graph.rank_graphs:
        planned = _plan_set(rank_graph, machine)
        if planned is None:
            return None
        sets.append(planned[0])
        between.append(planned[1])
    if sum(2 * own.stretches - 1 for own in between) > MOST_PIECES:
        return None
    ordering = _Ordering(graph, machine, sets)
    if not ordering.found():
        return None
    return ChainPlan(
        sets,
        ordering.stops,
        ordering.slots,
        shares=share_out(between, machine),
        begins=[0, *accumulate(own.stretches for own in between)],
        shared=any(isinstance(stop, CollectiveStop) for stop in ordering.stops),
        repeats=find_repeats(ordering.stops),
    )


def _plan_set(graph: RankGraph, machine: Machine) -> tuple[SetPlan, OwnNodes] | None:
    """Return where a set stops, and its nodes that end by themselves; None if it is no chain."""
    order = _chain_order(graph)
    if order is None:
        return None
    kind, cpu = graph.node_type[order], graph.is_cpu_op[order]
    if (kind < NodeType.MEM_LOAD).any():
        return None
    memory = (kind == NodeType.MEM_LOAD) | (kind == NodeType.MEM_STORE)
    if memory.any() and machine.memory.memory_type != "PER_NPU_MEMORY_EXPANSION":
        return None
    if (memory.any() or cpu.any()) and kind[-1] in (NodeType.COMM_SEND, NodeType.COMM_RECV):
        return None  # ASTRA-sim aborts at such an end
    broadcast = (kind == NodeType.COMM_COLL) & (graph.comm_type[order] == CollectiveType.BROADCAST)
    waits = (kind >= NodeType.COMM_SEND) & ~broadcast
    stops, others = np.flatnonzero(waits), np.flatnonzero(~waits)
    own = OwnNodes(graph, order[others], np.searchsorted(stops, others), others == 0, stops.size + 1)
    return SetPlan(graph.ranks, order[stops]), own


def _chain_order(graph: RankGraph) -> NDArray[np.int64] | None:
    """Return the rows in the one order in which they can run, or None if there are several (or none)."""
    nodes = graph.nodes
    owner = np.repeat(np.arange(nodes), np.diff(graph.dep_offsets))
    follows = np.zeros(nodes, dtype=np.bool_)
    follows[owner[graph.dep_index == owner - 1]] = True
    leading = _leading_memory(graph)
    if (graph.dep_index < owner).all() and follows[max(leading, 1) :].all():
        return np.concatenate((np.argsort(graph.node_id[:leading], kind="stable"), np.arange(leading, nodes)))
    if len(owner) != nodes - 1 or len(set(graph.dep_index.tolist())) != nodes - 1:
        return None
    after = dict(zip(graph.dep_index.tolist(), owner.tolist(), strict=True))
    rows = [row for row in range(nodes) if graph.dep_offsets[row] == graph.dep_offsets[row + 1]]
    if len(rows) != 1:
        return None  # two that wait for nothing may overlap
    while len(rows) < nodes and rows[-1] in after:
        rows.append(after[rows[-1]])
    return np.array(rows) if len(rows) == nodes else None


def _leading_memory(graph: RankGraph) -> int:
    """Return how many memory nodes wait for nothing and are all awaited by the first other node: 0 if not so.

    They share one slot, and so run one after the other in ascending id before anything else can.
    """
    waits = np.flatnonzero(np.diff(graph.dep_offsets) > 0)
    leading = int(waits[0]) if waits.size else 0
    kinds = graph.node_type[:leading]
    memory = ((kinds == NodeType.MEM_LOAD) | (kinds == NodeType.MEM_STORE)) & ~graph.is_cpu_op[:leading]
    if leading < 2 or not memory.all():
        return 0
    awaited = np.isin(np.arange(leading), graph.dependencies(leading))
    return leading if awaited.all() else 0


class _Ordering:
    """Walks all sets at once, each as far as it gets, and notes the order in which their `stops` can be evaluated.

    The messages among them are kept in so many `slots`.
    """

    def __init__(self, graph: ExecutionGraph, machine: Machine, sets: list[SetPlan]) -> None:
        self.stops: list[Stop] = []
        self.slots = 0
        self._graph = graph
        self._rendezvous = machine.options.rendezvous_protocol
        self._sets = sets
        self._rows = [plan.stop_rows.tolist() for plan in sets]
        self._at = [0] * len(sets)
        self._set_of = {rank: index for index, plan in enumerate(sets) for rank in plan.ranks}
        self._meetings = MeetingFinder(graph, machine.network.npus_count)
        self._sent: dict[tuple[int, int, int], deque[MessageStop]] = {}

    def found(self) -> bool:
        """Walk to the end; False on a deadlock or where sets do not fit together."""
        pending = deque(range(len(self._sets)))
        idle = 0
        while idle < len(pending):
            index = pending.popleft()
            moved = False
            while self._at[index] < len(self._rows[index]):
                advanced = self._step(index)
                if advanced is None:
                    return False
                if not advanced:
                    break
                moved = True
            idle = 0 if moved else idle + 1
            pending.append(index)
        return all(at == len(rows) for at, rows in zip(self._at, self._rows, strict=True))

    def _step(self, index: int) -> bool | None:
        """Evaluate the next stop of a set: False if it has to wait, None if it cannot be planned."""
        graph, row = self._graph.rank_graphs[index], self._rows[index][self._at[index]]
        kind = graph.node_type[row]
        if kind == NodeType.COMM_COLL:
            return self._collective(index, row)
        tag = point_to_point_tag(int(graph.comm_tag[row]))
        if kind == NodeType.COMM_SEND:
            return self._send(index, tag, int(graph.comm_dst_delta[row]))
        return self._receive(index, tag, int(graph.comm_src_delta[row]))

    def _send(self, index: int, tag: int, delta: int) -> bool | None:
        if self._rendezvous:
            return None
        stop = MessageStop((index, self._at[index]), delta, self.slots)
        self.slots += 1
        self._sent.setdefault((index, tag, delta), deque()).append(stop)
        self.stops.append(stop)
        self._at[index] += 1
        return True

    def _receive(self, index: int, tag: int, delta: int) -> bool | None:
        ranks = self._sets[index].ranks
        sender = self._set_of[ranks[0] + delta]
        columns = {rank: at for at, rank in enumerate(self._sets[sender].ranks)}
        if len(columns) != len(ranks) or any(rank + delta not in columns for rank in ranks):
            return None
        waiting = self._sent.get((sender, tag, -delta))
        if not waiting:
            return False
        places = np.array([columns[rank + delta] for rank in ranks])
        self.stops.append(ReceiveStop((index, self._at[index]), waiting.popleft(), places))
        self._at[index] += 1
        return True

    def _collective(self, index: int, row: int) -> bool:
        """Enter a collective, if every set that meets there is at one of the same kind."""
        meeting = self._meetings.find(index, row)
        for other in meeting.sets:
            at, rows = self._at[other], self._rows[other]
            if at == len(rows) or not self._same(index, row, other, rows[at]):
                return False
        if len(meeting.sets) == 1:
            self._add_solo(index, meeting)
        else:
            self.stops.append(CollectiveStop(meeting, [(other, self._at[other]) for other in meeting.sets]))
        for other in meeting.sets:
            self._at[other] += 1
        return True

    def _add_solo(self, index: int, meeting: Meeting) -> None:
        last = self.stops[-1] if self.stops else None
        if isinstance(last, SoloRun) and last.index == index:
            last.add(meeting)
        else:
            self.stops.append(SoloRun(index, self._at[index], [(meeting, 1)]))

    def _same(self, index: int, row: int, other: int, other_row: int) -> bool:
        one, two = self._graph.rank_graphs[index], self._graph.rank_graphs[other]
        return bool(two.node_type[other_row] == NodeType.COMM_COLL) and all(
            getattr(one, name)[row] == getattr(two, name)[other_row]
            for name in ("comm_type", "comm_group", "involved_dims")
        )
