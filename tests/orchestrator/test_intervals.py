"""Throughput over time, against records made by hand: where tokens count, and what is in use when nothing runs."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.batch import Batch, BatchOutcome
from orchestrator.instance import CompletedBatch
from orchestrator.intervals import Interval, Intervals
from orchestrator.request import Request
from orchestrator.schedulers.interface import KVUsage

LENGTH = 1000
USAGE = KVUsage(total_blocks=10, free_blocks=6, running=2, waiting=3)
Row = tuple[int, float, float, int, int, float]


def done(start: int, ends: list[int], *, prompt: int = 0, emitted: int = 1, usage: KVUsage = USAGE) -> CompletedBatch:
    """A batch whose steps end at `ends`; its first request computes `prompt` prompt tokens, the others decode."""
    requests = [Request(index, 0, prompt if index == 0 and prompt else 5, 100) for index in range(emitted)]
    context = [0 if index == 0 and prompt else 5 for index in range(emitted)]
    new = [prompt if index == 0 and prompt else 1 for index in range(emitted)]
    batch = Batch(0, requests, new, context, [True] * emitted, steps=len(ends))
    return CompletedBatch(
        batch,
        start,
        start,
        np.array(ends, dtype=np.int64),
        usage,
        [],
        BatchOutcome(emitted=requests),
        ((start, ends[-1]),),
    )


def rows(intervals: list[Interval]) -> list[Row]:
    """Return intervals as (end, prompt tokens, generated tokens, running, waiting, share of KV in use)."""
    seconds = LENGTH / 1e9
    return [
        (
            i.end_ns,
            round(i.prompt_per_s * seconds, 6),
            round(i.generation_per_s * seconds, 6),
            i.running,
            i.waiting,
            i.kv_used,
        )
        for i in intervals
    ]


BUSY = (2, 3, 0.4)
IDLE = (0, 0, 0.0)


def test_nothing_is_complete_before_its_end_has_passed() -> None:
    cutter = Intervals(LENGTH)
    assert cutter.record(done(0, [999], prompt=7)) == []
    assert rows(cutter.finish()) == [(1000, 7, 1, *IDLE)]
    assert Intervals(LENGTH).finish() == []


def test_what_ends_exactly_at_an_intervals_end_counts_in_the_next() -> None:
    cutter = Intervals(LENGTH)
    assert rows(cutter.record(done(0, [1000], prompt=7, emitted=2))) == [(1000, 0, 0, *BUSY)]
    assert rows(cutter.finish()) == [(2000, 7, 2, *IDLE)]


def test_a_stretch_spreads_its_tokens_over_the_intervals_in_which_its_steps_end() -> None:
    cutter = Intervals(LENGTH)
    told = cutter.record(done(100, [400, 999, 1000, 3500], emitted=3))
    assert rows(told) == [(1000, 0, 6, *BUSY), (2000, 0, 3, *BUSY), (3000, 0, 0, *BUSY)]
    assert rows(cutter.finish()) == [(4000, 0, 3, *IDLE)]


def test_an_interval_before_an_idle_time_is_told_late_and_once_with_nothing_in_use() -> None:
    cutter = Intervals(LENGTH)
    assert cutter.record(done(0, [300])) == []
    assert rows(cutter.record(done(50_200, [50_900], prompt=4))) == [(1000, 0, 1, *IDLE)]
    assert rows(cutter.record(done(50_900, [51_100]))) == [(51_000, 4, 1, *BUSY)]
    assert rows(cutter.record(done(90_000, [90_001]))) == [(52_000, 0, 1, *IDLE)]
    assert rows(cutter.finish()) == [(91_000, 0, 1, *IDLE)]


def test_a_batch_that_begins_in_an_interval_of_its_own_leaves_the_one_before_idle() -> None:
    # The first ends in interval 0; the second runs from the middle of interval 1 into interval 2.
    cutter = Intervals(LENGTH)
    cutter.record(done(0, [500]))
    assert rows(cutter.record(done(1500, [2500]))) == [(1000, 0, 1, *IDLE), (2000, 0, 0, *BUSY)]
    assert rows(cutter.finish()) == [(3000, 0, 1, *IDLE)]


@pytest.mark.parametrize("blocks", [0, 10])
def test_the_share_of_memory_in_use_needs_memory(blocks: int) -> None:
    cutter = Intervals(LENGTH)
    told = cutter.record(done(0, [1500], usage=KVUsage(blocks, 0, 1, 0)))
    assert told[0].kv_used == (1.0 if blocks else 0.0)
