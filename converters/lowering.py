"""`Trace` -> `ExecutionGraph`: operators become the nodes that every rank runs.

- A COMPUTE row is a COMP node, after a MEM_LOAD for its input and for its weights where they live outside device
  memory, and before its collective and a MEM_STORE of an output that leaves. MEM rows are one node, COMM rows a
  collective.
- A row waits for the previous row of its sub-batch on the same rank, or for its explicit dependencies. A dependency
  on a row that the rank does not run is a SEND on a rank that does and a RECV here.
- Memory moved before a stage computes (KV blocks) waits for nothing and is awaited by the stage's first rows.
- Rank i of a pipeline stage sends the output bytes of the stage's last row to rank i of the next, for each sub-batch.
- A rank that moves memory and sends ends with a COMP node of 0 ns (`converters.row_slots` says why).
- A rank without rows gets one node of 1 ns, because ASTRA-sim refuses a rank without nodes.

What a trace's structure decides is kept for the traces that follow: in steady decoding only durations change, and then
the columns of the graph are the very same arrays, so that backends can keep their plans by identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.execution_graph import ABSENT, ExecutionGraph, NodeType, RankGraph
from converters.graph_plan import GraphPlan, RankPlan, make_plan
from converters.row_slots import row_slots
from foundation.recent import Recent, RecentByIdentity
from trace_gen.trace import Trace

IntArray = NDArray[np.int64]

PLANS_KEPT = 64
SIZES_KEPT = 8
ZERO_NS_OPS = 500
"""`num_ops` of a node that takes 0 ns: 1000 * 0 + 500, which any real device finishes within the nanosecond too."""
_STATIC = (
    *("op_names", "rank_sets", "groups", "op", "kind", "layer", "stage", "rank_set", "sub_batch"),
    *("input_loc", "input_bytes", "weight_loc", "weight_bytes", "output_loc", "output_bytes"),
    *("comm_type", "comm_bytes", "comm_group", "dep_offsets", "dep_rows"),
)
"""All that a plan and its sizes depend on. The generator hands out the very arrays that it made before, so that where
these are the same objects nothing has to be compared; a copy of one costs a comparison of all (`Lowering.misses`)."""
_STRUCTURE = ("op", "kind", "layer", "stage", "rank_set", "sub_batch", "comm_type", "comm_group")


@dataclass(slots=True)
class Sizes:
    """The size columns of one rank plan for one set of byte counts: shapes ``[n]``, and ``[k, n]`` by k."""

    comm_size: IntArray
    tensor_size: IntArray
    by_steps: dict[int, IntArray] = field(default_factory=dict)

    def tensor_size_of(self, steps: int) -> IntArray:
        """Return `tensor_size` for each of `steps` steps: one array for each number of them, whose identity counts."""
        found = self.by_steps.get(steps)
        if found is None:
            found = self.by_steps[steps] = np.broadcast_to(self.tensor_size, (steps, self.tensor_size.size))
        return found


@dataclass(frozen=True, slots=True)
class _NodeWork:
    """Where the nodes of one plan, or of several side by side, find their `num_ops`: in a row of the trace, or behind
    the rows in one of two columns, for nodes that have none and for those of 0 ns. Plan i begins at node ``begins[i]``.
    """

    source: IntArray
    begins: Sequence[int]

    @classmethod
    def of(cls, plans: Sequence[RankPlan], rows: int) -> _NodeWork:
        sources = []
        for plan in plans:
            source = np.full(plan.row.size, rows)
            source[plan.comp_at] = plan.row[plan.comp_at]
            if plan.closed:
                source[-1] = rows + 1
            sources.append(source)
        return cls(np.concatenate(sources), [0, *accumulate(plan.row.size for plan in plans)])

    def num_ops(self, work: IntArray) -> IntArray:
        """Return `num_ops` of all nodes, ``[k, nodes]``; `work` ``[k, rows + 2]`` is `Filling.work`'s."""
        return work.take(self.source, axis=1)


@dataclass(slots=True)
class _Entry:
    """The plan of one structure, and the sizes of its nodes for the byte counts it came with."""

    plan: GraphPlan
    work: _NodeWork
    sizes: Recent[list[Sizes]] = field(default_factory=lambda: Recent(SIZES_KEPT))

    @classmethod
    def of(cls, plan: GraphPlan, rows: int) -> _Entry:
        return cls(plan, _NodeWork.of(plan.rank_plans, rows))


class Lowering:
    """Lowers traces of one deployment; remembers structures and sizes, which affects speed and nothing else.

    `network_dims` is the network's ``npus_count``, dimension 0 first: a collective over the ranks of a dimension then
    names the dimension (`involved_dims`) and not a communicator group. `true_work` writes floating-point operations
    and bytes (at least 1 each) for backends that time operators themselves, in place of exact nanoseconds. `annotate`
    adds ``orrery.*`` annotations: true work, layer and request of every node.
    """

    def __init__(
        self, *, network_dims: Sequence[int] | None = None, true_work: bool = False, annotate: bool = False
    ) -> None:
        self._dims = None if network_dims is None else tuple(network_dims)
        self._filling = Filling(true_work, annotate)
        self._entries: Recent[_Entry] = Recent(PLANS_KEPT)
        self._recent: RecentByIdentity[tuple[_Entry, list[Sizes]]] = RecentByIdentity(PLANS_KEPT)

    def lower(self, trace: Trace) -> ExecutionGraph:
        """Return the execution graph of `trace`, all its steps.

        Raises `UserError` when a row's collective leaves out a rank that runs the row, or when `network_dims` does not
        multiply to the number of ranks.
        """
        entry, sizes = self._known(trace)
        plan, begins = entry.plan, entry.work.begins
        num_ops = entry.work.num_ops(self._filling.work(trace))
        graphs = [
            self._graph(own, size, trace, num_ops[:, begin:end])
            for own, size, (begin, end) in zip(plan.rank_plans, sizes, pairwise(begins), strict=True)
        ]
        return ExecutionGraph(graphs, plan.groups)

    @property
    def misses(self) -> tuple[int, int]:
        """How often a trace brought columns that are not those of a recent one, and how often another structure."""
        return self._recent.misses, self._entries.misses

    def _graph(self, plan: RankPlan, sizes: Sizes, trace: Trace, num_ops: IntArray) -> RankGraph:
        if plan.row.size == 0:
            return self._filling.idle(plan.ranks, trace.steps)
        return self._filling.graph(plan, sizes, trace, num_ops)

    def _known(self, trace: Trace) -> tuple[_Entry, list[Sizes]]:
        """Return the plan and the sizes of `trace`, found by the identity of its columns or else by their values."""
        return self._recent.get([getattr(trace, name) for name in _STATIC], lambda: self._by_value(trace))

    def _by_value(self, trace: Trace) -> tuple[_Entry, list[Sizes]]:
        entry = self._entries.get(_structure_key(trace), lambda: _Entry.of(make_plan(trace, self._dims), trace.rows))
        moved = moved_bytes(trace)
        plans = entry.plan.rank_plans
        return entry, entry.sizes.get(moved.tobytes(), lambda: [plan_sizes(plan, moved) for plan in plans])


@dataclass(frozen=True, slots=True)
class Filling:
    """How plans are filled in: with true work or exact nanoseconds, annotated or not. See `Lowering`."""

    true_work: bool
    annotate: bool

    def fill(self, plan: RankPlan, sizes: Sizes, trace: Trace, work: IntArray) -> RankGraph:
        """Return the nodes of `plan` with the durations of `trace`, of which it was made; `work` is the trace's own."""
        return self.graph(plan, sizes, trace, _NodeWork.of([plan], trace.rows).num_ops(work))

    def work(self, trace: Trace) -> IntArray:
        """Return the ``num_ops`` that each row of `trace` has as a COMP node, in ns or true FLOPs, ``[k, rows + 2]``.

        The last two columns are those of nodes that have none, and of nodes that take 0 ns.
        """
        result = np.empty((trace.steps, trace.rows + 2), dtype=np.int64)
        work = result[:, :-2]
        if self.true_work:
            np.maximum(trace.flops, 1, out=work)
        else:
            np.maximum(trace.latency_ns, 1, out=work)
            work *= 1000
            work += 500
        result[:, -2], result[:, -1] = ABSENT, ZERO_NS_OPS
        return result

    def graph(self, plan: RankPlan, sizes: Sizes, trace: Trace, num_ops: IntArray) -> RankGraph:
        """Return the nodes of `plan` with `num_ops` for operations."""
        if self.true_work:
            at = plan.comp_at
            tensor_size = np.broadcast_to(sizes.tensor_size, num_ops.shape).copy()
            tensor_size[:, at] = np.maximum(trace.mem_bytes[:, plan.row[at]], 1)
        else:
            tensor_size = sizes.tensor_size_of(trace.steps)
        return RankGraph(
            ranks=plan.ranks,
            names=plan.names,
            num_ops=num_ops,
            tensor_size=tensor_size,
            comm_size=sizes.comm_size,
            annotations=_annotations(plan, trace) if self.annotate else {},
            **plan.columns,
        )

    def idle(self, ranks: tuple[int, ...], steps: int) -> RankGraph:
        """Return one node of 1 ns: by the roofline, or as a CPU operation where the roofline is the user's."""
        return _idle(ranks, steps, self.true_work)


def lower(
    trace: Trace, *, network_dims: Sequence[int] | None = None, true_work: bool = False, annotate: bool = False
) -> ExecutionGraph:
    """Lower one trace as `Lowering` does; what is remembered is shared by all callers with the same options."""
    return _lowering(None if network_dims is None else tuple(network_dims), true_work, annotate).lower(trace)


@lru_cache(maxsize=8)
def _lowering(network_dims: tuple[int, ...] | None, true_work: bool, annotate: bool) -> Lowering:
    return Lowering(network_dims=network_dims, true_work=true_work, annotate=annotate)


def _structure_key(trace: Trace) -> tuple[Any, ...]:
    """Return everything of `trace` that decides nodes and dependencies, comparable by value."""
    columns = [getattr(trace, name).tobytes() for name in _STRUCTURE]
    slots = np.packbits(row_slots(trace)).tobytes()
    has_bytes = np.packbits(trace.comm_bytes > 0).tobytes()
    dependencies = (trace.dep_offsets.tobytes(), trace.dep_rows.tobytes()) if trace.dep_rows.size else ()
    return (trace.op_names, trace.rank_sets, trace.groups, slots, has_bytes, dependencies, *columns)


def moved_bytes(trace: Trace) -> IntArray:
    """Return the bytes columns of `trace` laid end to end, as `RankPlan` indexes them."""
    return np.concatenate([trace.input_bytes, trace.weight_bytes, trace.output_bytes, trace.comm_bytes])


def plan_sizes(plan: RankPlan, moved: IntArray) -> Sizes:
    """Return the sizes of a plan's nodes."""
    comm_size = np.full(plan.row.size, ABSENT)
    comm_size[plan.sent_at] = moved[plan.sent_from]
    peers = plan.columns["comm_tag"] != ABSENT
    comm_size[peers] = np.maximum(comm_size[peers], 1)  # ASTRA-sim refuses a message of 0 bytes
    tensor_size = np.full(plan.row.size, ABSENT)
    tensor_size[plan.comp_at] = 1
    if plan.closed:
        tensor_size[-1] = 1
    tensor_size[plan.moved_at] = moved[plan.moved_from]
    return Sizes(comm_size, tensor_size)


def _annotations(plan: RankPlan, trace: Trace) -> dict[str, IntArray]:
    shape = (trace.steps, plan.row.size)
    flops, moved = np.full(shape, ABSENT), np.full(shape, ABSENT)
    rows = plan.row[plan.comp_at]
    flops[:, plan.comp_at], moved[:, plan.comp_at] = trace.flops[:, rows], trace.mem_bytes[:, rows]
    layer, request = trace.layer[plan.row].astype(np.int64), trace.request[plan.row]
    return {
        "orrery.flops": flops,
        "orrery.bytes": moved,
        "orrery.layer": np.where(layer < 0, ABSENT, layer),
        "orrery.request": np.where(request < 0, ABSENT, request),
    }


@lru_cache(maxsize=16)
def _idle(ranks: tuple[int, ...], steps: int, true_work: bool) -> RankGraph:
    """See `Filling.idle`."""
    absent = np.full(1, ABSENT)
    return RankGraph(
        ranks=ranks,
        names=("idle",),
        node_id=np.zeros(1, dtype=np.int64),
        node_type=np.array([NodeType.COMP], dtype=np.int8),
        is_cpu_op=np.array([true_work]),
        name=np.zeros(1, dtype=np.int32),
        duration_us=np.zeros(1, dtype=np.int64),
        num_ops=np.full((steps, 1), 1 if true_work else 1500),
        tensor_size=np.ones((steps, 1), dtype=np.int64),
        comm_type=np.full(1, -1, dtype=np.int8),
        comm_size=absent,
        comm_priority=absent,
        comm_tag=absent,
        comm_src_delta=absent,
        comm_dst_delta=absent,
        comm_group=np.zeros(1, dtype=np.int32),
        involved_dims=absent,
        dep_offsets=np.zeros(2, dtype=np.int64),
        dep_index=np.zeros(0, dtype=np.int64),
    )
