"""What a run measured: one row a finished request, in columns, and the distribution of all inter-token latencies.

Times are ns. `queued` is when the engine saw the request, `scheduled` when its first token began to be computed,
`first_token` and `end` when its first and last output token were there.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestrator.instance import CompletedBatch, Seen
from orchestrator.statistics import WeightedValues

IntArray = NDArray[np.int64]
COLUMNS = ("id", "input", "output", "arrival", "queued", "scheduled", "first_token", "end")


@dataclass(slots=True)
class Progress:
    """What is known of a request that has not finished; -1 is not yet."""

    prompt: int
    arrival: int
    queued: int
    scheduled: int = -1
    first_token: int = -1
    last_token: int = -1
    generated: int = 0
    tokens: list[IntArray] = field(default_factory=list)


@dataclass(slots=True)
class Totals:
    """Sums over the run: iterations, batches (runs of like iterations), tokens, and KV bytes moved over all ranks."""

    iterations: int = 0
    batches: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    evictions: int = 0
    evicted_bytes: int = 0
    reloaded_bytes: int = 0
    peak_kv_blocks: int = 0
    kv_blocks: int = 0
    end_ns: int = 0


class Metrics:
    """Takes completed batches in order; see the module's docstring. `keep_itl`: keep every request's own list."""

    def __init__(self, *, keep_itl: bool = False) -> None:
        self.totals = Totals()
        self.itl = WeightedValues()
        self._keep_itl = keep_itl
        self._open: dict[int, Progress] = {}
        self._columns = {name: array("q") for name in COLUMNS}
        self._itl_lists: list[IntArray] = []

    def record(self, done: CompletedBatch) -> None:
        """Take a completed batch."""
        for seen in done.seen:
            self._see(seen)
        for request, _ in done.batch.admitted:
            progress = self._open[request.id]
            if progress.scheduled < 0:
                progress.scheduled = done.start_ns
        self._emit(done)
        self._finish(done)
        self._count(done)

    def columns(self) -> dict[str, IntArray]:
        """Return `COLUMNS` of the finished requests, in completion order, ties by id."""
        columns = {name: np.array(values, dtype=np.int64) for name, values in self._columns.items()}
        order = self._order(columns)
        return {name: values[order] for name, values in columns.items()}

    def unfinished(self) -> dict[str, IntArray]:
        """Return `COLUMNS` of the requests that the engine saw but did not finish; -1 is a moment not reached."""
        rows = [
            (identity, p.prompt, p.generated, p.arrival, p.queued, p.scheduled, p.first_token, -1)
            for identity, p in self._open.items()
        ]
        table = np.array(rows, dtype=np.int64).reshape(-1, len(COLUMNS))
        return {name: table[:, column] for column, name in enumerate(COLUMNS)}

    def itl_lists(self) -> list[IntArray]:
        """Return the inter-token latencies of each finished request, in the order of `columns`."""
        columns = {name: np.array(self._columns[name], dtype=np.int64) for name in ("id", "end")}
        return [self._itl_lists[row] for row in self._order(columns)]

    @staticmethod
    def _order(columns: dict[str, IntArray]) -> IntArray:
        order: IntArray = np.lexsort((columns["id"], columns["end"])).astype(np.int64)
        return order

    def _see(self, seen: Seen) -> None:
        self._open[seen.request.id] = Progress(seen.request.prompt_tokens, seen.request.arrival_ns, seen.queued_ns)

    def _emit(self, done: CompletedBatch) -> None:
        """Note the tokens of a batch: every request that emits does so at the end of each step."""
        first, last = int(done.ends_ns[0]), done.end_ns
        gaps: Counter[int] = Counter()
        for request in done.outcome.emitted:
            progress = self._open[request.id]
            if progress.first_token < 0:
                progress.first_token = first
            else:
                gaps[first - progress.last_token] += 1
            progress.last_token = last
            progress.generated += done.batch.steps
            if self._keep_itl:
                progress.tokens.append(done.ends_ns)
        if gaps:
            self.itl.add(np.array(list(gaps), dtype=np.int64), np.array(list(gaps.values()), dtype=np.int64))
        if done.batch.steps > 1:
            between = np.diff(done.ends_ns)
            self.itl.add(between, np.full(len(between), len(done.outcome.emitted), dtype=np.int64))

    def _finish(self, done: CompletedBatch) -> None:
        for request in done.outcome.finished:
            progress = self._open.pop(request.id)
            row = (
                request.id, request.prompt_tokens, progress.generated, progress.arrival,
                progress.queued, progress.scheduled, progress.first_token, done.end_ns,
            )  # fmt: skip
            for name, value in zip(COLUMNS, row, strict=True):
                self._columns[name].append(value)
            if self._keep_itl:
                times = np.concatenate(progress.tokens)
                self._itl_lists.append(times[1:] - times[:-1])

    def _count(self, done: CompletedBatch) -> None:
        totals, batch = self.totals, done.batch
        totals.batches += 1
        totals.iterations += batch.steps
        totals.prompt_tokens += prompt_tokens(done)
        totals.generated_tokens += len(done.outcome.emitted) * batch.steps
        totals.preemptions += len(batch.preempted)
        totals.evictions += len(batch.kv_evictions)
        totals.evicted_bytes += sum(transfer.bytes for transfer in batch.kv_evictions)
        totals.reloaded_bytes += sum(transfer.bytes for transfer in batch.kv_loads)
        totals.kv_blocks = done.usage.total_blocks
        totals.peak_kv_blocks = max(totals.peak_kv_blocks, done.usage.total_blocks - done.usage.free_blocks)
        totals.end_ns = max(totals.end_ns, done.end_ns)


def prompt_tokens(done: CompletedBatch) -> int:
    """Return the prompt tokens that a batch computed."""
    batch = done.batch
    if batch.steps > 1:  # like iterations are decodes
        return 0
    return sum(
        max(0, min(new, request.prompt_tokens - context))
        for request, new, context in zip(batch.requests, batch.new_tokens, batch.context_tokens, strict=True)
    )
