"""`Trace` -> `ExecutionGraph`: operators become the nodes that every rank runs.

- A COMPUTE row is a COMP node, after a MEM_LOAD for its input and for its weights where they live outside device
  memory, and before its collective and a MEM_STORE of an output that leaves. MEM rows are one node, COMM rows a
  collective.
- A row waits for the previous row of its sub-batch on the same rank, or for its explicit dependencies. A dependency
  on a row that the rank does not run is a SEND on a rank that does and a RECV here. A PERMUTE is a SEND to the next
  rank of the group after the row waited for, and a RECV from the one before.
- Memory moved before a stage computes (KV blocks) waits for nothing and is awaited by the stage's first rows.
- Rank i of a pipeline stage sends the output bytes of the stage's last row to rank i of the next, for each sub-batch.
- A rank that moves memory and sends ends with a COMP node of 0 ns (`converters.row_slots` says why).
- A rank without rows gets one node of 1 ns, because ASTRA-sim refuses a rank without nodes.

What a trace's structure decides is kept for the traces that follow: in steady decoding only durations change, and then
the columns of the graph are the very same arrays, so that backends can keep their plans by identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.carried_sizes import CarriedCollectives, CollectiveSizes
from converters.execution_graph import ABSENT, ExecutionGraph, NodeType, NodeWork, RankGraph
from converters.graph_plan import GraphPlan, RankPlan, make_plan
from converters.row_slots import row_slots
from foundation.recent import Recent, RecentByIdentity
from foundation.records import dataclass
from trace_gen.trace import Trace

IntArray = NDArray[np.int64]

PLANS_KEPT = 256
SIZES_KEPT = 8
ZERO_NS_OPS = 500
"""`num_ops` of a node that takes 0 ns: 1000 * 0 + 500, which any real device finishes within the nanosecond too."""
_STATIC = (
    *("op_names", "rank_sets", "groups", "group_parts", "op", "kind", "layer", "stage", "rank_set", "sub_batch"),
    *("input_loc", "input_bytes", "weight_loc", "weight_bytes", "output_loc", "output_bytes"),
    *("comm_type", "comm_bytes", "comm_group", "dep_offsets", "dep_rows"),
)
"""All that a plan and its sizes depend on. The generator hands out the very arrays that it made before, so that where
these are the same objects nothing has to be compared; a copy of one costs a comparison of all (`Lowering.misses`)."""
_STRUCTURE = ("op", "kind", "layer", "stage", "rank_set", "sub_batch", "comm_type", "comm_group")


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """The bytes that the nodes of some plans carry: by plan what they send, ``[n]``, and all that they move.

    `said`: what they send by the trace's account, where collectives have other sizes than it says.
    """

    comm_size: tuple[IntArray, ...]
    moved: IntArray
    said: tuple[IntArray, ...] | None = None

    @classmethod
    def of(cls, plans: Sequence[RankPlan], moved: IntArray) -> Sizes:
        """Find the sizes of the nodes of `plans` among `moved`, see `moved_bytes`."""
        places = np.concatenate([np.zeros(0, dtype=np.int64), *(plan.moved_from for plan in plans)])
        return cls(tuple(_comm_size(plan, moved) for plan in plans), moved[places])


@dataclass(frozen=True, slots=True, eq=False)
class WorkColumns:
    """Where the nodes of some plans, ``[n]`` each, find their work, side by side in one table of `NodeWork`::

    the columns of the trace's own work | none | 0 ns | moved bytes of the first plan's MEM nodes, the second's ...
    """

    of_plan: tuple[IntArray, ...]

    @classmethod
    def of(cls, plans: Sequence[RankPlan], trace: Trace) -> WorkColumns:
        """Find the columns for `trace`, of which the plans were made, and for those like it."""
        work = trace.work
        none = work.latency_ns.shape[1]
        moved = none + 2
        columns = []
        for plan in plans:
            column = np.full(plan.row.size, none)
            column[plan.comp_at] = work.column[plan.row[plan.comp_at]]
            if plan.closed:
                column[-1] = none + 1
            column[plan.moved_at] = moved + np.arange(plan.moved_at.size)
            moved += plan.moved_at.size
            columns.append(column)
        return cls(tuple(columns))


@dataclass(slots=True)
class _Entry:
    """The plan of one structure, where its nodes find their work, and their sizes by the byte counts of a trace.

    `carried`: by plan the collectives that get other sizes than the trace's.
    """

    plan: GraphPlan
    columns: WorkColumns
    carried: tuple[CarriedCollectives, ...]
    sizes: Recent[Sizes] = field(default_factory=lambda: Recent(SIZES_KEPT))


class Lowering:
    """Lowers traces of one deployment; remembers structures and sizes, which affects speed and nothing else.

    `network_dims` is the network's ``npus_count``, dimension 0 first: a collective over the ranks of a dimension then
    names the dimension (`involved_dims`) and not a communicator group. `true_work` writes floating-point operations
    and bytes (at least 1 each) for backends that time operators themselves, in place of exact nanoseconds. `annotate`
    adds ``orrery.*`` annotations: true work, layer and request of every node. `collective_sizes` gives collectives,
    each over dimensions of `network_dims`, other sizes than the trace's, with which the network takes for them what
    they really take; the trace's own are then the annotation ``orrery.comm_size``.
    """

    def __init__(
        self,
        *,
        network_dims: Sequence[int] | None = None,
        true_work: bool = False,
        annotate: bool = False,
        collective_sizes: CollectiveSizes | None = None,
    ) -> None:
        self._dims = None if network_dims is None else tuple(network_dims)
        self._filling = Filling(true_work, annotate)
        self._collective_sizes = collective_sizes
        self._entries: Recent[_Entry] = Recent(PLANS_KEPT)
        self._recent: RecentByIdentity[tuple[_Entry, Sizes]] = RecentByIdentity(PLANS_KEPT)

    def lower(self, trace: Trace) -> ExecutionGraph:
        """Return the execution graph of `trace`, all its steps.

        Raises `UserError` when a row's collective leaves out a rank that runs the row, or when `network_dims` does not
        multiply to the number of ranks.
        """
        entry, sizes = self._known(trace)
        graphs = self._filling.graphs(entry.plan.rank_plans, entry.columns, sizes, trace)
        return ExecutionGraph(graphs, entry.plan.groups)

    @property
    def misses(self) -> tuple[int, int]:
        """How often a trace brought columns that are not those of a recent one, and how often another structure."""
        return self._recent.misses, self._entries.misses

    def _known(self, trace: Trace) -> tuple[_Entry, Sizes]:
        """Return the plan and the sizes of `trace`, found by the identity of its columns or else by their values."""
        columns = [trace.work.column, *[getattr(trace, name) for name in _STATIC]]
        return self._recent.get(columns, lambda: self._by_value(trace), key=trace.work.latency_ns.shape[1])

    def _by_value(self, trace: Trace) -> tuple[_Entry, Sizes]:
        entry = self._entries.get(_structure_key(trace), lambda: self._planned(trace))
        moved = moved_bytes(trace)
        return entry, entry.sizes.get(moved.tobytes(), lambda: self._sizes(entry, moved))

    def _planned(self, trace: Trace) -> _Entry:
        plan = make_plan(trace, self._dims)
        plans = () if self._collective_sizes is None else plan.rank_plans
        carried = tuple(CarriedCollectives.of(one, self._dims or ()) for one in plans)
        return _Entry(plan, WorkColumns.of(plan.rank_plans, trace), carried)

    def _sizes(self, entry: _Entry, moved: IntArray) -> Sizes:
        sizes, sizes_for = Sizes.of(entry.plan.rank_plans, moved), self._collective_sizes
        if sizes_for is None:
            return sizes
        pairs = zip(entry.carried, sizes.comm_size, strict=True)
        carried = tuple(collectives.replaced(comm_size, sizes_for) for collectives, comm_size in pairs)
        return replace(sizes, comm_size=carried, said=sizes.comm_size)


@dataclass(frozen=True, slots=True)
class Filling:
    """How plans are filled in: with true work or exact nanoseconds, annotated or not. See `Lowering`."""

    true_work: bool
    annotate: bool

    def graphs(self, plans: Sequence[RankPlan], columns: WorkColumns, sizes: Sizes, trace: Trace) -> list[RankGraph]:
        """Return the nodes of `plans` with the durations of `trace`, of which, or of one like it, they were made."""
        num_ops, tensor_size = self._work(trace, sizes.moved)
        said = sizes.said or (None,) * len(plans)
        return [
            RankGraph(
                ranks=plan.ranks,
                names=plan.names,
                work=NodeWork(column, num_ops, tensor_size),
                comm_size=comm_size,
                annotations=self._annotated(plan, trace, true_size),
                **plan.columns,
            )
            if column.size
            else self.idle(plan.ranks, trace.steps)
            for plan, column, comm_size, true_size in zip(plans, columns.of_plan, sizes.comm_size, said, strict=True)
        ]

    def _annotated(self, plan: RankPlan, trace: Trace, true_size: IntArray | None) -> dict[str, IntArray]:
        found = _annotations(plan, trace) if self.annotate else {}
        return found if true_size is None else {**found, "orrery.comm_size": true_size}

    def _work(self, trace: Trace, moved: IntArray) -> tuple[IntArray, IntArray]:
        """Return the table that `WorkColumns` shows: operations, ``[k, m]``, and bytes, ``[k, m]`` or ``[1, m]``."""
        work = trace.work
        own = work.latency_ns.shape[1]
        num_ops = np.full((trace.steps, own + 2 + moved.size), ABSENT)
        tensor_size = np.ones((trace.steps if self.true_work else 1, num_ops.shape[1]), dtype=np.int64)
        if self.true_work:
            np.maximum(work.flops, 1, out=num_ops[:, :own])
            np.maximum(work.mem_bytes, 1, out=tensor_size[:, :own])
        else:
            np.maximum(work.latency_ns, 1, out=num_ops[:, :own])
            num_ops[:, :own] *= 1000
            num_ops[:, :own] += 500
        num_ops[:, own + 1], tensor_size[:, own] = ZERO_NS_OPS, ABSENT
        tensor_size[:, own + 2 :] = moved
        return num_ops, tensor_size

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
    work = (trace.work.latency_ns.shape[1], trace.work.column.tobytes())
    slots = np.packbits(row_slots(trace)).tobytes()
    has_bytes = np.packbits(trace.comm_bytes > 0).tobytes()
    dependencies = (trace.dep_offsets.tobytes(), trace.dep_rows.tobytes()) if trace.dep_rows.size else ()
    return (
        trace.op_names,
        trace.rank_sets,
        trace.groups,
        trace.group_parts,
        slots,
        has_bytes,
        dependencies,
        *work,
        *columns,
    )


def moved_bytes(trace: Trace) -> IntArray:
    """Return the bytes columns of `trace` laid end to end, as `RankPlan` indexes them."""
    return np.concatenate([trace.input_bytes, trace.weight_bytes, trace.output_bytes, trace.comm_bytes])


def _comm_size(plan: RankPlan, moved: IntArray) -> IntArray:
    """Return the bytes that each node of a plan sends."""
    comm_size = np.full(plan.row.size, ABSENT)
    comm_size[plan.sent_at] = moved[plan.sent_from]
    peers = plan.columns["comm_tag"] != ABSENT
    comm_size[peers] = np.maximum(comm_size[peers], 1)  # ASTRA-sim refuses a message of 0 bytes
    return comm_size


def _annotations(plan: RankPlan, trace: Trace) -> dict[str, IntArray]:
    shape = (trace.steps, plan.row.size)
    flops, moved = np.full(shape, ABSENT), np.full(shape, ABSENT)
    rows = plan.row[plan.comp_at]
    columns = trace.work.column[rows]
    flops[:, plan.comp_at], moved[:, plan.comp_at] = trace.work.flops[:, columns], trace.work.mem_bytes[:, columns]
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
        work=NodeWork.by_node(np.full((steps, 1), 1 if true_work else 1500), np.ones((1, 1), dtype=np.int64)),
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
