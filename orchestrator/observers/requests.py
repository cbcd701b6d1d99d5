"""What a run measured: one row a finished request, in columns, and the distribution of all inter-token latencies.

Times are ns. `queued` is when the engine saw the request, `scheduled` when its first token began to be computed,
`first_token` and `end` when its first and last output token were there. Of one that an engine hands over to another
`queued` and `scheduled` are of the first engine, and the tokens of the second: those are what its client sees.

Rows are in order of (end, id) over the whole run. Engines tell of their batches in order of their ends, but not in
order among each other; so a row is held back until nothing that ended before it can come any more.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import field
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.engine.records import Aborted, CompletedBatch, Rejected, Seen, Transferred
from orchestrator.observers.interface import FinishedRows, Observer
from orchestrator.statistics import WeightedValues

IntArray = NDArray[np.int64]
COLUMNS = ("id", "input", "output", "arrival", "queued", "scheduled", "first_token", "end", "engine")
_MOST_HELD = 256
_LONGEST_HELD_S = 0.5
"""Wall-clock time after which finished rows are handed on though they are few: they belong on disk."""


@dataclass(slots=True, eq=False)
class Going:
    """What is known of a request that has not finished; -1 is not yet."""

    prompt: int
    arrival: int
    queued: int
    engine: int
    scheduled: int = -1
    first_token: int = -1
    last_token: int = -1
    generated: int = 0
    tokens: list[IntArray] = field(default_factory=list)


@dataclass(slots=True)
class Totals:
    """Sums over the run: iterations, batches (runs of like iterations), tokens, and KV bytes moved over all ranks.

    `transfers` of KV cache between engines took `transfer_ns` from when they were wanted, of which they waited some.
    `verified`: how often a request had tokens that were guessed ahead, `drafted_tokens` of them, in a step.
    """

    iterations: int = 0
    batches: int = 0
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


@dataclass(slots=True, eq=False)
class _Held:
    """A finished row that may not be handed on yet."""

    row: tuple[int, ...]
    itl: IntArray | None


class RequestRecorder(Observer):
    """Takes completed batches; see the module's docstring. `keep_itl`: hand on every request's own list."""

    def __init__(self, *, keep_itl: bool = False) -> None:
        self.totals = Totals()
        self.itl = WeightedValues()
        self._keep_itl = keep_itl
        self._open: dict[int, Going] = {}
        self._held: list[_Held] = []
        self._handed_on = monotonic()
        self._columns = {name: array("q") for name in COLUMNS}
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

    def turned_away(self, record: Rejected | Aborted) -> None:
        """Count a request that is not served to its end; nothing more is told of it."""
        if isinstance(record, Rejected):
            self.totals.rejected += 1
        else:
            self.totals.aborted += 1
            self._open.pop(record.request.id, None)

    def transferred(self, record: Transferred) -> None:
        """Count a transfer of KV cache between engines."""
        totals = self.totals
        totals.transfers += 1
        totals.transferred_bytes += record.bytes
        totals.transfer_ns += record.came_ns - record.asked_ns
        totals.transfer_waiting_ns += record.began_ns - record.asked_ns

    def due(self) -> bool:
        """Whether finished rows should be handed on."""
        waiting = len(self._held)
        return waiting >= _MOST_HELD or (waiting > 0 and monotonic() - self._handed_on >= _LONGEST_HELD_S)

    def hand_on(self, until_ns: int | None = None) -> FinishedRows | None:
        """Return the rows of requests that ended before `until_ns` (None: all) and have not been handed on yet."""
        end = COLUMNS.index("end")
        over = [held for held in self._held if until_ns is None or held.row[end] < until_ns]
        self._handed_on = monotonic()
        if not over:
            return None
        self._held = [held for held in self._held if not (until_ns is None or held.row[end] < until_ns)]
        over.sort(key=lambda held: (held.row[end], held.row[0]))
        table = np.array([held.row for held in over], dtype=np.int64)
        for name, values in zip(COLUMNS, table.T, strict=True):
            self._columns[name].frombytes(np.ascontiguousarray(values).tobytes())
        lists = [held.itl for held in over if held.itl is not None] if self._keep_itl else None
        return FinishedRows({name: table[:, place] for place, name in enumerate(COLUMNS)}, lists)

    def columns(self) -> dict[str, IntArray]:
        """Return `COLUMNS` of the finished requests that were handed on, in order of (end, id)."""
        return {name: np.array(values, dtype=np.int64) for name, values in self._columns.items()}

    def unfinished(self) -> dict[str, IntArray]:
        """Return `COLUMNS` of the requests that an engine saw but did not finish; -1 is a moment not reached."""
        rows = [
            (identity, g.prompt, g.generated, g.arrival, g.queued, g.scheduled, g.first_token, -1, g.engine)
            for identity, g in self._open.items()
        ]
        table = np.array(rows, dtype=np.int64).reshape(-1, len(COLUMNS))
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
        first, last, outcome = int(done.ends_ns[0]), done.end_ns, done.outcome
        gaps: Counter[int] = Counter()
        known, steps = self._open, done.batch.steps
        for request, tokens in outcome.each():
            going = known[request.id]
            if going.first_token < 0:
                going.first_token = first
            else:
                gaps[first - going.last_token] += 1
            going.last_token = last
            going.generated += tokens * steps
            if self._keep_itl:
                going.tokens.append(done.ends_ns if tokens == 1 else done.ends_ns.repeat(tokens))
        together = (outcome.step_tokens - len(outcome.emitted)) * steps
        if together:
            gaps[0] += together
        if gaps:
            self.itl.add(np.array(list(gaps), dtype=np.int64), np.array(list(gaps.values()), dtype=np.int64))
        if done.batch.steps > 1:
            between = np.diff(done.ends_ns)
            self.itl.add(between, np.full(len(between), len(outcome.emitted), dtype=np.int64))

    def _finish(self, done: CompletedBatch) -> None:
        for request in done.outcome.finished:
            going = self._open.pop(request.id)
            row = (
                request.id, request.prompt_tokens, going.generated, going.arrival, going.queued, going.scheduled,
                going.first_token, done.end_ns, done.engine,
            )  # fmt: skip
            times = np.concatenate(going.tokens) if self._keep_itl else None
            self._held.append(_Held(row, None if times is None else times[1:] - times[:-1]))

    def _count(self, done: CompletedBatch) -> None:
        totals, batch = self.totals, done.batch
        totals.batches += bool(batch.requests)
        totals.iterations += batch.steps if batch.requests else 0
        totals.prompt_tokens += batch.prompt_work()[1]
        totals.generated_tokens += done.outcome.step_tokens * batch.steps
        totals.preemptions += len(batch.preempted)
        totals.evictions += len(batch.kv_evictions)
        totals.evicted_bytes += sum(transfer.bytes for transfer in batch.kv_evictions)
        totals.reloaded_bytes += sum(transfer.bytes for transfer in batch.kv_loads)
        totals.end_ns = max(totals.end_ns, done.end_ns)
        if batch.brings is not None:
            drafts = np.maximum(batch.samples - 1, 0)
            totals.verified += int(np.count_nonzero(drafts))
            totals.drafted_tokens += int(drafts.sum())
            totals.accepted_tokens += int(np.maximum(batch.brings - 1, 0).sum())
        blocks = done.after.total_blocks
        self._kv_blocks[done.engine] = blocks
        used = blocks - done.usages.least_free_blocks
        self._kv_peaks[done.engine] = max(self._kv_peaks.get(done.engine, 0), used)
