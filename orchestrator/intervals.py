"""Throughput over time: tokens a fixed interval, and the engine's state at each interval's end."""

from __future__ import annotations

from collections.abc import Iterator
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

    @property
    def active(self) -> bool:
        """Whether anything happened in it or runs at its end."""
        return bool(self.prompt_per_s or self.generation_per_s or self.running)


class Intervals:
    """Cuts the stream of completed batches into intervals of `length_ns`."""

    def __init__(self, length_ns: int) -> None:
        self._length_ns = length_ns
        self._index = 0
        self._prompt: dict[int, int] = {}
        self._generated: dict[int, int] = {}
        self._last_end_ns = 0

    def record(self, done: CompletedBatch) -> list[Interval]:
        """Take a completed batch and return the intervals that are now complete, in order."""
        bins = done.ends_ns // self._length_ns
        emitted = len(done.outcome.emitted)
        first = int(bins[0])
        for offset, steps in enumerate(np.bincount(bins - first).tolist()):
            if steps:
                self._generated[first + offset] = self._generated.get(first + offset, 0) + steps * emitted
        self._prompt[first] = self._prompt.get(first, 0) + prompt_tokens(done)
        self._last_end_ns = done.end_ns
        return list(self._complete(done.end_ns, done))

    def finish(self) -> list[Interval]:
        """Return the interval in which the run ended."""
        return list(self._complete(self._last_end_ns + self._length_ns, None))

    def _complete(self, until_ns: int, done: CompletedBatch | None) -> Iterator[Interval]:
        while (end_ns := (self._index + 1) * self._length_ns) <= until_ns:
            usage = KVUsage(0, 0, 0, 0)
            if done is not None and done.start_ns < end_ns:
                usage = done.usage
            yield self._interval(end_ns, usage)
            self._index += 1

    def _interval(self, end_ns: int, usage: KVUsage) -> Interval:
        seconds = self._length_ns / 1e9
        used = (usage.total_blocks - usage.free_blocks) / usage.total_blocks if usage.total_blocks else 0.0
        return Interval(
            end_ns,
            self._prompt.pop(self._index, 0) / seconds,
            self._generated.pop(self._index, 0) / seconds,
            usage.running,
            usage.waiting,
            used,
        )
