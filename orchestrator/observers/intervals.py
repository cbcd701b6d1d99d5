"""Throughput over time: tokens a fixed interval, and the engines' state at each interval's end."""

from __future__ import annotations

import numpy as np

from foundation.records import dataclass
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import CompletedBatch
from orchestrator.observers.interface import Observer
from orchestrator.schedulers.interface import KVUsage


@dataclass(frozen=True, slots=True)
class Interval:
    """One interval: its end (ns), tokens/s in it, and requests and KV blocks in use at its end.

    A token counts at the end of its iteration; one that ends exactly at `end_ns` belongs to the next interval.
    While nothing runs, nothing counts as in use.
    """

    end_ns: int
    prompt_per_s: float
    generation_per_s: float
    running: int
    waiting: int
    kv_used: float


@dataclass(slots=True)
class _Tally:
    """What is known of an interval that is not over: tokens, and of each engine what ran as it ended."""

    prompt: int = 0
    generated: int = 0
    running_then: dict[int, tuple[int, KVUsage]] | None = None
    """Engine -> the end of the iteration that ran at the interval's end, and the state as it was decided."""


class Intervals(Observer):
    """Cuts completed batches of any engines into intervals of `length_ns`; idle stretches cost and yield nothing."""

    def __init__(self, length_ns: int) -> None:
        self._length_ns = length_ns
        self._open: dict[int, _Tally] = {}

    def batch(self, done: CompletedBatch) -> None:
        """Take a completed batch."""
        if not done.batch.requests:
            return
        length, tokens = self._length_ns, done.outcome.step_tokens
        first, last = int(done.ends_ns[0]) // length, done.end_ns // length
        self._tally(first).prompt += done.batch.prompt_work()[1]
        for offset, steps in enumerate(_steps_by_interval(done, first, last, length)):
            if steps:
                self._tally(first + offset).generated += steps * tokens
        for index in range(done.start_ns // length, last):
            step = int(np.searchsorted(done.ends_ns, (index + 1) * length))
            self._ran(index, done.engine, int(done.ends_ns[step]), done.usages.at(step))

    def iterations(self, told: Iterations) -> None:
        """Take many iterations, in order of their ends."""
        there = np.flatnonzero(told.requests)
        if not len(there):
            return
        ends, begins = told.end_ns[there] // self._length_ns, told.start_ns[there] // self._length_ns
        cuts = np.flatnonzero(np.diff(ends, prepend=-1))
        sums = (np.add.reduceat(column[there], cuts).tolist() for column in (told.prompt_tokens, told.tokens))
        for index, prompt, generated in zip(ends[cuts].tolist(), *sums, strict=True):
            tally = self._tally(index)
            tally.prompt += prompt
            tally.generated += generated
        for place in np.flatnonzero(ends > begins).tolist():
            row = there[place]
            state = (told.free_blocks[row], told.running[row], told.waiting[row])
            usage = KVUsage(told.total_blocks, *map(int, state))
            for index in range(int(begins[place]), int(ends[place])):
                self._ran(index, told.engine, int(told.end_ns[row]), usage)

    def complete(self, until_ns: int | None = None) -> list[Interval]:
        """Return the intervals that end by `until_ns` (None: all that are left), in order, less the idle ones."""
        over = sorted(index for index in self._open if until_ns is None or (index + 1) * self._length_ns <= until_ns)
        return [self._interval(index, self._open.pop(index)) for index in over]

    def _tally(self, index: int) -> _Tally:
        tally = self._open.get(index)
        if tally is None:
            tally = self._open[index] = _Tally()
        return tally

    def _ran(self, index: int, engine: int, end: int, usage: KVUsage) -> None:
        """Note what ran at an interval's end; of several iterations in a pipeline the one that ended first counts."""
        tally = self._tally(index)
        tally.running_then = tally.running_then or {}
        known = tally.running_then.get(engine)
        if known is None or end < known[0]:
            tally.running_then[engine] = (end, usage)

    def _interval(self, index: int, tally: _Tally) -> Interval:
        seconds = self._length_ns / 1e9
        usages = [usage for _, usage in (tally.running_then or {}).values()]
        total = sum(usage.total_blocks for usage in usages)
        used = total - sum(usage.free_blocks for usage in usages)
        return Interval(
            (index + 1) * self._length_ns,
            tally.prompt / seconds,
            tally.generated / seconds,
            sum(usage.running for usage in usages),
            sum(usage.waiting for usage in usages),
            used / total if total else 0.0,
        )


def _steps_by_interval(done: CompletedBatch, first: int, last: int, length: int) -> list[int]:
    """Return how many steps end in interval `first`, the next, and so on."""
    if first == last:
        return [len(done.ends_ns)]
    counts: list[int] = np.bincount(done.ends_ns // length - first).tolist()
    return counts
