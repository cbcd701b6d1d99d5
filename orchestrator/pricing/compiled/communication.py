"""How long collectives, and messages between stages, take: asked of the backend once for each size.

The backend gets an iteration of one operator of 1 ns a stage:

    stage 0: 1 ns, collective of so many bytes -> message of so many bytes -> stage 1: 1 ns, collective ...

Each alone on an idle network, as in the whole iteration, where a rank does one thing at a time. Such an iteration is
lowered once; for other sizes those of the graph's nodes are replaced. What sizes collectives have in a graph (see
`converters.carried_sizes`) is found for many at once, by an iteration that has one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from converters.execution_graph import ExecutionGraph, NodeType
from foundation.records import dataclass
from trace_gen.trace import CommType, IntArray, RowWork, Trace

SMALL = 1
"""Bytes of messages while collectives are timed."""
_MARK = 1 << 20
"""Bytes of the first stage's messages in a graph in which each stage's are told apart by their sizes."""
_ROWS = (
    *("op", "operator_class", "kind", "device", "layer", "stage", "rank_set", "request", "sub_batch"),
    *("input_loc", "input_node", "input_bytes", "weight_loc", "weight_node", "weight_bytes"),
    *("output_loc", "output_node"),
)


@dataclass(frozen=True, slots=True, eq=False)
class _Skeleton:
    """A graph of one operator a stage, and what of its nodes has a size, by set of ranks.

    `stages` ``[sets]``: which stage a set is of; `collectives`: its collective nodes; `messages`: by node the stage
    whose message it sends or awaits, -1 for other nodes.
    """

    graph: ExecutionGraph
    stages: tuple[int, ...]
    collectives: tuple[NDArray[np.bool_], ...]
    messages: tuple[IntArray, ...]

    @classmethod
    def of(cls, graph: ExecutionGraph, stage_of: Callable[[int], int]) -> _Skeleton:
        ranks = graph.rank_graphs
        sending = [np.isin(one.node_type, (NodeType.COMM_SEND, NodeType.COMM_RECV)) for one in ranks]
        return cls(
            graph,
            tuple(stage_of(one.ranks[0]) for one in ranks),
            tuple(one.node_type == NodeType.COMM_COLL for one in ranks),
            tuple(np.where(sends, one.comm_size - _MARK, -1) for sends, one in zip(sending, ranks, strict=True)),
        )

    def sized(self, collectives: Sequence[int], messages: IntArray) -> ExecutionGraph:
        """Return the graph with collectives of so many bytes, by set, and messages of so many, by stage."""
        found = []
        for one, size, here, sent in zip(
            self.graph.rank_graphs, collectives, self.collectives, self.messages, strict=True
        ):
            sizes = np.where(sent >= 0, messages[sent], np.where(here, size, one.comm_size))
            found.append(replace(one, comm_size=sizes))
        return replace(self.graph, rank_graphs=found)


class Communication:
    """Times what `trace`, one of one step, communicates.

    `lower` makes graphs of traces, `finish_ns` says when each stage of a graph is done, ``[s]``, `stage_of` which stage
    a rank is of. `kinds`: the collectives that there are, a type and one group a stage each; `kind_of` ``[rows]``:
    which of them a row ends with (-1: none).
    """

    def __init__(
        self,
        trace: Trace,
        lower: Callable[[Trace], ExecutionGraph],
        finish_ns: Callable[[ExecutionGraph], IntArray],
        stage_of: Callable[[int], int],
    ) -> None:
        self._lower, self._finish_ns, self._stage_of = lower, finish_ns, stage_of
        self._stages = trace.stages
        self.kinds: list[tuple[CommType, dict[int, int]]] = []
        self.kind_of: IntArray = np.full(trace.rows, -1, dtype=np.int64)
        for row in np.flatnonzero(trace.comm_type != CommType.NONE).tolist():
            self.kind_of[row] = self._kind(
                CommType(int(trace.comm_type[row])), int(trace.stage[row]), int(trace.comm_group[row])
            )
        self._one_a_stage = _rows_a_stage(trace, 1)
        self._trace = trace
        self._skeletons: dict[int, _Skeleton] = {}
        self._carried: dict[tuple[int, int], tuple[int, ...]] = {}
        self._known: dict[tuple[int, int], IntArray] = {}
        self._sent: dict[tuple[int, ...], IntArray] = {}
        self._small = np.full(self._stages, SMALL, dtype=np.int64)

    def _kind(self, comm: CommType, stage: int, group: int) -> int:
        for place, (known, groups) in enumerate(self.kinds):
            if known is comm and groups.setdefault(stage, group) == group:
                return place
        self.kinds.append((comm, {stage: group}))
        return len(self.kinds) - 1

    def collective_ns(self, kind: int, size: int) -> IntArray:
        """Return the time of a collective of `size` bytes on each stage, ``[s]``; 0 where the kind is not on it."""
        found = self._known.get((kind, size))
        if found is None:
            self.expect(kind, np.array([size]))
            graph = self._skeleton(kind).sized(self._carried[kind, size], self._small)
            found = self._known[kind, size] = (
                _own(self._finish_ns(graph)) - 1 - self.message_ns((SMALL,) * self._stages)
            )
        return found

    def message_ns(self, sizes: tuple[int, ...]) -> IntArray:
        """Return the time of the messages of so many bytes that each stage sends on, ``[s]``; the last sends none."""
        found = self._sent.get(sizes)
        if found is None:
            skeleton = self._skeleton(-1)
            graph = skeleton.sized((0,) * len(skeleton.stages), np.array(sizes, dtype=np.int64))
            found = self._sent[sizes] = _own(self._finish_ns(graph)) - 1
        return found

    def expect(self, kind: int, sizes: IntArray) -> None:
        """Prepare for collectives of so many bytes."""
        new = sorted({size for size in sizes.tolist() if (kind, size) not in self._carried})
        if not new:
            return
        trace = self._with_collectives(_rows_a_stage(self._trace, len(new)), kind)
        sized = np.where(trace.comm_type != CommType.NONE, np.tile(new, self._stages), 0)
        graph = self._lower(replace(trace, comm_bytes=sized))
        found = [one.comm_size[one.node_type == NodeType.COMM_COLL] for one in graph.rank_graphs]
        for at, size in enumerate(new):
            self._carried[kind, size] = tuple(int(sizes[at]) if len(sizes) else 0 for sizes in found)

    def _skeleton(self, kind: int) -> _Skeleton:
        """Return the graph of collectives of a kind (-1: of none) on every stage that it is on."""
        found = self._skeletons.get(kind)
        if found is None:
            trace = self._one_a_stage if kind < 0 else self._with_collectives(self._one_a_stage, kind)
            found = self._skeletons[kind] = _Skeleton.of(self._lower(trace), self._stage_of)
        return found

    def _with_collectives(self, trace: Trace, kind: int) -> Trace:
        """Return `trace` with a collective of a kind after every row of the stages that it is on."""
        comm, groups = self.kinds[kind]
        group = np.array([groups.get(stage, -1) for stage in trace.stage.tolist()], dtype=np.int32)
        types = np.where(group >= 0, comm, CommType.NONE).astype(np.int8)
        return replace(trace, comm_type=types, comm_group=group, comm_bytes=(group >= 0).astype(np.int64) * _MARK)


def _own(finish_ns: IntArray) -> IntArray:
    """Return the time of each stage alone."""
    return np.diff(finish_ns, prepend=0)


def _rows_a_stage(trace: Trace, times: int) -> Trace:
    """Return the trace of so many operators of 1 ns on each stage of `trace`, without collectives."""
    first = [np.flatnonzero(trace.stage == stage)[0] for stage in range(trace.stages)]
    rows: NDArray[np.intp] = np.repeat(np.array(first), times)
    count = len(rows)
    ones = np.ones((1, count), dtype=np.int64)
    return replace(
        trace,
        **{name: getattr(trace, name)[rows] for name in _ROWS},
        work=RowWork.by_row(ones, ones, ones),
        output_bytes=_MARK + trace.stage[rows].astype(np.int64),
        comm_type=np.full(count, CommType.NONE, dtype=np.int8),
        comm_bytes=np.zeros(count, dtype=np.int64),
        comm_group=np.full(count, -1, dtype=np.int32),
        dep_offsets=np.zeros(count + 1, dtype=np.int64),
        dep_rows=np.zeros(0, dtype=np.int64),
    )
