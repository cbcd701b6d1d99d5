"""KV blocks that are moved come to the bytes that the batch moves, over all stages and ranks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trace_gen.batch_shape import concatenate
from trace_gen.trace import RowKind
from trace_test.rule import Rule, Subject, Violation


def check(subject: Subject) -> Iterator[Violation]:
    """Sum the MEM rows of each request and direction over ranks and compare with the batch's transfers."""
    trace, facts = subject.trace, subject.model
    assert trace is not None
    assert facts is not None
    if not facts.batches:
        return
    batch = concatenate(facts.batches)
    directions = ((RowKind.MEM_LOAD, batch.kv_loads), (RowKind.MEM_STORE, batch.kv_evictions))
    for kind, transfers in directions:
        bytes_of = trace.input_bytes if kind == RowKind.MEM_LOAD else trace.output_bytes
        word = "loaded" if kind == RowKind.MEM_LOAD else "evicted"
        expected: dict[int, int] = {}
        for transfer in transfers:
            expected[transfer.request_id] = expected.get(transfer.request_id, 0) + transfer.bytes
        for row in np.flatnonzero(trace.kind == kind).tolist():
            if int(trace.request[row]) not in expected:
                yield Violation(subject.row(row), f"KV blocks are {word} that the batch does not move")
        for request, total in expected.items():
            rows = np.flatnonzero((trace.kind == kind) & (trace.request == request)).tolist()
            ranks = [len(trace.rank_sets[trace.rank_set[row]]) for row in rows]
            found = sum(int(bytes_of[row]) * count for row, count in zip(rows, ranks, strict=True))
            if not total <= found <= total + sum(ranks):
                what = f"{found} bytes of KV are {word} over all ranks, but the batch moves {total}"
                yield Violation(f"request {request}", what)


RULE = Rule(
    name="kv-adds-up",
    about="KV blocks loaded or evicted before an iteration come, over all stages and ranks, to the bytes that the "
    "batch moves (a rank's part is rounded up by less than a byte).",
    cause="bytes of all ranks charged to each, or a stage whose layers hold KV but move none",
    needs="model",
    check=check,
)
