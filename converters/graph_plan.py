"""The structure of a trace's execution graph: the nodes of every rank, without sizes and durations.

Ranks whose nodes differ in nothing but their own number share a `RankPlan`. `converters.lowering` fills plans in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.collective_groups import Participants, name_groups
from converters.execution_graph import ABSENT, CollectiveType
from converters.node_layout import (
    COLL,
    COMMUNICATION_SLOTS,
    COMP,
    MEMORY_SLOTS,
    SLOT_NODE_TYPES,
    BoolArray,
    IntArray,
    Layout,
    dependencies,
    lay_out,
    row_slots,
)
from converters.transfers import Membership, Transfer, find_transfers, leading_moves, receives_only
from foundation.errors import UserError
from trace_gen.trace import NO_LAYER, CommType, Trace

INPUT, WEIGHT, OUTPUT, COMM = range(4)
"""The trace's bytes columns, in the order in which `RankPlan` indexes them."""

_NODE_TYPES = np.array(SLOT_NODE_TYPES, dtype=np.int8)
_MOVES_MEMORY = np.isin(np.arange(len(SLOT_NODE_TYPES)), MEMORY_SLOTS)
_COMMUNICATES = np.isin(np.arange(len(SLOT_NODE_TYPES)), COMMUNICATION_SLOTS)
SUFFIXES = (".recv", ".load_input", ".load_weight", "", ".collective", ".store", ".send", ".close")
_SIZE_COLUMN = np.array([OUTPUT, INPUT, WEIGHT, 0, COMM, OUTPUT, OUTPUT, 0])
_COLLECTIVE = {
    CommType.NONE: -1,
    CommType.ALLREDUCE: CollectiveType.ALL_REDUCE,
    CommType.ALLGATHER: CollectiveType.ALL_GATHER,
    CommType.REDUCESCATTER: CollectiveType.REDUCE_SCATTER,
    CommType.ALLTOALL: CollectiveType.ALL_TO_ALL,
    CommType.BROADCAST: CollectiveType.BROADCAST,
}
COLLECTIVE_OF = np.array([_COLLECTIVE[comm] for comm in CommType], dtype=np.int8)
"""Chakra's collective type of each `CommType`, -1 for none."""


@dataclass(frozen=True, slots=True)
class RankPlan:
    """The nodes of like ranks, and where each finds its duration and size in the trace.

    `columns` are the RankGraph columns that no size or duration changes; `row` is every node's trace row. `comp_at` are
    the positions of COMP nodes; `moved_at` those of MEM nodes and `sent_at` of communication, with `moved_from` and
    `sent_from` their places in the trace's bytes columns laid end to end (input, weight, output, comm). `closed` says
    that the last node is a COMP of 0 ns. No nodes means that the trace leaves the ranks idle.
    """

    ranks: tuple[int, ...]
    names: tuple[str, ...]
    columns: dict[str, NDArray[Any]]
    row: IntArray
    comp_at: IntArray
    moved_at: IntArray
    moved_from: IntArray
    sent_at: IntArray
    sent_from: IntArray
    closed: bool


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """The rank plans of a trace, by lowest rank, and its communicator groups."""

    rank_plans: tuple[RankPlan, ...]
    groups: dict[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Work:
    """A trace less the rows without nodes: `kept` are the rows that stay, of `all_rows`."""

    trace: Trace
    members: Membership
    slots: BoolArray
    leading: BoolArray
    group_of: IntArray
    participants: tuple[Participants | None, ...]
    kept: IntArray
    all_rows: int


def make_plan(trace: Trace, network_dims: Sequence[int] | None) -> GraphPlan:
    """Work out the nodes of every rank of `trace` on a network of `network_dims` (None: dimensions are not used)."""
    members = Membership.of(trace)
    groups, group_of = _row_groups(trace, members)
    table = name_groups(groups, members.ranks, network_dims)
    all_rows, slots = trace.rows, row_slots(trace)
    alone = np.array([named is None for named in table.participants] + [True])
    slots[:, COLL] &= ~alone[group_of]
    kept = np.flatnonzero(slots.any(axis=1) | receives_only(trace, members))
    if kept.size < all_rows:
        trace = _take(trace, kept)
        members, slots, group_of = Membership(members.by_set, trace.rank_set), slots[kept], group_of[kept]
    leading = leading_moves(trace)
    work = _Work(trace, members, slots, leading, group_of, table.participants, kept, all_rows)
    plans = []
    for ranks, received, sent in _like_ranks(members, find_transfers(trace, members, leading)):
        layout = lay_out(members.rows_of(ranks[0]), trace.rows, slots, received, sent)
        plans.append(_rank_plan(work, ranks, layout))
    return GraphPlan(tuple(plans), table.communicators)


def _row_groups(trace: Trace, members: Membership) -> tuple[tuple[tuple[int, ...], ...], IntArray]:
    """Return the groups and each row's index into them (-1: none), those without a row cut to one rank.

    A collective without a group is over the row's rank set.
    """
    collective = trace.comm_type != CommType.NONE
    group_of = np.where(collective, trace.comm_group, -1).astype(np.int64)
    implied = collective & (group_of < 0)
    group_of[implied] = len(trace.groups) + trace.rank_set[implied]
    groups = (*trace.groups, *trace.rank_sets)
    for index in np.unique(group_of[group_of >= 0]).tolist():
        present = np.zeros(members.ranks, dtype=np.bool_)
        present[[rank for rank in groups[index] if rank < members.ranks]] = True
        rows = np.flatnonzero(group_of == index)
        outside = (members.by_set[trace.rank_set[rows]] & ~present).any(axis=1)
        if outside.any() or max(groups[index]) >= members.ranks:
            row = int(rows[outside.argmax()])
            raise UserError(
                f"row {row} ({trace.name(row)}) has a collective over ranks {_few(groups[index])}, which are not the "
                f"ranks that run it, {_few(trace.rank_sets[trace.rank_set[row]])}",
                fix="let every rank that runs the row be in its communication group",
            )
    used = np.unique(group_of)
    unused = np.ones(len(groups), dtype=np.bool_)
    unused[used[used >= 0]] = False
    return tuple(ranks[:1] if unused[index] else ranks for index, ranks in enumerate(groups)), group_of


def _few(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")


def _take(trace: Trace, kept: IntArray) -> Trace:
    """Return the trace less its rows without nodes; rows that waited for one wait for what it waited for.

    Only the columns that shape a plan are cut.
    """
    place = np.full(trace.rows, -1, dtype=np.int64)
    place[kept] = np.arange(kept.size)
    parents: list[list[int]] = []
    for row in range(trace.rows):
        mine: list[int] = []
        for parent in trace.dependencies(row).tolist():
            mine += [int(place[parent])] if place[parent] >= 0 else (parents[parent] if parent < row else [])
        parents.append(sorted(set(mine)))
    lists = [parents[row] for row in kept.tolist()]
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    flat = np.array([parent for mine in lists for parent in mine], dtype=np.int64)
    columns = ("op", "kind", "layer", "stage", "rank_set", "sub_batch", "comm_type", "comm_bytes")
    return replace(trace, **{name: getattr(trace, name)[kept] for name in columns}, dep_offsets=offsets, dep_rows=flat)


def _like_ranks(
    members: Membership, transfers: Sequence[Transfer]
) -> list[tuple[tuple[int, ...], list[Transfer], list[Transfer]]]:
    """Return sets of ranks that run the same rows with transfers over the same distances, by lowest rank.

    The transfers (received, sent) are those of the set's first rank.
    """
    received: dict[int, list[Transfer]] = {}
    sent: dict[int, list[Transfer]] = {}
    for move in transfers:
        received.setdefault(move.target, []).append(move)
        sent.setdefault(move.source, []).append(move)
    classes: dict[tuple[Any, ...], list[int]] = {}
    for rank in range(members.ranks):
        distances = tuple(
            (move.tag, move.source - move.target, rank == move.source, move.send_row, move.recv_row)
            for move in (*received.get(rank, ()), *sent.get(rank, ()))
        )
        classes.setdefault((members.by_set[:, rank].tobytes(), distances), []).append(rank)
    return [(tuple(ranks), received.get(ranks[0], []), sent.get(ranks[0], [])) for ranks in classes.values()]


def _rank_plan(work: _Work, ranks: tuple[int, ...], layout: Layout) -> RankPlan:
    names, name = _names(work.trace, layout)
    columns = _columns(work, layout)
    columns["name"] = name
    columns["dep_offsets"], columns["dep_index"] = dependencies(work.trace, layout, work.leading)
    source_row = layout.row.copy()
    source_row[layout.move_at] = [move.size_row for move in layout.moves]
    column = _SIZE_COLUMN[layout.slot]
    column[layout.move_at] = [COMM if move.of_comm else OUTPUT for move in layout.moves]
    source = column * work.all_rows + work.kept[source_row]
    moved = np.flatnonzero(_MOVES_MEMORY[layout.slot])
    sent = np.flatnonzero(_COMMUNICATES[layout.slot])
    return RankPlan(
        ranks=ranks,
        names=names,
        columns=columns,
        row=work.kept[layout.row],
        comp_at=np.flatnonzero(layout.slot == COMP),
        moved_at=moved,
        moved_from=source[moved],
        sent_at=sent,
        sent_from=source[sent],
        closed=layout.closed,
    )


def _columns(work: _Work, layout: Layout) -> dict[str, NDArray[Any]]:
    """Return the columns of a RankGraph that no size or duration changes, less names and dependencies."""
    nodes = layout.nodes
    collective = layout.slot == COLL
    group = work.group_of[layout.row]
    comm_group, involved = np.zeros(nodes, dtype=np.int32), np.full(nodes, ABSENT)
    for index in np.unique(group[collective]).tolist():
        named = work.participants[index]
        if named is not None:
            here = collective & (group == index)
            comm_group[here], involved[here] = named.comm_group, named.involved_dims
    tag, source, target = (np.full(nodes, ABSENT) for _ in range(3))
    for index, (move, at) in enumerate(zip(layout.moves, layout.move_at.tolist(), strict=True)):
        own = move.target if index < layout.received else move.source
        tag[at], source[at], target[at] = move.tag, move.source - own, move.target - own
    return {
        "node_id": np.arange(nodes),
        "node_type": _NODE_TYPES[layout.slot],
        "is_cpu_op": np.zeros(nodes, dtype=np.bool_),
        "duration_us": np.zeros(nodes, dtype=np.int64),
        "comm_type": np.where(collective, COLLECTIVE_OF[work.trace.comm_type[layout.row]], -1).astype(np.int8),
        "comm_priority": np.full(nodes, ABSENT),
        "comm_tag": tag,
        "comm_src_delta": source,
        "comm_dst_delta": target,
        "comm_group": comm_group,
        "involved_dims": involved,
    }


def _names(trace: Trace, layout: Layout) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Name nodes ``L<layer>.<operator><what the node does>`` and return the distinct names and each node's index."""
    layers = int(trace.layer.max(initial=NO_LAYER)) + 2
    operator = trace.op[layout.row].astype(np.int64) * layers + (trace.layer[layout.row] - NO_LAYER)
    distinct, index = np.unique(operator * len(SUFFIXES) + layout.slot, return_inverse=True)
    names = []
    for code in distinct.tolist():
        operator_code, slot = divmod(code, len(SUFFIXES))
        op, layer = divmod(operator_code, layers)
        names.append(node_name(trace.op_names[op], layer + NO_LAYER, slot))
    return tuple(names), index.astype(np.int32)


def node_name(op: str, layer: int, slot: int) -> str:
    """Return the name of a node: ``L3.o_proj.collective``."""
    return ("" if layer == NO_LAYER else f"L{layer}.") + op + SUFFIXES[slot]
