"""One clock for many engines: what comes first at equal times, what routers see, and what disturbs whom."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import strategies as st

from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.source import Listed
from orchestrator.engine.engine import Engine
from orchestrator.engine.loops import NEVER
from orchestrator.engine.records import Aborted, CompletedBatch, Rejected
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.serving import FormulaPricing, StageTimes, requests, scheduler

State = tuple[int, int, int]


class Watching:
    """Sends requests where the fewest are, and notes what it saw: the time, and each engine's state."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[State]]] = []
        self.chosen: list[int] = []

    def route(self, request: Request, now: int, engines: Sequence[Engine]) -> int:
        loads = [engine.load(now) for engine in engines]
        states = [(load.running, load.waiting, load.free_blocks) for load in loads]
        self.seen.append((now, states))
        self.chosen.append(min(range(len(engines)), key=lambda number: (sum(states[number][:2]), number)))
        return self.chosen[-1]


def run(
    engines: Sequence[Engine], arriving: Sequence[Request]
) -> tuple[Watching, list[CompletedBatch], list[Aborted | Rejected]]:
    router = Watching()
    batches: list[CompletedBatch] = []
    others: list[Aborted | Rejected] = []
    for told in Cluster(engines, router, Listed(Admission(request, 0) for request in arriving)).run():
        if isinstance(told, CompletedBatch):
            batches.append(told)
        else:
            others.append(told)
    return router, batches, others


def orca(number: int = 0, **options: int) -> Engine:
    return Engine(scheduler("orca", 40, **options), StageTimes([10]), number=number)


def test_a_batch_that_ends_as_a_request_arrives_has_ended_and_the_next_decision_sees_the_request() -> None:
    router, batches, _ = run([orca()], requests([(4, 1, 0), (4, 1, 10)]))
    assert router.seen == [(0, [(0, 0, 40)]), (10, [(0, 0, 40)])]
    assert [(done.decided_ns, done.end_ns) for done in batches] == [(0, 10), (10, 20)]


def test_how_far_engines_look_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """One alone to the next arrival; of several each as far as two of its own mean gaps, in the end without limit."""
    horizons: list[tuple[int, int]] = []
    expect = Engine.expect

    def noting(self: Engine, horizon_ns: int) -> None:
        horizons.append((self.number, horizon_ns))
        expect(self, horizon_ns)

    monkeypatch.setattr(Engine, "expect", noting)
    arriving = [(4, 1, 5), (4, 1, 20), (4, 1, 90)]
    run([orca()], requests(arriving))
    assert horizons == [(0, 5), (0, 20), (0, 90), (0, NEVER)]
    horizons.clear()
    router, _, _ = run([orca(0), orca(1)], requests(arriving))
    assert router.chosen == [0, 0, 0]
    assert horizons == [(0, 5 + 2 * 5), (0, 20 + 2 * 10), (0, NEVER)]


def test_a_request_that_arrives_before_the_end_is_seen_at_the_end() -> None:
    router, batches, _ = run([orca()], requests([(4, 1, 0), (4, 1, 9)]))
    assert router.seen[1] == (9, [(1, 0, 39)])
    assert [(done.decided_ns, len(done.batch.requests)) for done in batches] == [(0, 1), (10, 1)]
    assert [(seen.request.id, seen.queued_ns) for seen in batches[1].seen] == [(1, 10)]


@pytest.mark.parametrize(("abort_ns", "ends"), [(10, False), (11, True)])
def test_a_client_that_goes_as_its_answer_is_complete_has_gone_first(abort_ns: int, ends: bool) -> None:
    (request,) = requests([(4, 1, 0)])
    request.abort_ns = abort_ns
    _, (done,), given_up = run([orca()], [request])
    assert list(done.outcome.finished) == ([request] if ends else [])
    assert given_up == ([] if ends else [Aborted(0, request, 10)])


def test_requests_that_arrive_together_are_routed_in_turn_and_each_is_seen_by_the_next() -> None:
    router, batches, _ = run([orca(0), orca(1)], requests([(4, 1, 5)] * 3))
    assert router.chosen == [0, 1, 0]
    assert router.seen[2] == (5, [(0, 1, 40), (0, 1, 40)])
    assert sorted((done.engine, len(done.batch.requests)) for done in batches) == [(0, 2), (1, 1)]


def test_what_cannot_be_served_is_told_and_the_others_are_served() -> None:
    vllm = Engine(scheduler("vllm", 40, max_model_len=20), StageTimes([10]))
    long = requests([(4, 2, 0), (20, 1, 1), (4, 1, 2)])
    _, batches, others = run([vllm], long)
    assert others == [Rejected(0, long[1], 1, "its prompt of 20 tokens is not below max_model_len (20)")]
    assert [request.id for done in batches for request in done.outcome.finished] == [0, 2]


def test_what_comes_to_one_engine_cuts_no_stretch_of_another() -> None:
    rows = [(4, 150, 0), *((4, 2, 3 + 50 * index) for index in range(25))]
    router, batches, _ = run([orca(0), orca(1)], requests(rows))
    assert router.chosen == [0] + [1] * 25
    steps = [done.batch.steps for done in batches if done.engine == 0]
    assert sum(steps) == 150
    assert len(steps) < 12, "it works ahead further and further, since nothing comes to it"


POLICIES = [
    ("orca", {}),
    ("vllm", {"async_scheduling": False}),
    ("vllm", {}),
    ("orca", {"pipeline": 2}),
    ("vllm", {"pipeline": 2}),
    ("sglang", {}),
    ("sglang", {"pipeline": 2}),
]


@pytest.mark.parametrize(("policy", "options"), POLICIES)
def test_routers_see_the_same_whether_or_not_engines_work_ahead(policy: str, options: dict[str, int]) -> None:
    stages = options.get("pipeline", 1)

    def outcome(rows: Sequence[tuple[int, int, int]], count: int, most: int) -> tuple[object, int]:
        engines = [
            Engine(scheduler(policy, 30, **options), FormulaPricing(stages), number=number, max_steps=most)
            for number in range(count)
        ]
        router, batches, _ = run(engines, requests(sorted(rows, key=lambda row: row[2])))
        finished = [(done.engine, request.id, done.end_ns) for done in batches for request in done.outcome.finished]
        return (router.seen, router.chosen, sorted(finished)), len(batches)

    row = st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 60_000))

    @reaches(0.5, examples=30, rows=st.lists(row, min_size=2, max_size=14), count=st.integers(1, 3))
    def compare(reached: Reached, rows: list[tuple[int, int, int]], count: int) -> None:
        single, batches = outcome(rows, count, 1)
        ahead, fewer = outcome(rows, count, 512)
        assert ahead == single
        if fewer < batches:
            reached()

    compare()
