"""An engine as a compiled loop does what the engine of objects does: decisions, times, records, whatever the workload.

Without numba the loop runs as plain Python, and these tests with it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from foundation.compiling import compiles
from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.router import RouterPlace, routers
from orchestrator.cluster.source import Listed, Tabled
from orchestrator.engine.compiled.engine import CompiledEngine
from orchestrator.engine.compiled.pricing import HostTerms, Prepared
from orchestrator.engine.engine import Engine
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import CompletedBatch
from orchestrator.observers.account import TimeRecorder
from orchestrator.observers.history import History
from orchestrator.observers.interface import Observer
from orchestrator.observers.intervals import Intervals
from orchestrator.observers.requests import RequestRecorder
from orchestrator.pricing.graphs import CapturedGraphs
from orchestrator.pricing.host import HostPricing, HostTimes
from orchestrator.request_table import RequestTable, TokenIds
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from tests.helpers.reached import Reached, reaches
from tests.helpers.two_ways import plain_module
from tests.orchestrator.serving import scheduler
from tests.orchestrator.table_serving import TablePricing, Tables

GRAPHS = CapturedGraphs((8, 16, 24, 32))
CLASSES = 3


class Told:
    """All observers of a run, and who heard what."""

    def __init__(self, engines: int, stages: int) -> None:
        self.requests = RequestRecorder(keep_itl=True)
        self.time = TimeRecorder([("compute", "attention", "host")] * engines)
        self.intervals = Intervals(7_001)
        self.history = History()
        self.history._most = 10**6
        self.batches: list[CompletedBatch] = []
        self.iterations: list[Iterations] = []
        self.everyone: tuple[Observer, ...] = (self.requests, self.time, self.intervals, self.history)

    def hear(self, told: Any) -> None:
        if isinstance(told, Iterations):
            self.iterations.append(told)
            for observer in self.everyone:
                observer.iterations(told)
        else:
            assert isinstance(told, CompletedBatch)
            self.batches.append(told)
            for observer in self.everyone:
                observer.batch(told)


def run(engines: Sequence[Any], arriving: Sequence[Request] | RequestTable, router: str, stages: int) -> Told:
    """Run engines; requests of a table may come many at a time."""
    told = Told(len(engines), stages)
    chosen = routers.get(router)().router(RouterPlace(len(engines), 3))
    tabled = isinstance(arriving, RequestTable)
    source = Tabled(arriving, Admission) if tabled else Listed(map(Admission, arriving))
    for one in Cluster(engines, chosen, source).run():
        told.hear(one)
    assert all(engine.idle() for engine in engines)
    return told


def by_serial(told: Told) -> dict[tuple[int, int], tuple[int, ...]]:
    """Return each iteration's figures by engine and number; what only its first step has, where it begins a run."""
    rows: dict[tuple[int, int], tuple[int, ...]] = {}
    for done in told.batches:
        prefills, tokens = done.batch.prompt_work()
        for step, serial in enumerate(done.serials.tolist()):
            usage, first = done.usages.at(step), step == 0
            own = (prefills, tokens, len(done.batch.preempted), *done.gap) if first else (0, 0, 0, 0, 0)
            state = (usage.running, usage.waiting, usage.free_blocks)
            figures = (int(done.ends_ns[step]), len(done.batch.requests), done.outcome.step_tokens)
            rows[done.engine, serial] = (*figures, *state, *own)
    for many in told.iterations:
        columns = (
            many.end_ns, many.requests, many.tokens, many.running, many.waiting, many.free_blocks, many.prefills,
            many.prompt_tokens, many.preempted, many.waiting_ns, many.idle_ns,
        )  # fmt: skip
        for serial, *row in zip(*(column.tolist() for column in (many.serial, *columns)), strict=True):
            rows[many.engine, serial] = tuple(row)
    return rows


def assert_same(ordinary: Told, compiled: Told) -> None:
    assert not ordinary.iterations and not compiled.batches
    assert by_serial(compiled) == by_serial(ordinary)
    rows, other = ordinary.requests.hand_on(), compiled.requests.hand_on()
    assert rows is not None and other is not None
    assert {name: column.tolist() for name, column in other.columns.items()} == {
        name: column.tolist() for name, column in rows.columns.items()
    }
    assert [one.tolist() for one in other.itl or ()] == [one.tolist() for one in rows.itl or ()]
    for mine, its in zip(compiled.requests.itl.columns(), ordinary.requests.itl.columns(), strict=True):
        assert mine.tolist() == its.tolist()
    totals, mine = ordinary.requests.totals, compiled.requests.totals
    for name in ("iterations", "prompt_tokens", "generated_tokens", "preemptions", "end_ns"):
        assert getattr(mine, name) == getattr(totals, name)
    assert compiled.requests.peak_kv_blocks == ordinary.requests.peak_kv_blocks
    assert compiled.time.account(totals.end_ns) == ordinary.time.account(totals.end_ns)
    assert compiled.intervals.complete() == ordinary.intervals.complete()
    assert counted(compiled) == counted(ordinary)
    if ordinary.batches[0].stages_ns.shape[2] == 1:  # of batches that take turns, whole stretches are told in turn
        assert compiled.history.kinds == ordinary.history.kinds


def counted(told: Told) -> dict[str, tuple[int, int, int]]:
    """Return the sums of the history by kind of iteration, but for their times."""
    kinds = told.history.kinds.items()
    return {kind: (one.iterations, one.prompt_tokens, one.generated_tokens) for kind, one in kinds}


def workload(seed: int, count: int, gap: int, longest: int, ids: str, more: bool) -> list[Request]:
    """Return requests in order of arrival; `ids`: of prompts that share beginnings, or of answers as well."""
    draw = np.random.default_rng(seed)
    shared, arrival, made = draw.integers(0, 3, longest).tolist(), 0, []
    for number in range(count):
        arrival += int(draw.exponential(gap)) if draw.integers(3) else 0
        request = Request(number, arrival, int(draw.integers(1, longest - 2)), int(draw.integers(1, 60)))
        request.max_tokens += int(draw.integers(20)) if more and draw.integers(4) == 0 else 0
        if ids:
            known = int(draw.integers(request.prompt_tokens + 1))
            own = draw.integers(0, 9, request.prompt_tokens - known).tolist()
            request.prompt_token_ids = shared[:known] + own
        if ids == "answers":
            request.output_token_ids = draw.integers(0, 2, request.output_tokens).tolist()
        made.append(request)
    return made


def table_of(arriving: Sequence[Request]) -> RequestTable:
    """Return requests, whose clients allow no more tokens than they get, as a table."""
    if all(one.prompt_token_ids is None for one in arriving):
        return RequestTable.of(arriving)
    ids = [TokenIds.of(ids or () for ids in all_ids) for all_ids in (
        [one.prompt_token_ids for one in arriving], [one.output_token_ids for one in arriving],
    )]  # fmt: skip
    return replace(RequestTable.of(arriving), prompt_ids=ids[0], output_ids=ids[1])


PLAIN = plain_module(CompiledEngine.__module__)
"""The loop as plain Python, where whatever is out of an array is an error."""


def both(
    options: dict[str, Any], blocks: int, arriving: Sequence[Request], *, engines: int = 1, router: str = "round-robin",
    times: HostTimes | None = None, plain: bool = False, tabled: bool = False,
) -> tuple[Told, Told]:  # fmt: skip
    """Return what is told by engines of objects, and by as many compiled loops (`plain`: not compiled).

    `tabled`: to these, requests come as columns.
    """
    stages, tokens, seats = options["pipeline"], options["max_num_batched_tokens"], options["max_num_seqs"]
    times = times or HostTimes(step_ns=0)
    launches = tuple(range(3, 3 + stages))
    tables = [Tables(stages, tokens, seats, steep=3) for _ in range(2)]

    def scheduled() -> Any:
        return scheduler("vllm", blocks, 4, **dict(options))

    priced = HostPricing(TablePricing(tables[0]), times, GRAPHS, launches)
    objects = [Engine(scheduled(), priced, number=number) for number in range(engines)]
    terms = HostTerms(times, GRAPHS, tuple(count * times.launch_ns for count in launches))
    prepared = Prepared(tables[1], terms)
    made = PLAIN.CompiledEngine if plain else CompiledEngine
    loops = [made(scheduled(), prepared, number=number) for number in range(engines)]
    for loop in loops:
        loop.keep_token_times()
    ordinary = run(objects, copy.deepcopy(list(arriving)), router, stages)
    compiled = run(loops, table_of(arriving) if tabled else copy.deepcopy(list(arriving)), router, stages)
    assert [loop.usage() for loop in loops] == [one.usage() for one in objects]
    return ordinary, compiled


OPTIONS = st.fixed_dictionaries(
    {
        "async_scheduling": st.booleans(),
        "enable_prefix_caching": st.booleans(),
        "max_num_seqs": st.sampled_from([2, 4, 6, 64]),
        "max_num_batched_tokens": st.sampled_from([64, 70, 256]),
        "max_model_len": st.sampled_from([120, 200]),
        "pipeline": st.sampled_from([1, 1, 2, 3, 5]),
        "long_prefill_token_threshold": st.sampled_from([0, 0, 7]),
        "reserve_full_isl": st.booleans(),
    }
)
TIMES = st.sampled_from(
    [
        HostTimes(),
        HostTimes(step_ns=300, request_ns=40, launch_ns=900),
        HostTimes(step_ns=3000, request_ns=50, launch_ns=500, hidden=True),
    ]
)


@reaches(
    0.9,
    examples=36,
    options=OPTIONS,
    blocks=st.sampled_from([51, 60, 80, 1000]),
    times=TIMES,
    seed=st.integers(0, 10**6),
    count=st.integers(1, 50),
    gap=st.sampled_from([100, 3_000, 20_000, 10**6]),
    ids=st.sampled_from(["", "prompts", "answers"]),
    plain=st.booleans(),
    tabled=st.booleans(),
)
def test_one_engine(
    reached: Reached, options: dict[str, Any], blocks: int, times: HostTimes, seed: int, count: int, gap: int, ids: str,
    plain: bool, tabled: bool,
) -> None:  # fmt: skip
    arriving = workload(seed, count, gap, 118, ids, not tabled)
    ordinary, compiled = both(options, blocks, arriving, times=times, plain=plain, tabled=tabled)
    reached()
    assert_same(ordinary, compiled)


@reaches(
    0.9,
    examples=30,
    options=OPTIONS,
    engines=st.integers(2, 4),
    router=st.sampled_from(["round-robin", "least-outstanding", "least-kv", "random", "power-of-two", "prefix-aware"]),
    seed=st.integers(0, 10**6),
    gap=st.sampled_from([100, 3_000, 20_000]),
    ids=st.sampled_from(["", "prompts"]),
    tabled=st.booleans(),
)
def test_several_engines(
    reached: Reached, options: dict[str, Any], engines: int, router: str, seed: int, gap: int, ids: str, tabled: bool
) -> None:
    """Routers see the same loads, and find the same prefixes; those that balance load may do so by columns."""
    arriving = workload(seed, 40, gap, 118, ids, False)
    ordinary, compiled = both(options, 80, arriving, engines=engines, router=router, tabled=tabled)
    reached()
    assert_same(ordinary, compiled)


def test_steps_that_are_one_too_many_have_room() -> None:
    """In a pipeline tokens are computed beyond the last one, which may take another block."""
    options = {"max_num_batched_tokens": 64, "max_num_seqs": 8, "pipeline": 4, "max_model_len": 200}
    arriving = [Request(number, 10 * number, 20, 20) for number in range(6)]
    assert_same(*both(options, 300, arriving, plain=True))


@pytest.mark.parametrize("router", ["least-outstanding", "prefix-aware"])
def test_who_is_done_before_the_last_request_comes_tells_of_it(router: str) -> None:
    """Though it was a router's asking that let it work, and nothing is left to do."""
    options = {"max_num_batched_tokens": 64, "max_num_seqs": 8, "pipeline": 1, "max_model_len": 200}
    arriving = [Request(number, 10**9 * number, 20, 1) for number in range(14)]
    assert_same(*both(options, 300, arriving, engines=3, router=router))


def test_without_chunks() -> None:
    """A prompt waits until the whole of it finds room in a step."""
    options = {"enable_chunked_prefill": False, "max_num_batched_tokens": 256, "max_num_seqs": 6, "pipeline": 1}
    for asynchronous in (False, True):
        given = {**options, "max_model_len": 200, "async_scheduling": asynchronous}
        assert_same(*both(given, 90, workload(5, 40, 2_000, 118, "", True)))


def test_preemption_and_found_prefixes_are_in_it() -> None:
    """What is compared above does happen: places are lost, and what was computed before is found again."""
    options = {"max_num_batched_tokens": 64, "max_num_seqs": 64, "pipeline": 1, "max_model_len": 200}
    ordinary, compiled = both(options, 60, workload(2, 40, 300, 118, "prompts", False))
    assert_same(ordinary, compiled)
    totals = compiled.requests.totals
    assert totals.preemptions > 10
    computed = sum(int(many.prompt_tokens.sum()) for many in compiled.iterations)
    assert computed != sum(one.prompt_tokens for one in workload(2, 40, 300, 118, "prompts", False))


def test_many_requests_are_told_in_pieces() -> None:
    """Arrays grow with the requests, and what is told at once has a bound."""
    options = {"max_num_batched_tokens": 256, "max_num_seqs": 64, "pipeline": 1, "max_model_len": 200}
    ordinary, compiled = both(options, 1000, workload(3, 1500, 1_000, 118, "", False))
    assert_same(ordinary, compiled)
    assert len(compiled.iterations) == 2


@pytest.mark.skipif(not compiles(), reason="numba is not installed")
@pytest.mark.parametrize("router", ["round-robin", "least-outstanding", "least-kv"])
def test_thousands_are_routed_at_once(router: str) -> None:
    """Engines come back for prices and room, and with much to tell, between two requests; nothing is lost by it."""
    options = {"max_num_batched_tokens": 64, "max_num_seqs": 16, "pipeline": 1, "max_model_len": 200}
    arriving = workload(4, 2500, 400, 118, "", False)
    ordinary, compiled = both(options, 300, arriving, engines=3, router=router, tabled=True)
    assert_same(ordinary, compiled)


def test_requests_that_are_too_long_are_turned_away() -> None:
    tables = Tables(1, 64, 4, steep=3)
    options = {"max_num_batched_tokens": 64, "max_num_seqs": 4, "max_model_len": 100}
    engine = CompiledEngine(scheduler("vllm", 60, 4, **options), Prepared(tables, None))
    rejected = engine.submit(Admission(Request(0, 0, 100, 1)), 0)
    assert rejected is not None and "max_model_len (100)" in rejected.reason
    assert engine.idle() and engine.next_event() is None


def test_gaps_are_counted_once_each() -> None:
    """The times between tokens of all requests, by how often each occurred."""
    options = {"max_num_batched_tokens": 64, "max_num_seqs": 8, "pipeline": 2, "max_model_len": 200}
    _, compiled = both(options, 200, workload(9, 30, 2_000, 118, "", False))
    counted = Counter[int]()
    for many in compiled.iterations:
        for gap, times in zip(many.gaps_ns.tolist(), many.gap_counts.tolist(), strict=True):
            counted[gap] += times
    lists = [gap for many in compiled.iterations for one in many.token_gaps or () for gap in one.tolist()]
    assert counted == Counter(lists)
