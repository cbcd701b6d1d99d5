"""Which activations move between ranks: at pipeline stage boundaries, and where a dependency crosses ranks.

    stage s      ... r(last) --SEND tag--.                      rank i of stage s
    stage s+1                             '--RECV tag--> r(first) ...   rank i of stage s+1

A transfer is SEND on one rank and RECV on another; both carry the output bytes of the row that produced the data, or
its communication bytes where it has some without a collective (the KV blocks of a prefill operator). At a stage
boundary that is the last row that the sending rank runs itself: members of a wave each send their own activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trace_gen.trace import CommType, RowKind, Trace

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Transfer:
    """One SEND/RECV pair: sent after `send_row` (a row of `source`), awaited by `recv_row` (a row of `target`)."""

    tag: int
    source: int
    target: int
    send_row: int
    recv_row: int
    size_row: int
    """The row whose bytes are moved: its `output_bytes`, or its `comm_bytes` where `of_comm`."""
    of_comm: bool = False


@dataclass(frozen=True, slots=True)
class Membership:
    """Which rows run on which ranks: ``by_set[i]`` says for rank set i which ranks it has, ``[sets, ranks]``."""

    by_set: BoolArray
    rank_set: NDArray[np.int32]

    @staticmethod
    def of(trace: Trace) -> Membership:
        """Build the table of `trace`."""
        ranks = 1 + max((max(ranks, default=0) for ranks in trace.rank_sets), default=0)
        table = np.zeros((len(trace.rank_sets), ranks), dtype=np.bool_)
        for index, members in enumerate(trace.rank_sets):
            table[index, list(members)] = True
        return Membership(table, trace.rank_set)

    @property
    def ranks(self) -> int:
        """Number of ranks: the highest that any rank set names, and all below it."""
        return int(self.by_set.shape[1])

    def rows_of(self, rank: int) -> IntArray:
        """Return the rows that `rank` runs, ascending."""
        result: IntArray = np.flatnonzero(self.by_set[self.rank_set, rank])
        return result

    def ranks_of(self, rows: IntArray) -> IntArray:
        """Return the ranks that run any of `rows`, ascending."""
        result: IntArray = np.flatnonzero(self.by_set[np.unique(self.rank_set[rows])].any(axis=0))
        return result


def is_move(trace: Trace) -> BoolArray:
    """Return which rows only move memory, shape ``[rows]``."""
    result: BoolArray = (trace.kind == RowKind.MEM_LOAD) | (trace.kind == RowKind.MEM_STORE)
    return result


def receives_only(trace: Trace, members: Membership) -> BoolArray:
    """Return which rows do nothing but await data of other ranks (COMM rows without a collective), ``[rows]``."""
    waiting: BoolArray = (
        (trace.kind == RowKind.COMM) & (trace.comm_type == CommType.NONE) & (np.diff(trace.dep_offsets) > 0)
    )
    for row in np.flatnonzero(waiting).tolist():
        parents = trace.rank_set[trace.dependencies(row)]
        waiting[row] = not (members.by_set[parents] & members.by_set[trace.rank_set[row]]).any()
    return waiting


def leading_moves(trace: Trace) -> BoolArray:
    """Return which rows move memory before their stage computes (KV blocks loaded or evicted), shape ``[rows]``."""
    moves = is_move(trace)
    leading = np.zeros(trace.rows, dtype=np.bool_)
    for stage in np.unique(trace.stage[moves]).tolist():
        in_stage = trace.stage == stage
        working = np.flatnonzero(in_stage & ~moves)
        first = int(working[0]) if working.size else 0
        leading |= in_stage & moves & (np.arange(trace.rows) < first)
    return leading


def find_transfers(trace: Trace, members: Membership, leading: BoolArray) -> list[Transfer]:
    """Return every transfer of `trace`; tags count up from 0, one for each pair of rows."""
    transfers: list[Transfer] = []
    tag = 0
    boundaries: set[tuple[int, int]] = set()
    working = ~leading & ~is_move(trace) & ~receives_only(trace, members)
    stages = np.unique(trace.stage[working]).tolist()
    for stage, following in pairwise(stages):
        rows = np.flatnonzero((trace.stage == following) & ~leading)
        for batch in np.unique(trace.sub_batch[rows]).tolist():
            found = _boundary(trace, members, leading, (stage, following, batch), tag)
            boundaries.update((item.size_row, item.recv_row) for item in found)
            transfers += found
            tag += 1
    if trace.dep_rows.size:
        transfers += _crossing(trace, members, boundaries, tag)
    return transfers


def _boundary(
    trace: Trace, members: Membership, leading: BoolArray, where: tuple[int, int, int], tag: int
) -> list[Transfer]:
    """Return the transfers from `where` = (stage, next stage, sub-batch of the next stage)."""
    stage, following, batch = where
    sources, targets = np.flatnonzero(trace.stage == stage), np.flatnonzero(trace.stage == following)
    stage_row = int(_prefer(trace, sources[~leading[sources]], batch)[-1])
    senders = members.ranks_of(sources)
    transfers = []
    for index, target in enumerate(members.ranks_of(targets).tolist()):
        first = targets[members.by_set[trace.rank_set[targets], target] & ~leading[targets]]
        first = first[trace.sub_batch[first] == batch]
        source = int(senders[index % senders.size])
        if first.size == 0 or source == target:
            continue
        own = sources[members.by_set[trace.rank_set[sources], source]]
        send_row = int(_prefer(trace, own, batch)[-1])
        worked = own[~leading[own]]
        size_row = int(_prefer(trace, worked, batch)[-1]) if worked.size else stage_row
        transfers.append(Transfer(tag, source, target, send_row, int(first[0]), size_row))
    return transfers


def _prefer(trace: Trace, rows: IntArray, batch: int) -> IntArray:
    """Return the rows of the sub-batch, or all of them where the stage does not split the batch."""
    own = rows[trace.sub_batch[rows] == batch]
    return own if own.size else rows


def _crossing(trace: Trace, members: Membership, boundaries: set[tuple[int, int]], tag: int) -> list[Transfer]:
    """Return the transfers of explicit dependencies on rows that the waiting rank does not run itself."""
    waiting = np.repeat(np.arange(trace.rows), np.diff(trace.dep_offsets))
    lacking = members.by_set[trace.rank_set[waiting]] & ~members.by_set[trace.rank_set[trace.dep_rows]]
    transfers = []
    for at in np.flatnonzero(lacking.any(axis=1)).tolist():
        row, parent = int(waiting[at]), int(trace.dep_rows[at])
        if (parent, row) in boundaries:
            continue
        sources = np.flatnonzero(members.by_set[trace.rank_set[parent]]).tolist()
        of_comm = bool(trace.comm_type[parent] == CommType.NONE and trace.comm_bytes[parent] > 0)
        for index, target in enumerate(np.flatnonzero(members.by_set[trace.rank_set[row]]).tolist()):
            if lacking[at, target]:
                source = sources[index % len(sources)]
                transfers.append(Transfer(tag, source, target, parent, row, parent, of_comm))
        tag += 1
    return transfers
