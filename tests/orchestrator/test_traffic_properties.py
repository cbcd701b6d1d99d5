"""What holds for any traffic with feedback: nobody is lost, sessions are in order, and stretches change nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from orchestrator.cluster.admission.queue import QueueGate
from orchestrator.cluster.admission.tokens import TokenGate
from orchestrator.cluster.autoscaling.queue import QueueScaling
from orchestrator.cluster.departures import Patience
from orchestrator.cluster.front import FrontRules
from orchestrator.cluster.retrieval import Retrieval
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.fronts import Outcome, engines, run, source, table

POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("orca", {}),
    ("orca", {"pipeline": 2, "max_batch": 2}),
    ("none", {"max_batch": 3, "batch_delay": 2000}),
    ("vllm", {}),
    ("vllm", {"async_scheduling": False, "max_num_batched_tokens": 16, "max_num_seqs": 8}),
    ("vllm", {"pipeline": 2}),
]
ROWS = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(0, 60_000)), min_size=2, max_size=12)
SESSIONS = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 8000)), min_size=0, max_size=5)
LOOP = st.sampled_from(["open", "clients", "places"])


def with_sessions(
    rows: list[tuple[int, int, int]], lengths: list[tuple[int, int]]
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]]]:
    """Make sessions of the first rows, so many turns each with a pause; the others stand by themselves."""
    columns = [(0, 0)] * len(rows)
    made, at = list(rows), 0
    for number, (turns, pause) in enumerate(lengths, 1):
        for place in range(at, min(at + turns, len(rows))):
            columns[place] = (number, pause)
            made[place] = (*rows[place][:2], rows[at][2])
        at += turns
    return made, columns


def traffic(drawn: dict[str, Any], most: int, policy: str, options: dict[str, Any]) -> tuple[Outcome, int]:
    """Run what was drawn with stretches of at most so many steps; return it, and the turns that never came."""
    rows, columns = with_sessions(drawn["rows"], drawn["lengths"])
    requests = table(rows, columns)
    loop = {"open": {}, "clients": {"clients": drawn["count"], "think": drawn["think"]}, "places": {}}[drawn["loop"]]
    places = drawn["count"] if drawn["loop"] == "places" else None
    came, turns = source(requests, places=places, **loop)
    gate = {"none": None, "queue": QueueGate(drawn["limit"]), "tokens": TokenGate(20 * drawn["limit"])}[drawn["gate"]]
    scaling = QueueScaling(target_requests=drawn.get("target", 2), scale_interval=5e-6, startup_delay=7e-6)
    rules = FrontRules(
        patience=Patience(drawn["answer"], drawn["first"]),
        retrieval=None if drawn["servers"] is None else Retrieval(700, drawn["servers"]),
        gate=gate,
        scaling=scaling if drawn["scales"] else None,
    )
    outcome = run(engines(drawn["engines"], policy, options, most=most), came, rules)
    return outcome, 0 if turns is None else turns.unreleased


DRAWN = st.fixed_dictionaries(
    {
        "rows": ROWS,
        "lengths": SESSIONS,
        "loop": LOOP,
        "count": st.integers(1, 4),
        "think": st.integers(0, 5000),
        "gate": st.sampled_from(["none", "queue", "tokens"]),
        "limit": st.integers(1, 6),
        "answer": st.none() | st.integers(1, 60_000),
        "first": st.none() | st.integers(1, 30_000),
        "servers": st.none() | st.integers(1, 2),
        "scales": st.booleans(),
        "engines": st.integers(1, 3),
    }
)


def seen(outcome: Outcome) -> Any:
    """Return all that a run tells of requests and instances."""
    fates = [(n, f.arrival, f.first, f.end, f.how, f.engine) for n, f in sorted(outcome.fates.items())]
    scaling = outcome.cluster.scaling
    return fates, outcome.reasons, None if scaling is None else (scaling.events, scaling.paid_ns(10**9))


@pytest.mark.parametrize(("policy", "options"), POLICIES)
def test_stretches_change_nothing_and_nobody_is_lost(policy: str, options: dict[str, Any]) -> None:
    @reaches(0.25, examples=60, drawn=DRAWN)
    def compare(reached: Reached, drawn: dict[str, Any]) -> None:
        single, lost = traffic(drawn, 1, policy, options)
        ahead, also_lost = traffic(drawn, 512, policy, options)
        assert seen(ahead) == seen(single) and lost == also_lost
        assert len(single.fates) + lost == len(drawn["rows"]), "each is told of once, or its session had ended"
        assert all(fate.how for fate in single.fates.values())
        if ahead.batches < single.batches:
            reached()

    compare()


def test_turns_are_in_order_and_never_overlap() -> None:
    @reaches(0.3, examples=150, drawn=DRAWN)
    def check(reached: Reached, drawn: dict[str, Any]) -> None:
        outcome, _ = traffic({**drawn, "answer": None, "first": None}, 512, "orca", {})
        _, columns = with_sessions(drawn["rows"], drawn["lengths"])
        followed = 0
        for place in range(1, len(columns)):
            session, pause = columns[place]
            if session == 0 or columns[place - 1][0] != session:
                continue
            before, after = outcome.fates.get(place - 1), outcome.fates.get(place)
            assert (after is not None) == (before is not None and before.how == "answered")
            if before is not None and after is not None and before.end is not None:
                released = before.end + pause
                assert after.arrival >= released
                assert after.arrival == released or drawn["loop"] == "places"
                followed += 1
        if followed:
            reached()

    check()


def test_no_more_are_under_way_than_there_are_places_or_clients() -> None:
    @reaches(0.3, examples=150, drawn=DRAWN, loop=st.sampled_from(["clients", "places"]))
    def check(reached: Reached, drawn: dict[str, Any], loop: str) -> None:
        outcome, _ = traffic({**drawn, "loop": loop, "answer": None, "first": None}, 512, "vllm", {})
        spans = [(fate.arrival, fate.end or 0) for fate in outcome.fates.values()]
        # At one moment ends come first: whoever follows was waiting for them. What takes no time counts for nothing.
        moments = [(begin, 1) for begin, end in spans if begin < end] + [
            (end, -1) for begin, end in spans if begin < end
        ]
        under_way = most = 0
        for _, change in sorted(moments):
            under_way += change
            most = max(most, under_way)
        assert most <= drawn["count"]
        if most == drawn["count"]:
            reached()

    check()


def test_a_timed_out_request_ends_no_later_than_the_batch_under_way_and_others_in_time() -> None:
    """Whoever is answered was so before the client's time was up; whoever went had waited that long."""

    @reaches(0.08, examples=150, drawn=DRAWN, answer=st.integers(2000, 40_000), first=st.integers(1000, 20_000))
    def check(reached: Reached, drawn: dict[str, Any], answer: int, first: int) -> None:
        outcome, _ = traffic({**drawn, "answer": answer, "first": first, "gate": "none"}, 512, "vllm", {})
        for fate in outcome.fates.values():
            assert fate.end is not None
            if fate.how == "answered":
                assert fate.first is not None
                assert fate.end - fate.arrival < answer and fate.first - fate.arrival < first
            else:
                assert fate.end - fate.arrival >= (answer if fate.first is not None else min(first, answer))
        if {"answered", "aborted"} == {fate.how for fate in outcome.fates.values()}:
            reached()

    check()


def test_instances_are_paid_for_while_they_are_not_asleep() -> None:
    @reaches(0.3, examples=100, drawn=DRAWN)
    def check(reached: Reached, drawn: dict[str, Any]) -> None:
        always = {"scales": True, "engines": 3, "gate": "none", "target": 1, "loop": "open", "answer": None}
        outcome, _ = traffic({**drawn, **always}, 512, "orca", {"max_batch": 2})
        scaling = outcome.cluster.scaling
        assert scaling is not None
        end = max(fate.end or 0 for fate in outcome.fates.values())
        awake: dict[int, int | None] = {0: 0, 1: None, 2: None}
        paid = [0, 0, 0]
        spans: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
        for event in scaling.events:
            since = awake[event.engine]
            if event.state == "asleep":
                assert since is not None
                paid[event.engine] += event.now - since
                spans[event.engine].append((since, event.now))
                awake[event.engine] = None
            elif since is None:
                awake[event.engine] = event.now
        for number, since in awake.items():
            if since is not None:
                paid[number] += max(0, end - since)
                spans[number].append((since, max(end, since)))
        assert scaling.paid_ns(end) == [min(one, end) for one in paid]
        for fate in outcome.fates.values():
            if fate.how == "answered":
                assert any(since <= (fate.first or 0) and (fate.end or 0) <= to for since, to in spans[fate.engine])
        if scaling.events:
            reached()

    check()
