"""What a run measured: one row a finished request, in columns, and the distribution of all inter-token latencies.

Times are ns. `queued` is when the engine saw the request, `scheduled` when its first token began to be computed,
`first_token` and `end` when its first and last output token were there. Of one that an engine hands over to another
`queued` and `scheduled` are of the first engine, and the tokens of the second: those are what its client sees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import Aborted, CompletedBatch, Rejected, Seen, Transferred
from orchestrator.observers.finished import COLUMNS, FinishedInOrder
from orchestrator.observers.interface import FinishedRows, Observer
from orchestrator.observers.together import Going, gather
from orchestrator.statistics import WeightedValues

IntArray = NDArray[np.int64]


@dataclass(slots=True)
class Totals:
    """Sums over the run: iterations, tokens, and KV bytes moved over all ranks.

    `transfers` of KV cache between engines took `transfer_ns` from when they were wanted, of which they waited some.
    `verified`: how often a request had tokens that were guessed ahead, `drafted_tokens` of them, in a step.
    """

    iterations: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    evictions: int = 0
    evicted_bytes: int = 0
    reloaded_bytes: int = 0
    rejected: int = 0
    aborted: int = 0
    end_ns: int = 0
    verified: int = 0
    drafted_tokens: int = 0
    transfers: int = 0
    transferred_bytes: int = 0
    transfer_ns: int = 0
    transfer_waiting_ns: int = 0
    accepted_tokens: int = 0


class RequestRecorder(Observer):
    """Takes completed batches; see the module's docstring. `keep_itl`: hand on every request's own list."""

    def __init__(self, *, keep_itl: bool = False) -> None:
        self.totals = Totals()
        self.itl = WeightedValues()
        self._keep_itl = keep_itl
        self._open: dict[int, Going] = {}
        self._finished = FinishedInOrder(keep_itl=keep_itl)
        self._under_way: dict[int, Callable[[], IntArray]] = {}
        self._kv_blocks: dict[int, int] = {}
        self._kv_peaks: dict[int, int] = {}

    @property
    def kv_blocks(self) -> int:
        """KV blocks of all engines."""
        return sum(self._kv_blocks.values())

    @property
    def peak_kv_blocks(self) -> int:
        """The most KV blocks in use at once, summed over the engines, each at its own time."""
        return sum(self._kv_peaks.values())

    def batch(self, done: CompletedBatch) -> None:
        """Take a completed batch."""
        for seen in done.seen:
            self._see(seen, done.engine)
        for request, _ in done.batch.admitted:
            going = self._open.get(request.id)
            if going is not None and going.scheduled < 0:
                going.scheduled = done.start_ns
        self._emit(done)
        self._finish(done)
        self._count(done)

    def iterations(self, told: Iterations) -> None:
        """Take many iterations at once."""
        if not len(told):
            return
        self._under_way[told.engine] = told.unfinished
        self.itl.add(told.gaps_ns, told.gap_counts)
        if len(told.finished):
            self._finished.add_table(told.finished, told.token_gaps)
        totals = self.totals
        totals.iterations += int(np.count_nonzero(told.requests))
        totals.prompt_tokens += int(told.prompt_tokens.sum())
        totals.generated_tokens += int(told.tokens.sum())
        totals.preemptions += int(told.preempted.sum())
        totals.end_ns = max(totals.end_ns, int(told.end_ns.max()))
        self._count_blocks(told.engine, told.total_blocks, int(told.free_blocks.min()))

    def turned_away(self, record: Rejected | Aborted) -> None:
        """Count a request that is not served to its end; nothing more is told of it."""
        if isinstance(record, Rejected):
            self.totals.rejected += 1
        else:
            self.totals.aborted += 1
            gone = self._open.pop(record.request.id, None)
            if gone is not None:
                gone.leave(record.request.id)

    def transferred(self, record: Transferred) -> None:
        """Count a transfer of KV cache between engines."""
        totals = self.totals
        totals.transfers += 1
        totals.transferred_bytes += record.bytes
        totals.transfer_ns += record.came_ns - record.asked_ns
        totals.transfer_waiting_ns += record.began_ns - record.asked_ns

    def due(self) -> bool:
        """Whether finished rows should be handed on."""
        return self._finished.due()

    def hand_on(self, until_ns: int | None = None) -> FinishedRows | None:
        """Return the rows of requests that ended before `until_ns` (None: all) and have not been handed on yet."""
        return self._finished.hand_on(until_ns)

    def columns(self) -> dict[str, IntArray]:
        """Return `COLUMNS` of the finished requests that were handed on, in order of (end, id)."""
        return self._finished.columns()

    def unfinished(self) -> dict[str, IntArray]:
        """Return `COLUMNS` of the requests that an engine saw but did not finish; -1 is a moment not reached."""
        rows = [
            (identity, g.prompt, g.generated, g.arrival, g.queued, g.scheduled, g.first_token, -1, g.engine)
            for identity, g in self._open.items()
        ]
        told = [under_way() for under_way in self._under_way.values()]
        table = np.concatenate([np.array(rows, dtype=np.int64).reshape(-1, len(COLUMNS)), *told])
        return {name: table[:, column] for column, name in enumerate(COLUMNS)}

    def _see(self, seen: Seen, engine: int) -> None:
        request = seen.request
        known = self._open.get(request.id)
        if known is not None:  # it was handed over
            known.engine = engine
            return
        self._open[request.id] = Going(request.prompt_tokens, request.arrival_ns, seen.queued_ns, engine)

    def _emit(self, done: CompletedBatch) -> None:
        """Note the tokens of a batch: every request that emits does so at the end of each step, all at once."""
        outcome, steps = done.outcome, done.batch.steps
        if not outcome.emitted:
            return
        if outcome.tokens is None:
            others, gaps = gather(outcome.emitted, self._open, int(done.ends_ns[0]))
            others.steps += steps
            others.last_ns = done.end_ns
            if self._keep_itl:
                others.ends.append(done.ends_ns)
        else:
            gaps = self._emit_several(done)
        for gap, times in gaps.items():
            self.itl.count(gap, times)
        if steps > 1:
            between = np.diff(done.ends_ns)
            self.itl.add(between, np.full(len(between), len(outcome.emitted), dtype=np.int64))

    def _emit_several(self, done: CompletedBatch) -> dict[int, int]:
        """Note steps that bring some requests more than one token; return the times between tokens."""
        first, outcome, steps = int(done.ends_ns[0]), done.outcome, done.batch.steps
        gaps = Counter({0: (outcome.step_tokens - len(outcome.emitted)) * steps})
        for request, tokens in outcome.each():
            going = self._open[request.id]
            going.leave(request.id)
            if going.first_token < 0:
                going.first_token = first
            else:
                gaps[first - going.last_token] += 1
            going.last_token = done.end_ns
            going.counted += tokens * steps
            if self._keep_itl:
                going.tokens.append(done.ends_ns.repeat(tokens))
        return +gaps

    def _finish(self, done: CompletedBatch) -> None:
        for request in done.outcome.finished:
            going = self._open.pop(request.id)
            going.leave(request.id)
            row = (
                request.id, request.prompt_tokens, going.generated, going.arrival, going.queued, going.scheduled,
                going.first_token, done.end_ns, done.engine,
            )  # fmt: skip
            times = np.concatenate(going.tokens) if self._keep_itl else None
            self._finished.add(row, None if times is None else times[1:] - times[:-1])

    def _count(self, done: CompletedBatch) -> None:
        totals, batch = self.totals, done.batch
        totals.iterations += batch.steps if batch.requests else 0
        totals.prompt_tokens += batch.prompt_work()[1]
        totals.generated_tokens += done.outcome.step_tokens * batch.steps
        totals.preemptions += len(batch.preempted)
        if batch.kv_evictions or batch.kv_loads:
            totals.evictions += len(batch.kv_evictions)
            totals.evicted_bytes += sum(transfer.bytes for transfer in batch.kv_evictions)
            totals.reloaded_bytes += sum(transfer.bytes for transfer in batch.kv_loads)
        totals.end_ns = max(totals.end_ns, done.end_ns)
        if batch.brings is not None:
            drafts = np.maximum(batch.samples - 1, 0)
            totals.verified += int(np.count_nonzero(drafts))
            totals.drafted_tokens += int(drafts.sum())
            totals.accepted_tokens += int(np.maximum(batch.brings - 1, 0).sum())
        self._count_blocks(done.engine, done.after.total_blocks, done.usages.least_free_blocks)

    def _count_blocks(self, engine: int, blocks: int, least_free: int) -> None:
        self._kv_blocks[engine] = blocks
        self._kv_peaks[engine] = max(self._kv_peaks.get(engine, 0), blocks - least_free)
