"""First pass of a streamed conversion: what must be known of a trace before its first node can be written.

Everything kept is bounded by ranks, stages and sub-batches, never by rows, so that a trace of any length converts in
constant memory. The rules are those of `converters.transfers` and `converters.graph_plan`, worked out independently on
single records; tests compare the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from converters.collective_groups import Participants, name_groups
from converters.text.records import Operand, Record, RecordStream
from converters.transfers import Transfer
from foundation.errors import UserError
from trace_gen.trace import CommType, Location, RowKind

MOVES = (RowKind.MEM_LOAD, RowKind.MEM_STORE)


@dataclass(slots=True)
class _Stage:
    """One pipeline stage: its ranks, its first working row, and by sub-batch its last row (all and working)."""

    ranks: set[int] = field(default_factory=set)
    first_work: int | None = None
    last: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Sub-batch -> (row, output bytes) of the last row that works."""
    last_of_rank: dict[tuple[int, int], int] = field(default_factory=dict)
    """(rank, sub-batch) -> that rank's last row, memory moved beforehand included."""
    sent: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    """(rank, sub-batch) -> (row, output bytes) of that rank's last row that works."""
    sent_of_any: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Rank -> the same of its last row of any sub-batch."""
    first_of_rank: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the first pass found. `transfers` also carry their bytes: ``sizes[tag, source]``."""

    ranks: int
    first_work: dict[int, int | None]
    transfers: tuple[Transfer, ...]
    sizes: dict[tuple[int, int], int]
    participants: dict[tuple[int, ...], Participants | None]
    communicators: dict[int, tuple[int, ...]]
    streamable: bool
    """False for explicit dependencies: they may reach back to any row."""


def survey(stream: RecordStream, network_dims: Sequence[int] | None) -> Survey:
    """Read `stream` to its end."""
    stages: dict[int, _Stage] = {}
    groups: dict[tuple[int, ...], bool] = dict.fromkeys(stream.groups, False)
    sets: dict[tuple[int, ...], bool] = dict.fromkeys(stream.rank_sets, False)
    streamable = True
    for row, record in enumerate(stream.records):
        streamable = streamable and not record.deps
        sets.setdefault(record.ranks, False)
        if record.group is not None:
            groups.setdefault(record.group, False)
        if record.comm_type != CommType.NONE:
            _use(record, row, groups, sets)
        _note(stages.setdefault(record.stage, _Stage()), record, row)
    ranks = 1 + max((max(members, default=0) for members in sets), default=0)
    listed = [members if used else members[:1] for members, used in (*groups.items(), *sets.items())]
    table = name_groups(listed, ranks, network_dims)
    participants: dict[tuple[int, ...], Participants | None] = {}
    for members, named in zip((*groups, *sets), table.participants, strict=True):
        participants[members] = participants.get(members) or named
    transfers, sizes = _transfers(stages)
    first = {number: stage.first_work for number, stage in stages.items()}
    return Survey(ranks, first, tuple(transfers), sizes, participants, table.communicators, streamable)


def has_collective(record: Record) -> bool:
    """Whether the row ends with a collective (which a group of one rank still drops)."""
    return record.comm_type != CommType.NONE and record.kind in (RowKind.COMPUTE, RowKind.COMM)


def has_nodes(record: Record, alone: bool) -> bool:
    """Whether the row becomes any node; `alone`: its collective has one rank."""
    return record.kind in (RowKind.COMPUTE, *MOVES) or (has_collective(record) and not alone)


def outside(operand: Operand) -> bool:
    """Whether an operand of a COMPUTE row has to be moved."""
    return operand.location != Location.LOCAL and operand.bytes > 0


def group_of(record: Record) -> tuple[int, ...]:
    """Return the ranks of the row's collective, in ring order."""
    return record.ranks if record.group is None else record.group


def _use(record: Record, row: int, groups: dict[tuple[int, ...], bool], sets: dict[tuple[int, ...], bool]) -> None:
    if record.group is None:
        sets[record.ranks] = True
        return
    groups[record.group] = True
    if not set(record.ranks) <= set(record.group):
        raise UserError(
            f"row {row} ({record.op}) has a collective over ranks {record.group[:8]}, not those that run it",
            fix="let every rank that runs the row be in its communication group",
        )


def _note(stage: _Stage, record: Record, row: int) -> None:
    batch = record.sub_batch
    if not has_nodes(record, alone=len(group_of(record)) <= 1):
        return
    stage.ranks.update(record.ranks)
    working = record.kind not in MOVES
    if working and stage.first_work is None:
        stage.first_work = row
    for rank in record.ranks:
        stage.last_of_rank[rank, batch] = row
        if stage.first_work is not None:
            stage.sent[rank, batch] = stage.sent_of_any[rank] = (row, record.output.bytes)
            stage.first_of_rank.setdefault((rank, batch), row)
    if stage.first_work is not None:
        stage.last[batch] = (row, record.output.bytes)


def _transfers(stages: dict[int, _Stage]) -> tuple[list[Transfer], dict[tuple[int, int], int]]:
    """Return the transfers between stages that work, in order, and the bytes of each tag and sender."""
    working = sorted(number for number, stage in stages.items() if stage.first_work is not None)
    transfers: list[Transfer] = []
    sizes: dict[tuple[int, int], int] = {}
    tag = 0
    for number, following in pairwise(working):
        source, target = stages[number], stages[following]
        for batch in sorted(target.last):
            for move, size in _boundary(source, target, batch, tag):
                transfers.append(move)
                sizes[tag, move.source] = size
            tag += 1
    return transfers, sizes


def _boundary(source: _Stage, target: _Stage, batch: int, tag: int) -> list[tuple[Transfer, int]]:
    """Return the transfers of a sub-batch between two stages, with their bytes."""
    senders = sorted(source.ranks)
    found = []
    for index, rank in enumerate(sorted(target.ranks)):
        sender = senders[index % len(senders)]
        first = target.first_of_rank.get((rank, batch))
        if first is None or sender == rank:
            continue
        last = source.last_of_rank.get((sender, batch))
        if last is None:
            last = max(row for (owner, _), row in source.last_of_rank.items() if owner == sender)
        size_row, size = _sent(source, sender, batch)
        found.append((Transfer(tag, sender, rank, last, first, size_row), size))
    return found


def _sent(source: _Stage, sender: int, batch: int) -> tuple[int, int]:
    """Return the row whose output `sender` sends, and its bytes: its own last one, else the stage's."""
    own = source.sent.get((sender, batch)) or source.sent_of_any.get(sender)
    return own or source.last.get(batch) or max(source.last.values())
