"""What observers are told: rows in order over all engines, who is left out, where simulated time went, overload."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.reached import Reached, reaches
from hypothesis import strategies as st

from orchestrator.engine.records import Aborted, Rejected
from orchestrator.observers.account import TimeRecorder
from orchestrator.observers.console import IterationLines
from orchestrator.observers.history import History
from orchestrator.observers.interface import Observer, hooks
from orchestrator.observers.intervals import Intervals
from orchestrator.observers.overload import OverloadWatch
from orchestrator.observers.requests import RequestRecorder
from orchestrator.request_source import RequestSource
from orchestrator.request_table import RequestTable
from orchestrator.requests.request import Request
from tests.orchestrator.records import done, request
from tests.orchestrator.serving import Run, scheduler


def test_a_batch_that_computes_nothing_is_no_iteration_to_show() -> None:
    """It may have taken the place of others."""
    out, kept = io.StringIO(), History()
    lines = IterationLines(out, several=False)
    for batch in (done(0, [10], []), done(10, [20], [request(0)])):
        lines.batch(batch)
        kept.batch(batch)
        assert (out.getvalue() == "", kept.engines == {}) == (not batch.batch.requests,) * 2
    assert out.getvalue().count("\n") == 1


def test_only_what_an_observer_overrides_is_called() -> None:
    class Ears(Observer):
        def batch(self, done: object) -> None:
            """Hear."""

    one, two = Ears(), Observer()
    assert hooks([one, two], "batch") == [one.batch]
    assert hooks([one, two], "interval") == [] and hooks([], "batch") == []


ENDS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), min_size=1, max_size=25)


@reaches(0.7, examples=100, ends=ENDS, every=st.integers(1, 5))
def test_rows_come_in_order_of_end_and_id_whatever_order_engines_tell_in(
    reached: Reached, ends: list[tuple[int, int]], every: int
) -> None:
    """Each engine in order of its ends, engine after engine; told until the least end that any has still to tell."""
    by_engine = {engine: sorted(end for one, end in ends if one == engine) for engine in range(3)}
    order = [(end, engine) for engine in (2, 0, 1) for end in by_engine[engine]]
    recorder, told, open_ends = RequestRecorder(), [], {engine: list(values) for engine, values in by_engine.items()}
    for identity, (end, engine) in enumerate(order):
        one = request(len(order) - identity, output=1)
        recorder.batch(done(0, [end], [one], seen=[one], admitted=[one], finished=[one], engine=engine))
        open_ends[engine].pop(0)
        if identity % every == 0:
            rows = recorder.hand_on(min([values[0] for values in open_ends.values() if values], default=None))
            told += [] if rows is None else list(zip(rows.columns["end"], rows.columns["id"], strict=True))
    rows = recorder.hand_on(None)
    told += [] if rows is None else list(zip(rows.columns["end"], rows.columns["id"], strict=True))
    assert told == sorted(told) and len(told) == len(order)
    kept = recorder.columns()
    assert list(zip(kept["end"], kept["id"], strict=True)) == told
    if len({engine for engine, _ in ends}) > 1 or len(ends) < 3:
        reached()


def test_a_row_that_ends_at_the_mark_is_held_back_for_those_that_end_with_it() -> None:
    recorder = RequestRecorder()
    late, early = request(7, output=1), request(3, output=1)
    recorder.batch(done(0, [50], [late], seen=[late], admitted=[late], finished=[late]))
    assert recorder.hand_on(50) is None
    recorder.batch(done(0, [50], [early], seen=[early], admitted=[early], finished=[early], engine=1))
    rows = recorder.hand_on(51)
    assert rows is not None and rows.columns["id"].tolist() == [3, 7] and rows.columns["engine"].tolist() == [1, 0]
    assert len(rows) == 2 and recorder.hand_on(None) is None


def test_many_finished_rows_are_due_and_few_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("orchestrator.observers.finished.monotonic", lambda: now[0])
    recorder = RequestRecorder()
    assert not recorder.due()
    some = [request(identity, output=1) for identity in range(256)]
    recorder.batch(done(0, [9], some[:1], seen=some[:1], admitted=some[:1], finished=some[:1]))
    assert not recorder.due()
    now[0] += 0.5
    assert recorder.due()
    recorder.hand_on(None)
    assert not recorder.due(), "nothing is held"
    recorder.batch(done(9, [10], some[1:], seen=some[1:], admitted=some[1:], finished=some[1:]))
    assert not recorder.due(), "255"
    more = [request(999, output=1)]
    recorder.batch(done(10, [11], more, seen=more, admitted=more, finished=more))
    assert recorder.due(), "256"


def test_lists_of_gaps_come_with_the_rows_and_are_not_kept() -> None:
    recorder = RequestRecorder(keep_itl=True)
    one = request(0, prompt=3, output=4)
    recorder.batch(done(10, [20], [one], new=[3], context=[0], seen=[one], admitted=[one]))
    recorder.batch(done(20, [25, 31], [one]))
    recorder.batch(done(40, [44], [one], finished=[one]))
    rows = recorder.hand_on(None)
    assert rows is not None and rows.itl is not None and [gaps.tolist() for gaps in rows.itl] == [[5, 6, 13]]
    assert {name: values.tolist() for name, values in rows.columns.items()} == {
        "id": [0], "input": [3], "output": [4], "arrival": [0], "queued": [10], "scheduled": [10],
        "first_token": [20], "end": [44], "engine": [0],
    }  # fmt: skip
    values, times = recorder.itl.columns()
    assert dict(zip(values.tolist(), times.tolist(), strict=True)) == {5: 1, 6: 1, 13: 1}
    assert recorder.totals.prompt_tokens == 3 and recorder.totals.generated_tokens == 4
    assert RequestRecorder().hand_on(None) is None


def test_tokens_that_come_together_have_no_time_between_them() -> None:
    """As of speculative decoding: a step brings some requests more than one token."""
    recorder, history, cutter = RequestRecorder(keep_itl=True), History(), Intervals(1000)
    one, two = request(0, prompt=3, output=6), request(1, prompt=3, output=3)
    first = done(10, [20], [one, two], new=[3, 3], context=[0, 0], seen=[one, two], admitted=[one, two])
    steps = done(20, [25, 31], [one, two], emits=[2, 1])
    last = done(40, [44], [one], finished=[one], emits=[1])
    for told in (first, steps, replace(last, outcome=replace(last.outcome, finished=[one, two]))):
        for observer in (recorder, history, cutter):
            observer.batch(told)
    rows = recorder.hand_on(None)
    assert rows is not None and rows.columns["output"].tolist() == [6, 3]
    assert rows.itl is not None and [gaps.tolist() for gaps in rows.itl] == [[5, 0, 6, 0, 13], [5, 6]]
    values, times = recorder.itl.columns()
    assert dict(zip(values.tolist(), times.tolist(), strict=True)) == {0: 2, 5: 2, 6: 2, 13: 1}
    assert recorder.totals.generated_tokens == sum(kind.generated_tokens for kind in history.kinds.values()) == 9
    assert cutter.complete()[0].generation_per_s == pytest.approx(9 / 1e-6)


def test_who_is_turned_away_is_counted_and_not_unfinished() -> None:
    recorder = RequestRecorder()
    one, two = request(0), request(1)
    recorder.batch(done(0, [5], [one], new=[5], context=[0], seen=[one, two], admitted=[one]))
    assert recorder.unfinished()["id"].tolist() == [0, 1]
    assert recorder.unfinished()["scheduled"].tolist() == [0, -1]
    recorder.turned_away(Aborted(0, one, 6))
    recorder.turned_away(Rejected(0, request(2), 6, "too long"))
    assert recorder.unfinished()["id"].tolist() == [1]
    assert (recorder.totals.aborted, recorder.totals.rejected) == (1, 1)


def test_blocks_of_engines_are_added_each_at_its_own_peak() -> None:
    from orchestrator.schedulers.interface import KVUsage

    recorder = RequestRecorder()
    for engine, free in ((0, 4), (0, 8), (1, 7)):
        one = request(engine)
        recorder.batch(done(0, [5], [one], seen=[one], usage=KVUsage(10, free, 1, 0), engine=engine))
    assert (recorder.kv_blocks, recorder.peak_kv_blocks) == (20, 6 + 3)


def test_time_is_busy_waiting_or_idle_and_adds_up() -> None:
    recorder = TimeRecorder([("gemm", "attention")])
    one, two = request(0, arrival=100), request(1, arrival=900)
    recorder.batch(done(150, [300], [one], busy=(100, 50), gap=(50, 100)))
    recorder.batch(done(400, [500], [one], busy=(60, 40), gap=(100, 0)))
    recorder.batch(done(1000, [1010], [two], busy=(10, 0), gap=(100, 400)))
    account = recorder.account(1010)
    assert (account.busy_ns, account.by_class) == (260, {"gemm": 170, "attention": 90})
    assert (account.idle_ns, account.waiting_ns) == (100 + 400, 50 + 100 + 100)
    assert account.busy_ns + account.waiting_ns + account.idle_ns == account.makespan_ns == 1010
    assert account.parts() == {"gemm": 170, "attention": 90, "waiting": 250, "idle": 500}
    assert TimeRecorder([()]).account(0).parts() == {"busy": 0, "waiting": 0, "idle": 0}


def gaps(*requests: Request, **options: Any) -> list[tuple[int, int]]:
    """What was before the batches of one engine: (waiting, idle)."""
    policy = scheduler("none", 100, max_batch=2, **options)
    return [tuple(batch.gap) for batch in Run(policy, requests, max_steps=1).batches]


def test_a_gap_is_waited_through_from_when_somebody_is_there() -> None:
    # Batches of two, or what has come after 500 ns. A prompt of 10: 1000 + 70.
    ones = [Request(0, 100, 10, 1), Request(0, 900, 10, 1), Request(0, 5000, 10, 1), Request(0, 5000, 10, 1)]
    assert gaps(*ones, batch_delay=500) == [(500, 100), (0, 0), (0, 5000 - 600 - 1070 - 1070)]
    assert gaps(Request(0, 7, 10, 3)) == [(0, 7), (0, 0), (0, 0)]


def test_who_has_gone_does_not_wait() -> None:
    gone, stays = Request(0, 0, 10, 1, abort_ns=300), Request(0, 800, 10, 1)
    assert gaps(gone, stays, batch_delay=1000) == [(1000, 800)]
    gone, stays = Request(0, 0, 10, 1), Request(0, 100, 10, 1, abort_ns=200)
    assert gaps(gone, stays, Request(0, 3000, 10, 1), batch_delay=50) == [(50, 0), (50, 3000 - 50 - 1070)]


def test_engines_of_other_classes_and_idle_ones_are_in_one_account() -> None:
    recorder = TimeRecorder([("gemm", "attention"), (), ("compute", "attention")])
    one = request(0)
    recorder.batch(done(0, [150], [one], seen=[one], finished=[one], busy=(100, 50)))
    recorder.batch(done(10, [30], [one], seen=[one], finished=[one], busy=(15, 5), engine=2, gap=(10, 0)))
    account = recorder.account(150)
    assert account.by_class == {"gemm": 100, "attention": 55, "compute": 15} and account.engines == 3
    assert (account.busy_ns, account.waiting_ns, account.idle_ns) == (170, 10, 150 + 120)


def test_batches_that_overlap_in_a_pipeline_count_once_as_busy() -> None:
    """However late the long run of one is told."""
    recorder = TimeRecorder([()])
    one, two = request(0), request(1)
    recorder.batch(done(40, [140], [two]))
    recorder.batch(done(0, [100], [one], gap=(0, 0)))
    recorder.batch(done(150, [160], [two], gap=(10, 0)))
    account = recorder.account(200)
    assert (account.busy_ns, account.waiting_ns, account.idle_ns) == (150, 10, 40)


def watch(arrivals: list[int]) -> OverloadWatch:
    table = RequestTable.of(request(identity, arrival=arrival) for identity, arrival in enumerate(arrivals))
    return OverloadWatch(RequestSource("w", table, 0, len(arrivals)))


def test_overload_is_named_with_both_rates() -> None:
    arrivals = [10**9 * second // 4 for second in range(41)]  # 4 a second, the last at 10 s
    watched = watch(arrivals)
    served = [request(identity) for identity in range(20)]
    for second, one in enumerate(served):
        end = (second + 1) * 10**9
        watched.batch(done(second * 10**9, [end], [one], admitted=[one], finished=[one]))
    (note,) = watched.notes(11 * 10**9)
    assert note.startswith(
        "overload: requests arrived at 4 a second and were served at 1; 30 of 41 had not begun when the last"
    )
    assert watched.notes(10 * 10**9) == [note]
    assert watched.notes(10 * 10**9 - 1) == [], "of a run that ended before the last arrival nothing is known"


def test_rates_are_of_the_time_between_the_first_and_the_last_arrival() -> None:
    watched = watch([500_000_000 + 150_000_000 * place for place in range(16)])  # 15 gaps in 2.25 s
    (note,) = watched.notes(10**10)
    assert note.startswith("overload: requests arrived at 6.67 a second and were served at 0; 16 of 16 had not begun")


@pytest.mark.parametrize("begun", [38, 41])
def test_a_few_who_wait_are_no_overload(begun: int) -> None:
    watched = watch([10**8 * place for place in range(41)])
    some = [request(identity) for identity in range(begun)]
    watched.batch(done(0, [10], some, admitted=some))
    assert watched.notes(10**10) == []


def test_all_at_once_is_a_burst_and_who_is_turned_away_does_not_wait() -> None:
    assert watch([0] * 50).notes(10**9) == []
    watched = watch([10**8 * place for place in range(41)])
    for identity in range(41):
        watched.turned_away(Rejected(0, request(identity), 0, "too long"))
    assert watched.notes(10**10) == []


def test_hand_made_records_are_of_int64() -> None:
    assert done(0, [1], [request(0)]).batch.ids.dtype == np.int64
