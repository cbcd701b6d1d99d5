"""The structure of a trace's execution graph: the nodes of every rank, without sizes and durations.

Ranks whose nodes differ in nothing but their own number share a `RankPlan`. A `Planner` is made from a survey of the
whole trace and plans it block by block; `make_plan` does both for a trace at hand. `converters.lowering` fills in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.collective_groups import Participants, name_groups
from converters.execution_graph import ABSENT, CollectiveType
from converters.node_layout import BlockTransfers, Carry, IntArray, Layout, dependencies, lay_out
from converters.row_slots import COLL, COMMUNICATION_SLOTS, COMP, MEMORY_SLOTS, SLOT_NODE_TYPES, SUFFIXES, BoolArray
from converters.trace_survey import NEVER, BlockRows, Survey
from converters.transfers import Transfer, boundary_transfers, crossing_transfers, passing_transfers
from foundation.records import dataclass
from trace_gen.trace import NO_LAYER, CommType, Trace, parts_of

INPUT, WEIGHT, OUTPUT, COMM, TRANSFERS = range(5)
"""The trace's bytes columns, in the order in which `RankPlan` indexes them, and the bytes of boundaries' transfers."""

_NODE_TYPES = np.array(SLOT_NODE_TYPES, dtype=np.int8)
_MOVES_MEMORY = np.isin(np.arange(len(SLOT_NODE_TYPES)), MEMORY_SLOTS)
_COMMUNICATES = np.isin(np.arange(len(SLOT_NODE_TYPES)), COMMUNICATION_SLOTS)
_SIZE_COLUMN = np.array([OUTPUT, INPUT, WEIGHT, 0, COMM, OUTPUT, OUTPUT, 0])
_COLLECTIVE = {
    CommType.NONE: -1,
    CommType.ALLREDUCE: CollectiveType.ALL_REDUCE,
    CommType.ALLGATHER: CollectiveType.ALL_GATHER,
    CommType.REDUCESCATTER: CollectiveType.REDUCE_SCATTER,
    CommType.ALLTOALL: CollectiveType.ALL_TO_ALL,
    CommType.BROADCAST: CollectiveType.BROADCAST,
    CommType.PERMUTE: -1,
}
_COLLECTIVE_OF = np.array([_COLLECTIVE[comm] for comm in CommType], dtype=np.int8)
"""Chakra's collective type of each `CommType`, -1 for none."""


@dataclass(frozen=True, slots=True, eq=False)
class RankPlan:
    """The nodes that a block adds to like ranks, and where each finds its duration and size in the block.

    `columns` are the RankGraph columns that no size or duration changes (in `dep_index`, nodes are numbered through all
    blocks); `row` is every node's row in the block. `comp_at` are the positions of COMP nodes; `moved_at` those of MEM
    nodes and `sent_at` of communication, with `moved_from` and `sent_from` their places in the bytes columns laid end
    to end (input, weight, output, comm; where a trace has several blocks, then those of the boundaries' transfers).
    `closed` says that the last node is a COMP of 0 ns. No nodes means that the block leaves the ranks idle.
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


@dataclass(slots=True)
class _LikeRanks:
    """Ranks that run the same rows with transfers over the same distances; the transfers are the first one's."""

    ranks: tuple[int, ...]
    received: list[Transfer]
    sent: list[Transfer]
    closes_after: int = -1
    """The row of the whole trace after which the rank is closed: its last; -1 where it need not be."""
    carry: Carry = field(default_factory=Carry)


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """One block on its way to plans: its rows, their numbers from `first` on, and which of them lead their stage."""

    trace: Trace
    rows: BlockRows
    first: int
    leading: BoolArray
    whole: bool
    """Whether the block is all of the trace: transfers then find their bytes in its own columns."""


class Planner:
    """Plans the blocks of a surveyed trace, in order."""

    def __init__(self, survey: Survey, network_dims: Sequence[int] | None, crossing: Sequence[Transfer] = ()) -> None:
        """`network_dims` as for `name_groups`; `crossing`: transfers beside those of the stages' boundaries."""
        survey.check_groups()
        self.survey = survey
        self.ranks = survey.ranks()
        self.members = rank_table(survey.rank_sets, self.ranks)
        self.groups, self._participants = _name(survey, self.ranks, network_dims)
        self.boundaries, _ = boundary_transfers(survey)
        self.like = list(self._like_ranks([*self.boundaries, *crossing]))
        self._planned = 0

    @property
    def transfer_bytes(self) -> IntArray:
        """The bytes of each boundary's transfer, as the survey found them."""
        return np.array([transfer.bytes for transfer in self.boundaries], dtype=np.int64)

    def plan(self, block: Trace, rows: BlockRows | None = None) -> tuple[RankPlan, ...]:
        """Return what the next rows of the trace add to each set of like ranks (`rows`: what the survey said)."""
        rows = BlockRows.of(block) if rows is None else rows
        number = self._planned + np.arange(block.rows)
        leading = rows.moves & (number < _before_work(self.survey.first_works(block.stage)))
        found = _Block(block, rows, self._planned, leading, whole=block.rows == self.survey.rows)
        self._planned += block.rows
        return tuple(self._rank_plan(found, like) for like in self.like)

    def idle_ranks(self) -> list[tuple[int, ...]]:
        """Return the like ranks for which the blocks so far had no node."""
        return [like.ranks for like in self.like if like.carry.nodes == 0]

    def _like_ranks(self, transfers: Sequence[Transfer]) -> Iterator[_LikeRanks]:
        received: dict[int, list[Transfer]] = {}
        sent: dict[int, list[Transfer]] = {}
        for move in transfers:
            received.setdefault(move.target, []).append(move)
            sent.setdefault(move.source, []).append(move)
        classes: dict[tuple[Any, ...], list[int]] = {}
        divided = [named for named in self._participants.values() if named.by_rank]
        for rank in range(self.ranks):
            distances = tuple(
                (move.tag, move.source - move.target, rank == move.source, move.send_row, move.recv_row)
                for move in (*received.get(rank, ()), *sent.get(rank, ()))
            )
            meets = tuple(named.of(rank) for named in divided if rank in named.by_rank)
            classes.setdefault((self.members[:, rank].tobytes(), distances, meets), []).append(rank)
        for ranks in classes.values():
            like = _LikeRanks(tuple(ranks), received.get(ranks[0], []), sent.get(ranks[0], []))
            spans = [span for key, span in self.survey.spans.items() if self.members[key[1], ranks[0]]]
            if like.sent and any(span.memory for span in spans):
                like.closes_after = max(span.last for span in spans)
                like.carry.loose = np.zeros(0, dtype=np.int64)
            yield like

    def _rank_plan(self, block: _Block, like: _LikeRanks) -> RankPlan:
        carry = like.carry
        rows = np.flatnonzero(self.members[block.trace.rank_set, like.ranks[0]] & block.rows.kept)
        closed = bool(rows.size) and like.closes_after == block.first + int(rows[-1])
        transfers = _in_block(block, like)
        layout = lay_out(rows, block.rows.slots, transfers, base=carry.nodes, closed=closed)
        names, name = _names(block.trace, layout)
        columns = {**self._columns(block, layout, like.ranks[0]), "name": name}
        columns["dep_offsets"], columns["dep_index"] = dependencies(block.trace, layout, block.leading, carry)
        source = _size_sources(block, layout)
        moved = np.flatnonzero(_MOVES_MEMORY[layout.slot])
        sent = np.flatnonzero(_COMMUNICATES[layout.slot])
        return RankPlan(
            ranks=like.ranks,
            names=names,
            columns=columns,
            row=layout.row,
            comp_at=np.flatnonzero(layout.slot == COMP),
            moved_at=moved,
            moved_from=source[moved],
            sent_at=sent,
            sent_from=source[sent],
            closed=closed,
        )

    def _columns(self, block: _Block, layout: Layout, rank: int) -> dict[str, NDArray[Any]]:
        """Return the columns of a RankGraph that no size or duration changes, less names and dependencies."""
        nodes = layout.nodes
        collective = layout.slot == COLL
        group = block.rows.group[layout.row]
        absent = np.full(nodes, ABSENT)
        comm_group, involved = np.zeros(nodes, dtype=np.int32), absent.copy()
        for code in sorted(set(group[collective].tolist())):
            here = collective & (group == code)
            named = self._participants[code].of(rank)
            comm_group[here], involved[here] = named.comm_group, named.involved_dims
        tag, source, target = (absent.copy() for _ in range(3))
        for index, (move, at) in enumerate(zip(layout.moves, layout.move_at.tolist(), strict=True)):
            own = move.target if index < layout.received else move.source
            tag[at], source[at], target[at] = move.tag, move.source - own, move.target - own
        return {
            "node_id": layout.base + np.arange(nodes),
            "node_type": _NODE_TYPES[layout.slot],
            "is_cpu_op": np.zeros(nodes, dtype=np.bool_),
            "duration_us": np.zeros(nodes, dtype=np.int64),
            "comm_type": np.where(collective, _COLLECTIVE_OF[block.trace.comm_type[layout.row]], -1).astype(np.int8),
            "comm_priority": absent,
            "comm_tag": tag,
            "comm_src_delta": source,
            "comm_dst_delta": target,
            "comm_group": comm_group,
            "involved_dims": involved,
        }


def make_plan(trace: Trace, network_dims: Sequence[int] | None) -> GraphPlan:
    """Work out the nodes of every rank of `trace` on a network of `network_dims` (None: dimensions are not used)."""
    survey = Survey()
    rows = survey.add(trace)
    crossing: list[Transfer] = []
    if survey.has_dependencies:
        trace = _bridged(trace, rows.kept)
        boundaries, tags = boundary_transfers(survey)
        crossing = crossing_transfers(trace, rank_table(trace.rank_sets, survey.ranks()), boundaries, tags)
        crossing += passing_transfers(trace, tags + len(crossing))
    planner = Planner(survey, network_dims, crossing)
    return GraphPlan(planner.plan(trace, rows), planner.groups)


def rank_table(rank_sets: Sequence[tuple[int, ...]], ranks: int) -> BoolArray:
    """Return which ranks each rank set has, ``[sets, ranks]``."""
    table = np.zeros((len(rank_sets), ranks), dtype=np.bool_)
    for index, members in enumerate(rank_sets):
        table[index, list(members)] = True
    return table


def _bridged(trace: Trace, kept: BoolArray) -> Trace:
    """Return `trace` with rows that waited for one without nodes waiting for what that waited for."""
    if kept.all():
        return trace
    parents: list[list[int]] = []
    for row in range(trace.rows):
        mine: list[int] = []
        for parent in trace.dependencies(row).tolist():
            mine += [parent] if kept[parent] else (parents[parent] if parent < row else [])
        parents.append(sorted(set(mine)))
    lists = [own if kept[row] else [] for row, own in enumerate(parents)]
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    flat = np.array([parent for mine in lists for parent in mine], dtype=np.int64)
    return replace(trace, dep_offsets=offsets, dep_rows=flat)


def _before_work(first: IntArray) -> IntArray:
    """Moves of a stage that never works do not come before its work."""
    return np.where(first == NEVER, -1, first)


@dataclass(frozen=True, slots=True)
class _Meeting:
    """How the collectives of a group are named on every rank; `by_rank`: where its parts are named differently."""

    everywhere: Participants
    by_rank: dict[int, Participants]

    def of(self, rank: int) -> Participants:
        """Return how `rank` names them."""
        return self.by_rank.get(rank, self.everywhere)


def _name(
    survey: Survey, ranks: int, network_dims: Sequence[int] | None
) -> tuple[dict[int, tuple[int, ...]], dict[int, _Meeting]]:
    """Return the communicator groups, and how each group in use is named, by its code. Others are cut to one rank."""
    used = survey.used_groups()
    parts = {2 * index: _parts(group, parts_of(survey.group_parts, index)) for index, group in enumerate(survey.groups)}
    parts |= {2 * index + 1: [members] for index, members in enumerate(survey.rank_sets)}
    cut = [(code, part if code in used else part[:1]) for code, own in parts.items() for part in own]
    table = name_groups([part for _, part in cut], ranks, network_dims)
    found: dict[int, list[tuple[tuple[int, ...], Participants]]] = {}
    for (code, part), named in zip(cut, table.participants, strict=True):
        if named is not None:
            found.setdefault(code, []).append((part, named))
    return table.communicators, {code: _meeting(own) for code, own in found.items()}


def _parts(group: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    size = len(group) // count
    return [group[first : first + size] for first in range(0, size * count, max(size, 1))] or [group]


def _meeting(parts: list[tuple[tuple[int, ...], Participants]]) -> _Meeting:
    first = parts[0][1]
    alike = all(named == first for _, named in parts)
    return _Meeting(first, {} if alike else {rank: named for part, named in parts for rank in part})


def _in_block(block: _Block, like: _LikeRanks) -> BlockTransfers:
    """Return the transfers whose row, on this rank, is in the block."""
    end = block.first + block.trace.rows
    received = [move for move in like.received if block.first <= move.recv_row < end]
    sent = [move for move in like.sent if block.first <= move.send_row < end]
    recv_rows = np.array([move.recv_row - block.first for move in received], dtype=np.int64)
    send_rows = np.array([move.send_row - block.first for move in sent], dtype=np.int64)
    return BlockTransfers(received, recv_rows, sent, send_rows)


def _size_sources(block: _Block, layout: Layout) -> IntArray:
    """Return where in the bytes columns, laid end to end, each node finds its size."""
    rows = block.trace.rows
    source: IntArray = _SIZE_COLUMN[layout.slot] * rows + layout.row
    if block.whole:
        found = [(COMM if move.of_comm else OUTPUT) * rows + move.size_row for move in layout.moves]
    else:
        found = [TRANSFERS * rows + move.number for move in layout.moves]
    source[layout.move_at] = np.array(found, dtype=np.int64)
    return source


def _names(trace: Trace, layout: Layout) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Name nodes ``L<layer>.<operator><what the node does>`` and return the distinct names and each node's index."""
    layers = int(trace.layer.max(initial=NO_LAYER)) + 2
    operator = trace.op[layout.row].astype(np.int64) * layers + (trace.layer[layout.row] - NO_LAYER)
    distinct, index = np.unique(operator * len(SUFFIXES) + layout.slot, return_inverse=True)
    prefixes = ["" if layer == NO_LAYER else f"L{layer}." for layer in range(NO_LAYER, NO_LAYER + layers)]
    operators, slots = np.divmod(distinct, len(SUFFIXES))
    parts = zip(*(part.tolist() for part in (*np.divmod(operators, layers), slots)), strict=True)
    names = tuple(prefixes[layer] + trace.op_names[op] + SUFFIXES[slot] for op, layer, slot in parts)
    return names, index.astype(np.int32)
