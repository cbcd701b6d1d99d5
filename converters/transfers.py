"""Which activations move between ranks: at pipeline stage boundaries, and where a dependency crosses ranks.

    stage s      ... r(last) --SEND tag--.                      rank i of stage s
    stage s+1                             '--RECV tag--> r(first) ...   rank i of stage s+1

A transfer is SEND on one rank and RECV on another. At a boundary both carry the output bytes of the last row, by then,
of the ranks that feed those of r(first): of the stage's last row in the plain case, of a member's own last row in a
wave. Where a dependency crosses ranks they carry the output of the row that produced the data, or its communication
bytes where it has some without a collective (the KV blocks of a prefill operator).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from converters.trace_survey import Span, Survey
from foundation.errors import UserError
from foundation.records import dataclass
from trace_gen.trace import CommType, Trace

IntArray = NDArray[np.int64]


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
    number: int = -1
    """Of a boundary's: its place among all of them; `bytes` are those of `size_row`, as the survey found them."""
    bytes: int = 0


class _Stage:
    """One stage as its ranks see it: arrays ``[ranks]`` by sub-batch, None for all of them together; -1 is no row."""

    def __init__(self, survey: Survey, stage: int, ranks: int) -> None:
        self._ranks = ranks
        self._last: dict[int | None, IntArray] = {}
        self._last_working: dict[int | None, IntArray] = {}
        self._first: dict[int, IntArray] = {}
        self.bytes_of_row: dict[int, int] = {}
        self.set_of_row: dict[int, int] = {}
        self.present = np.zeros(ranks, dtype=np.bool_)
        for (_, rank_set, batch), span in survey.spans_of(stage):
            members = np.array(survey.rank_sets[rank_set], dtype=np.int64)
            self.present[members] = True
            self._add(members, batch, rank_set, span)
        self.ranks = np.flatnonzero(self.present)
        self.batches = sorted(self._first)

    def sent_after(self, rank: int, batch: int) -> int:
        """Return the last row that `rank` runs: of the sub-batch, or of all where it has none of that."""
        return self._preferred(self._last, batch, np.array([rank]))

    def fed_by(self, ranks: IntArray, batch: int) -> int:
        """Return the last working row of `ranks`, chosen in the same way; that of the stage where they have none."""
        own = self._preferred(self._last_working, batch, ranks)
        return own if own >= 0 else self._preferred(self._last_working, batch, self.ranks)

    def first(self, rank: int, batch: int) -> int:
        """Return the first working row of `rank` in the sub-batch, -1 for none."""
        return int(self._first[batch][rank])

    def _add(self, members: IntArray, batch: int, rank_set: int, span: Span) -> None:
        for key in (batch, None):
            self._raise(self._last, key, members, span.last)
            self._raise(self._last_working, key, members, span.last_working)
        if span.first_working < 0:
            return
        first = self._first.setdefault(batch, np.full(self._ranks, -1, dtype=np.int64))
        known = first[members]
        first[members] = np.where(known < 0, span.first_working, np.minimum(known, span.first_working))
        self.set_of_row[span.first_working] = rank_set
        self.bytes_of_row[span.last_working] = span.sent_bytes

    def _raise(self, table: dict[int | None, IntArray], key: int | None, members: IntArray, row: int) -> None:
        column = table.setdefault(key, np.full(self._ranks, -1, dtype=np.int64))
        column[members] = np.maximum(column[members], row)

    @staticmethod
    def _preferred(table: dict[int | None, IntArray], batch: int, ranks: IntArray) -> int:
        own = int(table[batch][ranks].max()) if batch in table else -1
        return own if own >= 0 else int(table[None][ranks].max())


def boundary_transfers(survey: Survey) -> tuple[list[Transfer], int]:
    """Return the transfers between stages that work, in order, and how many tags they have: one for each sub-batch."""
    transfers: list[Transfer] = []
    tag = 0
    ranks = survey.ranks()
    stages = {stage: _Stage(survey, stage, ranks) for stage in sorted(survey.working)}
    for stage, following in pairwise(stages.values()):
        for batch in following.batches:
            found = _boundary(survey, stage, following, batch, tag)
            transfers += (replace(one, number=number) for number, one in enumerate(found, len(transfers)))
            tag += 1
    return transfers, tag


def _boundary(survey: Survey, stage: _Stage, following: _Stage, batch: int, tag: int) -> list[Transfer]:
    sender_of = np.full(stage.present.size, -1, dtype=np.int64)
    sender_of[following.ranks] = stage.ranks[np.arange(following.ranks.size) % stage.ranks.size]
    fed: dict[int, int] = {}
    transfers = []
    for target in following.ranks.tolist():
        row, source = following.first(target, batch), int(sender_of[target])
        if row < 0 or source == target:
            continue
        if row not in fed:
            senders = sender_of[list(survey.rank_sets[following.set_of_row[row]])]
            fed[row] = stage.fed_by(senders[senders >= 0], batch)
        sent = stage.bytes_of_row[fed[row]]
        transfers.append(Transfer(tag, source, target, stage.sent_after(source, batch), row, fed[row], bytes=sent))
    return transfers


def passing_transfers(trace: Trace, tag: int) -> list[Transfer]:
    """Return the transfers of PERMUTE rows: each rank gets from the one before it in its group what that has at hand.

    That is what the first row that it waits for has put out, by the row's own communication bytes. Tags go on from
    `tag`.
    """
    transfers = []
    before: dict[tuple[int, int], int] = {}
    for row, (batch, ranks, comm) in enumerate(
        zip(trace.sub_batch.tolist(), trace.rank_set.tolist(), trace.comm_type.tolist(), strict=True)
    ):
        if comm == CommType.PERMUTE:
            waits = trace.dependencies(row)
            source_row = int(waits[0]) if waits.size else before.get((batch, ranks), -1)
            if source_row < 0:
                raise UserError(
                    f"row {row} ({trace.name(row)}) passes on data, but no row comes before it",
                    fix="let it wait for the row that puts it out",
                )
            group = int(trace.comm_group[row])
            members = trace.groups[group] if group >= 0 else trace.rank_sets[ranks]
            if set(members) != set(trace.rank_sets[ranks]):
                raise UserError(
                    f"row {row} ({trace.name(row)}) passes on data between ranks that are not those that run it",
                    fix="let its communication group be its ranks",
                )
            size = trace.group_size(group) if group >= 0 else len(members)
            for first in range(0, len(members), size):
                ring = members[first : first + size]
                for source, target in zip(ring, (*ring[1:], *ring[:1]), strict=True):
                    transfers.append(Transfer(tag, source, target, source_row, row, row, of_comm=True))
            tag += 1
        before[batch, ranks] = row
    return transfers


def crossing_transfers(
    trace: Trace, ranks_of_set: NDArray[np.bool_], boundaries: list[Transfer], tag: int
) -> list[Transfer]:
    """Return the transfers of explicit dependencies on rows that the waiting rank does not run itself.

    `ranks_of_set` ``[sets, ranks]``: which ranks each rank set has. What a boundary moves already is left out; tags go
    on from `tag`.
    """
    moved = {(transfer.size_row, transfer.recv_row) for transfer in boundaries}
    waiting = np.repeat(np.arange(trace.rows), np.diff(trace.dep_offsets))
    lacking = ranks_of_set[trace.rank_set[waiting]] & ~ranks_of_set[trace.rank_set[trace.dep_rows]]
    transfers = []
    for at in np.flatnonzero(lacking.any(axis=1)).tolist():
        row, parent = int(waiting[at]), int(trace.dep_rows[at])
        if (parent, row) in moved:
            continue
        sources = np.flatnonzero(ranks_of_set[trace.rank_set[parent]]).tolist()
        of_comm = bool(trace.comm_type[parent] == CommType.NONE and trace.comm_bytes[parent] > 0)
        for index, target in enumerate(np.flatnonzero(ranks_of_set[trace.rank_set[row]]).tolist()):
            if lacking[at, target]:
                source = sources[index % len(sources)]
                transfers.append(Transfer(tag, source, target, parent, row, parent, of_comm=of_comm))
        tag += 1
    return transfers
