"""Throughput over time: tokens a fixed interval, and the engine's state at each interval's end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.instance import CompletedBatch
from orchestrator.metrics import prompt_tokens
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


_NOTHING = KVUsage(0, 0, 0, 0)


class Intervals:
    """Cuts the stream of completed batches into intervals of `length_ns`; idle stretches cost and yield nothing."""

    def __init__(self, length_ns: int) -> None:
        self._length_ns = length_ns
        self._next = 0
        self._prompt: dict[int, int] = {}
        self._generated: dict[int, int] = {}

    def record(self, done: CompletedBatch) -> list[Interval]:
        """Take a completed batch and return the intervals that are now complete, in order, less the idle ones."""
        emitted, first = len(done.outcome.emitted), int(done.ends_ns[0]) // self._length_ns
        for offset, steps in enumerate(self._steps_by_interval(done, first)):
            if steps:
                self._generated[first + offset] = self._generated.get(first + offset, 0) + steps * emitted
        self._prompt[first] = self._prompt.get(first, 0) + prompt_tokens(done)
        busy_from, busy_to = done.start_ns // self._length_ns, done.end_ns // self._length_ns
        complete = [self._interval(index, _NOTHING) for index in self._pending(busy_from)]
        complete += [self._interval(index, done.usage) for index in range(max(self._next, busy_from), busy_to)]
        self._next = max(self._next, busy_to)
        return complete

    def finish(self) -> list[Interval]:
        """Return the interval in which the run ended."""
        return [self._interval(index, _NOTHING) for index in self._pending(None)]

    def _steps_by_interval(self, done: CompletedBatch, first: int) -> list[int]:
        """Return how many steps end in interval `first`, the next, and so on."""
        if len(done.ends_ns) == 1:
            return [1]
        counts: list[int] = np.bincount(done.ends_ns // self._length_ns - first).tolist()
        return counts

    def _pending(self, before: int | None) -> list[int]:
        """Return the intervals before interval `before` (None: all) that hold tokens and were not returned yet."""
        return sorted(index for index in self._generated if before is None or index < before)

    def _interval(self, index: int, usage: KVUsage) -> Interval:
        seconds = self._length_ns / 1e9
        used = (usage.total_blocks - usage.free_blocks) / usage.total_blocks if usage.total_blocks else 0.0
        return Interval(
            (index + 1) * self._length_ns,
            self._prompt.pop(index, 0) / seconds,
            self._generated.pop(index, 0) / seconds,
            usage.running,
            usage.waiting,
            used,
        )
