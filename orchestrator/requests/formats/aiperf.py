"""aiperf's records, profile_export.jsonl: a request a line, with its lengths and the time when it was sent.

    {"metadata": {"request_start_ns": 1763066701865462000, "benchmark_phase": "profiling"},
     "metrics": {"input_sequence_length": {"value": 1000, "unit": "tokens"},
                 "output_sequence_length": {"value": 194, "unit": "tokens"}}}

Source: ai-dynamo/aiperf, docs/tutorials/working-with-profile-exports.md. Requests of the warm-up, and those that failed
or were cancelled, are left out. Every turn of a conversation comes at its own time. Arrivals count from the first
request.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.beginning import Beginning
    from orchestrator.requests.importing.reading import Reading
    from orchestrator.requests.importing.record import Record
    from orchestrator.workload import ReadWorkload

_LATEST_NS = 2**63 - 1


def recognises(beginning: Beginning) -> bool:
    """Whether the first object is a record of a request."""
    return beginning.has("metadata", "metrics")


def read(path: Path, reading: Reading) -> ReadWorkload:
    """Read the records of a benchmark."""
    from orchestrator.requests.importing.lines import read_lines
    from orchestrator.requests.importing.rows import Rows
    from orchestrator.workload import MOST_TOKENS

    rows, left_out = Rows(path, reading), 0

    def take(record: Record) -> None:
        nonlocal left_out
        metadata = record.object("metadata")
        warms_up = metadata.values.get("benchmark_phase") == "warmup"
        if warms_up or metadata.values.get("was_cancelled") or record.has("error"):
            left_out += 1
            return
        metrics = record.object("metrics")
        prompt, output = (metrics.object(f"{part}_sequence_length") for part in ("input", "output"))
        rows.add(
            prompt.whole("value", 1, MOST_TOKENS),
            output.whole("value", 1, MOST_TOKENS),
            metadata.whole("request_start_ns", 0, _LATEST_NS),
            record.line,
        )

    read_lines(path, rows, take)
    read = rows.result(from_first=True)
    said = f"requests of the warm-up, failed or cancelled, left out: {left_out}"
    return replace(read, notes=(said,) if left_out else ())


request_formats.register("aiperf")(RequestFormat(recognises, read))
