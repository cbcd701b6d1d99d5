"""What the engines did when, in columns: one row a run of like iterations, and the sums that the page shows.

The sums (`KindTotals`) are over the whole run and do not depend on how many like iterations were simulated at once; the
rows do (in a pipeline, where batches take turns, each iteration is one), and only the first are kept, so that a run of
any length needs bounded memory: together they make at most `most` slices, one a row and pipeline stage (but at least
one row is kept).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import CompletedBatch, Transferred
from orchestrator.observers.interface import Observer, Run
from orchestrator.schedulers.interface import KVUsage

IntArray = NDArray[np.int64]
COLUMNS = (
    "iteration", "start", "end", "last_step_start", "steps", "requests", "prefills", "prompt_tokens",
    "running", "waiting", "used_blocks", "total_blocks", "evicted_bytes", "reloaded_bytes",
)  # fmt: skip
PREFILL, MIXED, DECODE = KINDS = ("prefill", "prefill and decode", "decode")
MOST_SLICES = 64_000
MOST_TRANSFERS = 10_000


@dataclass(slots=True)
class KindTotals:
    """Sums over the iterations of one kind. `elapsed_ns`: simulated time in which one of them was the next to end."""

    elapsed_ns: int = 0
    iterations: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0

    def add(self, elapsed_ns: int, iterations: int, prompt_tokens: int, generated_tokens: int) -> None:
        """Add iterations and what they did."""
        self.elapsed_ns += elapsed_ns
        self.iterations += iterations
        self.prompt_tokens += prompt_tokens
        self.generated_tokens += generated_tokens


class EngineHistory:
    """What one engine did; at most `most` slices are kept."""

    def __init__(self, most: int) -> None:
        self.kinds = {kind: KindTotals() for kind in KINDS}
        self.batches = 0
        self._most = most
        self._end_ns = 0
        self._columns = {name: array("q") for name in COLUMNS}
        self._spans: list[tuple[array[int], array[int]]] = []

    def record(self, done: CompletedBatch) -> None:
        """Take a batch that computed something."""
        prefills, tokens = done.batch.prompt_work()
        self._count(done, prefills, tokens)
        runs, stages = len(done.stages_ns), done.stages_ns.shape[2]
        room = max(self._most // stages, 1) - self.batches
        if room > 0:
            self._keep(done, min(runs, room), prefills, tokens)
        self.batches += runs

    def record_each(self, told: Iterations) -> None:
        """Take many iterations; those of one run that nothing came between make one row."""
        there = np.flatnonzero(told.requests)
        if not len(there):
            return
        self._count_each(told, there)
        stages = told.stage_ns.shape[2]
        firsts = np.flatnonzero(np.diff(told.run[there], prepend=told.run[there[0]] - 1))
        if stages > 1:
            firsts = np.arange(len(there))
        lasts = np.append(firsts[1:], len(there)) - 1
        room = max(self._most // stages, 1) - self.batches
        if room > 0:
            self._keep_runs(told, there[firsts[:room]], there[lasts[:room]], (lasts - firsts)[:room] + 1)
        self.batches += len(firsts)

    def columns(self) -> dict[str, IntArray]:
        """Return `COLUMNS` of the rows kept, in order of iterations; times in ns."""
        order = self._order()
        return {name: np.array(values, dtype=np.int64)[order] for name, values in self._columns.items()}

    def stage_spans(self) -> list[tuple[IntArray, IntArray]]:
        """Return when each pipeline stage began and ended the rows kept (ns), one pair of columns a stage."""
        order, spans = self._order(), self._spans
        return [
            (np.array(begins, dtype=np.int64)[order], np.array(ends, dtype=np.int64)[order]) for begins, ends in spans
        ]

    def _order(self) -> IntArray:
        """Return the rows in order of iterations: a pipeline tells of batches that took turns one after another."""
        return np.argsort(np.array(self._columns["iteration"], dtype=np.int64), kind="stable")

    def _count(self, done: CompletedBatch, prefills: int, tokens: int) -> None:
        """Add a batch to its kind; after a step that computed the last token of a prompt, the like ones are decodes."""
        kind, steps, generated = kind_of(prefills, len(done.batch.requests)), done.batch.steps, done.outcome.step_tokens
        began = max(done.start_ns, self._end_ns)
        if prefills and steps > 1:
            first = max(int(done.ends_ns[0]), began)
            self.kinds[kind].add(first - began, 1, tokens, generated)
            began, steps, tokens, kind = first, steps - 1, 0, DECODE
        self.kinds[kind].add(done.end_ns - began, steps, tokens, generated * steps)
        self._end_ns = done.end_ns

    def _count_each(self, told: Iterations, there: IntArray) -> None:
        """Add the iterations in the rows `there` to their kinds."""
        ends, requests, prefills = told.end_ns[there], told.requests[there], told.prefills[there]
        before = np.concatenate([[self._end_ns], ends[:-1]])
        elapsed = ends - np.maximum(told.start_ns[there], before)
        self._end_ns = int(ends[-1])
        of_kind = {DECODE: prefills == 0, PREFILL: prefills == requests, MIXED: (prefills > 0) & (prefills < requests)}
        for kind, chosen in of_kind.items():
            rows = there[chosen]
            sums = (elapsed[chosen], told.requests[rows] > 0, told.prompt_tokens[rows], told.tokens[rows])
            self.kinds[kind].add(*(int(column.sum()) for column in sums))

    def _keep_runs(self, told: Iterations, first: IntArray, last: IntArray, steps: IntArray) -> None:
        """Keep a row a run of `steps` iterations, the rows `first` to `last` of what is told."""
        begins, ends = told.stage_ns[first, 0], told.stage_ns[last, 1]
        began = np.where(steps > 1, told.end_ns[np.maximum(last - 1, 0)], told.start_ns[first])
        none, total = np.zeros(len(first), dtype=np.int64), np.full(len(first), told.total_blocks)
        rows = (
            told.serial[first], begins[:, 0], ends[:, -1], began, steps, told.requests[first], told.prefills[first],
            told.prompt_tokens[first], told.running[last], told.waiting[last], total - told.free_blocks[last], total,
            none, none,
        )  # fmt: skip
        for column, values in zip(self._columns.values(), rows, strict=True):
            column.frombytes(values.tobytes())
        if not self._spans:
            self._spans = [(array("q"), array("q")) for _ in range(begins.shape[1])]
        for (stage_begins, stage_ends), begun, ended in zip(self._spans, begins.T, ends.T, strict=True):
            stage_begins.frombytes(begun.tobytes())
            stage_ends.frombytes(ended.tobytes())

    def _keep(self, done: CompletedBatch, count: int, prefills: int, tokens: int) -> None:
        """Keep the first `count` runs of a batch: all its steps, or one each."""
        batch, spans = done.batch, done.stages_ns[:count].transpose(2, 1, 0).tolist()
        moved = [sum(one.bytes for one in moves) for moves in (batch.kv_evictions, batch.kv_loads)]
        work = (len(batch.requests), prefills, tokens)
        if len(done.stages_ns) == 1:
            self._keep_one(done, work, moved)
        else:
            self._keep_each(done, spans[0][0], spans[-1][1], work, moved)
        if not self._spans:
            self._spans = [(array("q"), array("q")) for _ in spans]
        for (stage_begins, stage_ends), (began, ended) in zip(self._spans, spans, strict=True):
            stage_begins.extend(began)
            stage_ends.extend(ended)

    def _keep_one(self, done: CompletedBatch, work: Sequence[int], moved: Sequence[int]) -> None:
        """Keep all steps of a batch as one row."""
        last = done.usages.last
        row = (
            int(done.serials[0]), int(done.stages_ns[0, 0, 0]), int(done.stages_ns[0, 1, -1]), done.last_step_start_ns,
            done.batch.steps, *work, last.running, last.waiting, last.total_blocks - last.free_blocks,
            last.total_blocks, *moved,
        )  # fmt: skip
        for column, value in zip(self._columns.values(), row, strict=True):
            column.append(value)

    def _keep_each(
        self, done: CompletedBatch, begins: list[int], ends: list[int], work: Sequence[int], moved: Sequence[int]
    ) -> None:
        """Keep a row of each of the first steps, as many as have `begins` and `ends`."""
        count = len(begins)
        states = [_state(*run) for run in done.usages.runs]
        state = [[value for one in states for value in one[at]][:count] for at in range(4)]
        known, after = ([[value] * count for value in values] for values in ((1, *work), moved))
        rows = (done.serials[:count].tolist(), begins, ends, begins, *known, *state, *after)
        for column, values in zip(self._columns.values(), rows, strict=True):
            column.extend(values)


class History(Observer):
    """Takes completed batches of all engines; see the module's docstring."""

    def __init__(self, *, most: int = MOST_SLICES) -> None:
        self.engines: dict[int, EngineHistory] = {}
        self.transfers: list[Transferred] = []
        self.all_transfers = 0
        self._most = most

    def begin(self, run: Run) -> None:
        """Share what may be kept among the engines."""
        self._most = max(1, self._most // len(run.deployments))

    def batch(self, done: CompletedBatch) -> None:
        """Take a completed batch; one that only preempted took no time."""
        if not done.batch.requests:
            return
        self._engine(done.engine).record(done)

    def iterations(self, told: Iterations) -> None:
        """Take many iterations of one engine at once."""
        if told.requests.any():
            self._engine(told.engine).record_each(told)

    def transferred(self, record: Transferred) -> None:
        """Take a transfer of KV cache; only the first are kept."""
        self.all_transfers += 1
        if len(self.transfers) < MOST_TRANSFERS:
            self.transfers.append(record)

    def _engine(self, number: int) -> EngineHistory:
        engine = self.engines.get(number)
        if engine is None:
            engine = self.engines[number] = EngineHistory(self._most)
        return engine

    @property
    def batches(self) -> int:
        """How many batches there were."""
        return sum(engine.batches for engine in self.engines.values())

    @property
    def kinds(self) -> dict[str, KindTotals]:
        """The sums over the engines, by kind of iteration."""
        return {kind: sum_kinds(engine.kinds[kind] for engine in self.engines.values()) for kind in KINDS}


def sum_kinds(parts: Iterable[KindTotals]) -> KindTotals:
    """Return the sums of several engines' sums."""
    total = KindTotals()
    for part in parts:
        total.add(part.elapsed_ns, part.iterations, part.prompt_tokens, part.generated_tokens)
    return total


def kind_of(prefills: int, requests: int) -> str:
    """Return the kind of an iteration in which `prefills` of `requests` computed prompt tokens."""
    if not prefills:
        return DECODE
    return PREFILL if prefills == requests else MIXED


def _state(usage: KVUsage, free: IntArray) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return running and waiting requests, used and all KV blocks of steps as which so many blocks were `free`."""
    count = len(free)
    used = (usage.total_blocks - free).tolist()
    return [usage.running] * count, [usage.waiting] * count, used, [usage.total_blocks] * count
