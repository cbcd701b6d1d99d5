"""The way back from ranks: a placed trace as a text of LLMServingSim, where that format can say what it holds.

One rank's times and sizes stand for its stage's; for ``ORCA`` they are multiplied by the NPUs of a stage, which is what
`placement` divides by. What a format cannot say (explicit dependencies, several steps, stages that are not runs of
equally many ranks, rows on some ranks of a stage outside a section, groups side by side) is a `UserError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

import numpy as np

from converters.text.columns import records
from converters.text.records import NO_NODE, Operand, Record, RecordStream
from foundation.errors import UserError
from foundation.records import dataclass
from trace_gen.trace import CommType, Location, RowKind, Trace

_MOVES = (RowKind.MEM_LOAD, RowKind.MEM_STORE)


def gather(trace: Trace, name: str) -> RecordStream:
    """Return `trace` as an unplaced stream of the format `name` (orca, colocated, prefill, decode)."""
    if any(parts > 1 for parts in trace.group_parts):
        raise _cannot(name, "collectives of several groups side by side")
    if (trace.comm_type == CommType.PERMUTE).any():
        raise _cannot(name, "data passed round")
    if trace.dep_rows.size:
        raise _cannot(name, "explicit dependencies")
    if trace.steps > 1:
        raise _cannot(name, f"{trace.steps} steps")
    gatherer = _Gatherer(name, _stage_ranks(trace, name))
    gathered = list(gatherer.rows(records(trace)))
    attributes = {"format": name, "npu_group": str(len(gatherer.stages))}
    if name == "orca":
        if gatherer.edges != _even(len(gathered) - gatherer.moves, len(gatherer.stages)):
            raise _cannot(name, "pipeline stages of unequal numbers of rows")
    elif gatherer.edges:
        attributes["pp_stage_boundaries"] = ",".join(map(str, gatherer.edges))
    return RecordStream(attributes, len(gathered), iter(gathered))


def _cannot(name: str, what: str) -> UserError:
    return UserError(f"a trace with {what} cannot be written as {name.upper()}", fix="write it as orrery")


def _even(rows: int, stages: int) -> list[int]:
    size, extra = divmod(rows, stages)
    return [size * stage + min(stage, extra) for stage in range(1, stages)]


def _stage_ranks(trace: Trace, name: str) -> list[tuple[int, ...]]:
    """Return the ranks of every stage; they must be runs of equally many."""
    stages = [
        tuple(
            sorted({rank for index in np.unique(trace.rank_set[trace.stage == s]) for rank in trace.rank_sets[index]})
        )
        for s in range(trace.stages)
    ]
    width = len(stages[0])
    if any(ranks != tuple(range(s * width, (s + 1) * width)) for s, ranks in enumerate(stages)):
        raise _cannot(name, "pipeline stages that are not runs of equally many ranks")
    return stages


@dataclass(slots=True)
class _Gatherer:
    """State of one pass: how many rows are out, where stages began, which section is open."""

    name: str
    stages: list[tuple[int, ...]]
    edges: list[int] = field(default_factory=list)
    moves: int = 0
    section: str = ""
    numbers: dict[int, int] = field(default_factory=dict)
    """Request -> its ATTENTION section's number in this layer."""

    @property
    def share(self) -> int:
        return len(self.stages[0]) if self.name == "orca" else 1

    def rows(self, stream: RecordStream) -> Iterator[Record]:
        """Yield the text's rows, markers included."""
        written, stage = 0, 0
        for record in stream.records:
            if record.kind in _MOVES and record.stage > 0:
                continue  # the text says once what every stage moves
            produced = list(self._row(record))
            if record.kind in _MOVES:
                self.moves += 1
            elif record.stage != stage:
                if record.stage != stage + 1:
                    raise _cannot(self.name, "pipeline stages out of order")
                stage = record.stage
                closing = 1 if produced[0].op.endswith(" END") else 0
                self.edges.append(written + closing)
            written += 0 if record.kind in _MOVES else len(produced)
            yield from produced
        if self.section:
            yield self._end()

    def _row(self, record: Record) -> Iterator[Record]:
        if record.kind in _MOVES:
            there = record.input if record.kind == RowKind.MEM_LOAD else record.output
            yield _moved(record, _named(there))
            return
        whole = record.ranks == self.stages[record.stage]
        if record.op in ("expert_dispatch", "expert_combine") and record.kind == RowKind.COMM:
            yield from self._expert(record)
        elif whole and not (self.section.startswith("EXPERT") and len(record.ranks) == 1):
            if self.section:
                yield self._end()
            yield self._plain(record, self.share)
        elif len(record.ranks) == 1:
            yield from self._sectioned(record)
        else:
            raise _cannot(self.name, f"the operator {record.op} on some ranks of a stage")

    def _sectioned(self, record: Record) -> Iterator[Record]:
        place = self.stages[record.stage].index(record.ranks[0])
        if self.name == "orca":
            number = self.numbers.setdefault(record.request, len(self.numbers))
            if record.request < 0 or number % len(self.stages[0]) != place:
                raise _cannot(self.name, f"the operator {record.op} on another rank than its request's turn")
            marker = f"ATTENTION {number}"
        else:
            marker = f"EXPERT {place}"
        if marker != self.section:
            self.section = marker
            yield Record(marker, kind=RowKind.COMM)
        yield self._plain(record, 1)

    def _expert(self, record: Record) -> Iterator[Record]:
        if self.name == "orca":
            raise _cannot(self.name, "experts")
        opens = record.op == "expert_dispatch"
        self.section = "EXPERT 0" if opens else ""
        marker = "EXPERT 0" if opens else "EXPERT END"
        yield Record(marker, kind=RowKind.COMM, comm_type=record.comm_type, comm_bytes=record.comm_bytes, group=(0,))

    def _end(self) -> Record:
        marker = self.section.split()[0] + " END"
        self.section = ""
        self.numbers.clear()
        return Record(marker, kind=RowKind.COMM)

    def _plain(self, record: Record, share: int) -> Record:
        remote = Operand(Location.REMOTE, NO_NODE)
        operands = [_named(operand) for operand in (record.input, record.weight, record.output)]
        if self.name == "orca":
            operands = [remote, Operand(Location.LOCAL, NO_NODE), remote]
        sizes = (record.input.bytes, record.weight.bytes, record.output.bytes)
        moved = [operand._replace(bytes=size * share) for operand, size in zip(operands, sizes, strict=True)]
        return Record(
            record.op,
            latency=(record.latency[0] * share,),
            request=record.request,
            sub_batch=record.sub_batch,
            input=moved[0],
            weight=moved[1],
            output=moved[2],
            comm_type=record.comm_type,
            comm_bytes=record.comm_bytes * share,
            group=(0,) if record.comm_type != CommType.NONE else None,
        )


def _moved(record: Record, there: Operand) -> Record:
    """Return a KV movement as the texts write it: the memory and the bytes in the weight columns."""
    side = Operand(Location.LOCAL, NO_NODE)
    return Record(record.op, kind=record.kind, input=side, weight=there, output=side)


def _named(operand: Operand) -> Operand:
    """LOCAL has no device number in the texts."""
    return operand._replace(node=NO_NODE) if operand.location == Location.LOCAL else operand
