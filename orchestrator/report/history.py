"""What the engine did when, in columns: one row a batch for the timeline, and the sums that the page shows.

The sums (`KindTotals`) are over the whole run and do not depend on how many like iterations were simulated at once; the
rows do, and only the first are kept, so that a run of any length needs bounded memory: together they make at most
`most` slices, one a batch and pipeline stage (but at least one batch is kept).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.instance import CompletedBatch

IntArray = NDArray[np.int64]
COLUMNS = (
    "iteration", "start", "end", "last_step_start", "steps", "requests", "prefills", "prompt_tokens",
    "running", "waiting", "used_blocks", "evicted_bytes", "reloaded_bytes",
)  # fmt: skip
PREFILL, MIXED, DECODE = "prefill", "prefill and decode", "decode"
MOST_SLICES = 64_000


@dataclass(slots=True)
class KindTotals:
    """Sums over the iterations of one kind. `elapsed_ns`: simulated time in which one of them was the next to end."""

    elapsed_ns: int = 0
    iterations: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0


class History:
    """Takes completed batches in order; see the module's docstring."""

    def __init__(self, *, most: int = MOST_SLICES) -> None:
        self.kinds = {kind: KindTotals() for kind in (PREFILL, MIXED, DECODE)}
        self.idle_ns = 0
        self.batches = 0
        self._most = most
        self._iterations = 0
        self._end_ns = 0
        self._columns = {name: array("q") for name in COLUMNS}
        self._spans: list[tuple[array[int], array[int]]] = []

    def record(self, done: CompletedBatch) -> None:
        """Take a completed batch."""
        prefills, prompt_tokens = _prompt_work(done)
        self._count(done, prefills, prompt_tokens)
        if not self.batches or (self.batches + 1) * len(done.stage_spans_ns) <= self._most:
            self._keep(done, prefills, prompt_tokens)
        self.batches += 1
        self._iterations += done.batch.steps

    def columns(self) -> dict[str, IntArray]:
        """Return `COLUMNS` of the batches kept, in order of completion; times in ns."""
        return {name: np.array(values, dtype=np.int64) for name, values in self._columns.items()}

    def stage_spans(self) -> list[tuple[IntArray, IntArray]]:
        """Return when each pipeline stage began and ended the batches kept (ns), one pair of columns a stage."""
        return [(np.array(begins, dtype=np.int64), np.array(ends, dtype=np.int64)) for begins, ends in self._spans]

    def _count(self, done: CompletedBatch, prefills: int, prompt_tokens: int) -> None:
        totals = self.kinds[kind_of(prefills, len(done.batch.requests))]
        began = max(done.start_ns, self._end_ns)
        self.idle_ns += began - self._end_ns
        self._end_ns = done.end_ns
        totals.elapsed_ns += done.end_ns - began
        totals.iterations += done.batch.steps
        totals.prompt_tokens += prompt_tokens
        totals.generated_tokens += len(done.outcome.emitted) * done.batch.steps

    def _keep(self, done: CompletedBatch, prefills: int, prompt_tokens: int) -> None:
        batch, usage = done.batch, done.usage
        row = (
            self._iterations, done.start_ns, done.end_ns, done.last_step_start_ns, batch.steps, len(batch.requests),
            prefills, prompt_tokens, usage.running, usage.waiting, usage.total_blocks - usage.free_blocks,
            sum(transfer.bytes for transfer in batch.kv_evictions), sum(transfer.bytes for transfer in batch.kv_loads),
        )  # fmt: skip
        for name, value in zip(COLUMNS, row, strict=True):
            self._columns[name].append(value)
        if not self._spans:
            self._spans = [(array("q"), array("q")) for _ in done.stage_spans_ns]
        for (begins, ends), (begin, end) in zip(self._spans, done.stage_spans_ns, strict=True):
            begins.append(begin)
            ends.append(end)


def kind_of(prefills: int, requests: int) -> str:
    """Return the kind of an iteration in which `prefills` of `requests` computed prompt tokens."""
    if not prefills:
        return DECODE
    return PREFILL if prefills == requests else MIXED


def _prompt_work(done: CompletedBatch) -> tuple[int, int]:
    """Return how many requests computed prompt tokens in a batch, and how many tokens those were."""
    batch = done.batch
    if batch.steps > 1:  # like iterations are decodes
        return 0, 0
    work = [
        min(new, request.prompt_tokens - context)
        for request, new, context in zip(batch.requests, batch.new_tokens, batch.context_tokens, strict=True)
        if context < request.prompt_tokens
    ]
    return len(work), sum(work)
