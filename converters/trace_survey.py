"""What must be known of a whole trace before its first node is made: who runs what, and where stages begin and end.

A trace is surveyed in blocks of rows, in order; one block is the plain case. What is kept is bounded by ranks, rank
sets, stages and sub-batches, never by rows, so that a trace of any length converts in constant memory. `BlockRows` says
which rows of a block become nodes; both passes over a trace ask it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from converters.row_slots import COLL, MEMORY_SLOTS, BoolArray, row_slots
from foundation.errors import UserError
from foundation.records import dataclass
from trace_gen.trace import CommType, RowKind, Trace, parts_of

IntArray = NDArray[np.int64]
NEVER = np.iinfo(np.int64).max
"""A row after all others: the first work of a stage that does not work."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockRows:
    """The rows of a block that become nodes. Shapes ``[rows]``; `slots` ``[rows, SLOTS]``.

    `group` is the group of each row's collective, by `group_code`; -1 for none. `moves` only move memory; `receives` do
    nothing but await data of other ranks; `passes` send on what the row that they wait for has put out.
    """

    slots: BoolArray
    kept: BoolArray
    group: IntArray
    moves: BoolArray
    receives: BoolArray
    passes: BoolArray

    @staticmethod
    def of(block: Trace) -> BlockRows:
        """Look at every row of `block`."""
        passes: BoolArray = block.comm_type == CommType.PERMUTE
        collective = (block.comm_type != CommType.NONE) & ~passes
        stated = block.comm_group.astype(np.int64)
        group = np.where(stated >= 0, group_code(stated, stated=True), group_code(block.rank_set, stated=False))
        group[~collective] = -1
        slots = row_slots(block)
        slots[:, COLL] &= _sizes(block)[group] > 1  # with one rank there is nothing to do
        moves: BoolArray = (block.kind == RowKind.MEM_LOAD) | (block.kind == RowKind.MEM_STORE)
        receives = _receives_only(block)
        return BlockRows(slots, slots.any(axis=1) | receives | passes, group, moves, receives, passes)


def group_code(index: IntArray | NDArray[np.int32], *, stated: bool) -> IntArray:
    """Return the code of groups: `index` into the trace's groups where they are `stated`, else into its rank sets.

    (A collective without a group is over the ranks that run the row.) Unlike positions in both tables laid end to end,
    codes do not change when the tables grow.
    """
    result: IntArray = index.astype(np.int64) * 2 + (0 if stated else 1)
    return result


@dataclass(slots=True)
class Span:
    """The rows of one stage, rank set and sub-batch. -1: there is none.

    `last` is the last of them, `first_working` and `last_working` those from the stage's first work on, `sent_bytes`
    the output of the latter; `memory`: whether any of them moves memory.
    """

    last: int = -1
    first_working: int = -1
    last_working: int = -1
    sent_bytes: int = 0
    memory: bool = False


@dataclass(slots=True)
class Survey:
    """What the blocks so far come to."""

    rank_sets: tuple[tuple[int, ...], ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()
    group_parts: tuple[int, ...] = ()
    rows: int = 0
    has_dependencies: bool = False
    """Whether rows name others that they wait for, which may be any, or pass on what those have put out."""
    first_work: dict[int, int] = field(default_factory=dict)
    """Stage -> its first row that does more than move memory. Moves before it wait for nothing."""
    working: set[int] = field(default_factory=set)
    """Stages that do more than move memory and receive."""
    spans: dict[tuple[int, int, int], Span] = field(default_factory=dict)
    """(stage, rank set, sub-batch) -> its rows."""
    users: dict[tuple[int, int], tuple[int, str]] = field(default_factory=dict)
    """(group code, rank set) -> the first row with a collective of that group on those ranks, and its operator."""

    def add(self, block: Trace) -> BlockRows:
        """Add the next rows; return which of them become nodes."""
        rows = BlockRows.of(block)
        self.rank_sets, self.groups, self.group_parts = block.rank_sets, block.groups, block.group_parts
        self.has_dependencies |= bool(block.dep_rows.size) or bool(rows.passes.any())
        self._note_groups(block, rows.group)
        at = np.flatnonzero(rows.kept)
        self._note_work(block, rows, at)
        self._note_spans(block, rows, at)
        self.rows += block.rows
        return rows

    def first_works(self, stages: NDArray[np.int32]) -> IntArray:
        """Return the first work of each of `stages`, `NEVER` where there is none."""
        distinct, inverse = np.unique(stages, return_inverse=True)
        first = np.array([self.first_work.get(stage, NEVER) for stage in distinct.tolist()], dtype=np.int64)
        result: IntArray = first[inverse.reshape(-1)]
        return result

    def ranks(self) -> int:
        """Return the number of ranks: the highest that any rank set names, and all below it."""
        return 1 + max((rank for ranks in self.rank_sets for rank in ranks), default=0)

    def check_groups(self) -> None:
        """Fail where a rank runs a collective of a group that it is not in, or where a group names ranks of no row."""
        last = self.ranks() - 1
        for (code, rank_set), (row, op) in self.users.items():
            if code % 2:
                continue
            group, ranks = self.groups[code // 2], self.rank_sets[rank_set]
            if max(group, default=0) > last or not set(ranks) <= set(group):
                raise UserError(
                    f"row {row} ({op}) has a collective over ranks {_few(group)}, which are not the "
                    f"ranks that run it, {_few(ranks)}",
                    fix="let every rank that runs the row be in its communication group",
                )
            if len(group) % parts_of(self.group_parts, code // 2):
                parts = parts_of(self.group_parts, code // 2)
                raise UserError(
                    f"row {row} ({op}) has a collective in {parts} groups of {len(group)} ranks",
                    fix="let the groups be of equal size",
                )

    def spans_of(self, stage: int) -> Iterator[tuple[tuple[int, int, int], Span]]:
        """Yield the rank sets and sub-batches of a stage with their rows."""
        return ((key, span) for key, span in self.spans.items() if key[0] == stage)

    def used_groups(self) -> set[int]:
        """Return the codes of the groups that collectives are over."""
        return {code for code, _ in self.users}

    def _note_groups(self, block: Trace, group: IntArray) -> None:
        with_group = np.flatnonzero(group >= 0)
        key = group[with_group] * (len(block.rank_sets) + 1) + block.rank_set[with_group]
        for at in with_group[np.unique(key, return_index=True)[1]].tolist():
            pair = int(group[at]), int(block.rank_set[at])
            self.users.setdefault(pair, (self.rows + at, block.name(at)))

    def _note_work(self, block: Trace, rows: BlockRows, at: IntArray) -> None:
        works = at[~rows.moves[at]]
        stages, first = np.unique(block.stage[works], return_index=True)
        for stage, row in zip(stages.tolist(), works[first].tolist(), strict=True):
            self.first_work.setdefault(stage, self.rows + row)
        self.working.update(block.stage[works[~rows.receives[works]]].tolist())

    def _note_spans(self, block: Trace, rows: BlockRows, at: IntArray) -> None:
        if not at.size:
            return
        number = self.rows + at
        works = number >= self.first_works(block.stage[at])
        keys, starts, order = _sorted_runs(np.stack([block.stage[at], block.rank_set[at], block.sub_batch[at]]))
        first = np.minimum.reduceat(np.where(works, number, NEVER)[order], starts)
        last_working = np.maximum.reduceat(np.where(works, number, -1)[order], starts)
        last = np.maximum.reduceat(number[order], starts)
        moving: BoolArray = np.any(rows.slots[at][:, MEMORY_SLOTS], axis=1)
        memory = np.logical_or.reduceat(moving[order], starts)
        for index, key in enumerate(keys):
            span = self.spans.setdefault(key, Span())
            span.last, span.memory = int(last[index]), span.memory or bool(memory[index])
            if last_working[index] >= 0:
                span.first_working = span.first_working if span.first_working >= 0 else int(first[index])
                span.last_working = int(last_working[index])
                span.sent_bytes = int(block.output_bytes[span.last_working - self.rows])


def _sorted_runs(columns: NDArray[np.int32]) -> tuple[list[tuple[int, int, int]], IntArray, IntArray]:
    """Return the distinct columns of a table, where each begins when they are sorted, and the order that sorts them."""
    order = np.lexsort(columns)
    ordered = columns[:, order]
    differs = np.flatnonzero(np.any(ordered[:, 1:] != ordered[:, :-1], axis=0)) + 1
    starts = np.concatenate([[0], differs]).astype(np.int64)
    keys = [(stage, ranks, batch) for stage, ranks, batch in ordered[:, starts].T.tolist()]
    return keys, starts, order


def _sizes(block: Trace) -> IntArray:
    """Return the number of ranks of every group by its code (and once more behind the end, for -1)."""
    sizes = np.zeros(2 * max(len(block.groups), len(block.rank_sets)) + 1, dtype=np.int64)
    sizes[0 : 2 * len(block.groups) : 2] = [block.group_size(index) for index in range(len(block.groups))]
    sizes[1 : 2 * len(block.rank_sets) + 1 : 2] = [len(ranks) for ranks in block.rank_sets]
    return sizes


def _receives_only(block: Trace) -> BoolArray:
    """Return which rows do nothing but await data of other ranks (COMM rows without a collective), ``[rows]``."""
    waiting: BoolArray = (
        (block.kind == RowKind.COMM) & (block.comm_type == CommType.NONE) & (np.diff(block.dep_offsets) > 0)
    )
    for row in np.flatnonzero(waiting).tolist():
        own = set(block.rank_sets[block.rank_set[row]])
        parents = np.unique(block.rank_set[block.dependencies(row)]).tolist()
        waiting[row] = all(own.isdisjoint(block.rank_sets[parent]) for parent in parents)
    return waiting


def _few(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
