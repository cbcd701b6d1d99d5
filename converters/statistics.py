"""Sums over a text trace: rows, time, bytes and communication, by operator and collective. One streamed pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import field

from converters.text import RecordStream
from foundation.printable import printable
from foundation.records import dataclass
from trace_gen.trace import CommType, Location, RowKind


@dataclass(slots=True)
class TraceStatistics:
    """What `summarise` found. Times in ns and sizes in bytes, as the rows say them: of one rank of each row's set."""

    rows: int = 0
    ranks: int = 0
    stages: int = 0
    compute_ns: int = 0
    weight_bytes: int = 0
    loaded_bytes: int = 0
    stored_bytes: int = 0
    time_by_op: Counter[str] = field(default_factory=Counter)
    collectives: Counter[str] = field(default_factory=Counter)
    collective_bytes: Counter[str] = field(default_factory=Counter)


def summarise(stream: RecordStream, step: int = 0) -> TraceStatistics:
    """Sum `stream` at one of its steps."""
    found = TraceStatistics()
    for record in stream.records:
        found.rows += 1
        found.ranks = max(found.ranks, *(rank + 1 for rank in record.ranks))
        found.stages = max(found.stages, record.stage + 1)
        found.compute_ns += record.latency[step]
        found.weight_bytes += record.weight.bytes
        if record.kind == RowKind.COMPUTE:
            found.time_by_op[record.op] += record.latency[step]
        for operand in (record.input, record.weight):
            found.loaded_bytes += operand.bytes if operand.location != Location.LOCAL else 0
        found.stored_bytes += record.output.bytes if record.output.location != Location.LOCAL else 0
        if record.comm_type != CommType.NONE:
            name = CommType(record.comm_type).name
            found.collectives[name] += 1
            found.collective_bytes[name] += record.comm_bytes
    return found


def report(found: TraceStatistics) -> str:
    """Return the sums as text, one line each, longest operators first."""
    lines = [
        f"rows                {found.rows}",
        f"ranks, stages       {found.ranks}, {found.stages}",
        f"compute time        {found.compute_ns} ns ({found.compute_ns / 1e6:.3f} ms)",
        f"weights read        {found.weight_bytes} bytes",
        f"moved to the device {found.loaded_bytes} bytes",
        f"moved off it        {found.stored_bytes} bytes",
    ]
    for name in sorted(found.collectives):
        lines.append(f"{name:<19} {found.collectives[name]} collectives, {found.collective_bytes[name]} bytes")
    for op, time in sorted(found.time_by_op.items(), key=lambda item: (-item[1], item[0])):
        share = 100 * time / found.compute_ns if found.compute_ns else 0.0
        lines.append(f"  {printable(op):<28} {time:>16} ns {share:6.2f} %")
    return "\n".join(lines)
