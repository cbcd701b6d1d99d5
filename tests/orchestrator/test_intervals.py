"""Throughput over time, against records made by hand: where tokens count, and what is in use when nothing runs."""

from __future__ import annotations

import pytest

from orchestrator.engine.records import CompletedBatch
from orchestrator.observers.intervals import Interval, Intervals
from orchestrator.schedulers.interface import KVUsage
from tests.orchestrator import records

LENGTH = 1000
Row = tuple[int, float, float, int, int, float]


def done(
    start: int, ends: list[int], *, prompt: int = 0, emitted: int = 1, usage: KVUsage = records.USAGE, engine: int = 0
) -> CompletedBatch:
    """A batch whose steps end at `ends`; its first request computes `prompt` prompt tokens, the others decode."""
    requests = [records.request(index, prompt if index == 0 and prompt else 5) for index in range(emitted)]
    context = [0 if index == 0 and prompt else 5 for index in range(emitted)]
    new = [prompt if index == 0 and prompt else 1 for index in range(emitted)]
    return records.done(start, ends, requests, new=new, context=context, usage=usage, engine=engine)


def told(cutter: Intervals, done: CompletedBatch, until: int | None = None) -> list[Row]:
    """Return what is over once `done`, and everything before its end, has been told."""
    cutter.batch(done)
    return rows(cutter.complete(done.end_ns if until is None else until))


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
    assert told(cutter, done(0, [999], prompt=7)) == []
    assert rows(cutter.complete()) == [(1000, 7, 1, *IDLE)]
    assert Intervals(LENGTH).complete() == []


def test_what_ends_exactly_at_an_intervals_end_counts_in_the_next() -> None:
    cutter = Intervals(LENGTH)
    assert told(cutter, done(0, [1000], prompt=7, emitted=2)) == [(1000, 0, 0, *BUSY)]
    assert rows(cutter.complete()) == [(2000, 7, 2, *IDLE)]


def test_a_stretch_spreads_its_tokens_over_the_intervals_in_which_its_steps_end() -> None:
    cutter = Intervals(LENGTH)
    over = told(cutter, done(100, [400, 999, 1000, 3500], emitted=3))
    assert over == [(1000, 0, 6, *BUSY), (2000, 0, 3, *BUSY), (3000, 0, 0, *BUSY)]
    assert rows(cutter.complete()) == [(4000, 0, 3, *IDLE)]


def test_an_interval_before_an_idle_time_is_told_once_with_nothing_in_use() -> None:
    cutter = Intervals(LENGTH)
    assert told(cutter, done(0, [300])) == []
    assert told(cutter, done(50_200, [50_900], prompt=4)) == [(1000, 0, 1, *IDLE)]
    assert told(cutter, done(50_900, [51_100])) == [(51_000, 4, 1, *BUSY)]
    assert told(cutter, done(90_000, [90_001])) == [(52_000, 0, 1, *IDLE)]
    assert rows(cutter.complete()) == [(91_000, 0, 1, *IDLE)]


def test_a_batch_that_begins_in_an_interval_of_its_own_leaves_the_one_before_idle() -> None:
    # The first ends in interval 0; the second runs from the middle of interval 1 into interval 2.
    cutter = Intervals(LENGTH)
    cutter.batch(done(0, [500]))
    assert told(cutter, done(1500, [2500])) == [(1000, 0, 1, *IDLE), (2000, 0, 0, *BUSY)]
    assert rows(cutter.complete()) == [(3000, 0, 1, *IDLE)]


def test_an_interval_stays_open_until_all_engines_have_told_of_it() -> None:
    cutter = Intervals(LENGTH)
    cutter.batch(done(0, [1500], engine=1))
    assert rows(cutter.complete(999)) == []
    cutter.batch(done(0, [400, 1100], emitted=2))
    assert rows(cutter.complete(1100)) == [(1000, 0, 2, 4, 6, 0.4)], "both engines were at work at its end"
    assert rows(cutter.complete()) == [(2000, 0, 3, *IDLE)]


@pytest.mark.parametrize("blocks", [0, 10])
def test_the_share_of_memory_in_use_needs_memory(blocks: int) -> None:
    over = told(Intervals(LENGTH), done(0, [1500], usage=KVUsage(blocks, 0, 1, 0)))
    assert over[0][-1] == (1.0 if blocks else 0.0)
