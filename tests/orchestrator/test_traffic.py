"""Traffic that depends on what became of earlier requests, and the rules of the front: tables made by hand.

Batches of `tenth` take 10 ns: a request of n output tokens that comes at t to an engine without work ends at t + 10 n.
"""

from __future__ import annotations

import pytest

from orchestrator.cluster.admission.queue import QueueGate
from orchestrator.cluster.admission.rate import RateGate, RateGateSettings
from orchestrator.cluster.admission.tokens import TokenGate
from orchestrator.cluster.autoscaling import PoolState, ScalingSettings
from orchestrator.cluster.autoscaling.queue import QueueScaling
from orchestrator.cluster.autoscaling.utilization import UtilizationRule
from orchestrator.cluster.departures import Patience
from orchestrator.cluster.front import FrontRules
from orchestrator.cluster.retrieval import Retrieval
from orchestrator.engine.engine import Engine
from orchestrator.requests.request import Request
from tests.orchestrator.fronts import Outcome, run, source, table, tenth
from tests.orchestrator.serving import StageTimes, scheduler


def times(outcome: Outcome) -> dict[int, tuple[int, int | None, str]]:
    return {number: (fate.arrival, fate.end, fate.how) for number, fate in sorted(outcome.fates.items())}


# -- sessions


def test_a_turn_comes_a_pause_after_the_one_before_it_has_been_answered() -> None:
    requests = table([(4, 2, 5), (4, 1, 5), (4, 3, 5), (4, 1, 7)], [(1, 100), (1, 0), (1, 9), (0, 0)])
    came, turns = source(requests)
    outcome = run([tenth()], came)
    # 0 is decided at 5 and its second token at 15, when request 3 joins; both end at 25.
    assert times(outcome) == {
        0: (5, 25, "answered"),
        1: (125, 135, "answered"),
        2: (135, 165, "answered"),
        3: (7, 25, "answered"),
    }
    assert turns is not None and turns.unreleased == 0


def test_a_turn_without_a_pause_is_in_the_next_decision() -> None:
    """It arrives as the batch ends, before the next one is decided, which has another request in it."""
    requests = table([(4, 1, 0), (4, 2, 0), (4, 5, 0)], [(1, 0), (1, 0), (0, 0)])
    outcome = run([tenth()], source(requests)[0])
    assert times(outcome) == {0: (0, 10, "answered"), 1: (10, 30, "answered"), 2: (0, 50, "answered")}


@pytest.mark.parametrize("rejected", [True, False])
def test_a_session_ends_with_a_turn_that_has_no_answer(rejected: bool) -> None:
    rows = [(4, 1, 0), (30, 9, 0), (4, 1, 0), (4, 1, 0), (4, 1, 3)]
    requests = table(rows, [(1, 1), (1, 1), (1, 1), (1, 1), (0, 0)])
    came, turns = source(requests)
    if rejected:
        engine = Engine(scheduler("vllm", 40, max_model_len=20, async_scheduling=False), StageTimes([10]))
        outcome = run([engine], came)
    else:
        outcome = run([tenth()], came, FrontRules(patience=Patience(answer_ns=70)))
    assert outcome.of("answered") == [0, 4]
    assert outcome.of("rejected" if rejected else "aborted") == [1]
    assert turns is not None and turns.unreleased == 2


# -- clients and places


def test_two_clients_send_in_turn_and_think() -> None:
    """Arrival times do not count; the one who has its answer first takes the next request."""
    requests = table([(4, 1, 0), (4, 3, 900), (4, 1, 901), (4, 1, 902), (4, 2, 903)])
    outcome = run([tenth()], source(requests, clients=2, think=5)[0])
    # 0 ends at 10, so 2 comes at 15, is seen at 20 and ends at 30 as 1 does; 3 and 4 come at 35.
    assert times(outcome) == {
        0: (0, 10, "answered"),
        1: (0, 30, "answered"),
        2: (15, 30, "answered"),
        3: (35, 45, "answered"),
        4: (35, 55, "answered"),
    }


def test_a_client_takes_a_session_to_its_end_before_it_thinks() -> None:
    requests = table([(4, 1, 0), (4, 1, 0), (4, 1, 0), (4, 1, 0)], [(1, 3), (1, 3), (0, 0), (0, 0)])
    outcome = run([tenth()], source(requests, clients=1, think=50)[0])
    assert [fate.arrival for fate in outcome.fates.values()] == [0, 13, 23 + 50, 83 + 50]


def test_places_are_filled_in_order_and_not_before_the_arrival() -> None:
    requests = table([(4, 2, 0), (4, 4, 1), (4, 1, 2), (4, 1, 3), (4, 1, 300)])
    outcome = run([tenth()], source(requests, places=2)[0])
    # 0 and 1 have the places; 0 ends at 20, when 2 comes; it ends at 30, when 3 does; 4 waits for nobody.
    assert times(outcome) == {
        0: (0, 20, "answered"),
        1: (1, 50, "answered"),
        2: (20, 30, "answered"),
        3: (30, 40, "answered"),
        4: (300, 310, "answered"),
    }


def test_a_place_is_free_when_the_client_goes_not_when_the_engine_forgets() -> None:
    requests = table([(4, 3, 0), (4, 1, 1)])
    outcome = run([tenth()], source(requests, places=1)[0], FrontRules(patience=Patience(answer_ns=12)))
    assert times(outcome) == {0: (0, 20, "aborted"), 1: (12, 30, "aborted")}


# -- retrieval


def test_retrieval_without_a_limit_is_a_latency_and_ttft_counts_it() -> None:
    retrieval = Retrieval(30)
    requests = table([(4, 1, 0), (4, 2, 1)])
    outcome = run([tenth()], source(requests)[0], FrontRules(retrieval=retrieval))
    assert times(outcome) == {0: (0, 40, "answered"), 1: (1, 60, "answered")}
    assert list(retrieval.spent_ns) == [30, 30]


def test_retrieval_servers_have_a_queue() -> None:
    """Two servers, 30 ns each: the third waits until 30, the fourth until 31."""
    retrieval = Retrieval(30, 2)
    requests = table([(4, 1, 0), (4, 1, 1), (4, 1, 2), (4, 1, 2), (4, 1, 200)])
    outcome = run([tenth()], source(requests)[0], FrontRules(retrieval=retrieval))
    assert list(retrieval.spent_ns) == [30, 30, 58, 59, 30]
    assert outcome.ends() == {0: 40, 1: 50, 2: 70, 3: 80, 4: 240}


def test_a_client_may_go_while_it_waits_for_a_retrieval() -> None:
    """1 leaves the queue, so that 2 has its place; 0 leaves its server at work."""
    retrieval = Retrieval(30, 1)
    requests = table([(4, 1, 0), (4, 1, 1), (4, 1, 12)])
    outcome = run([tenth()], source(requests)[0], FrontRules(retrieval=retrieval, patience=Patience(first_token_ns=29)))
    assert times(outcome) == {0: (0, 29, "aborted"), 1: (1, 30, "aborted"), 2: (12, 41, "aborted")}
    assert list(retrieval.spent_ns) == []
    patient = FrontRules(retrieval=Retrieval(30, 1), patience=Patience(first_token_ns=70))
    outcome = run([tenth()], source(requests)[0], patient)
    assert outcome.ends() == {0: 40, 1: 70} and outcome.of("aborted") == [2]


# -- time-outs


@pytest.mark.parametrize(("wait", "ends"), [(20, "aborted"), (21, "answered")])
def test_a_client_goes_just_before_its_answer_or_has_it(wait: int, ends: str) -> None:
    outcome = run([tenth()], source(table([(4, 2, 0)]))[0], FrontRules(patience=Patience(answer_ns=wait)))
    assert times(outcome) == {0: (0, 20, ends)}


@pytest.mark.parametrize(("wait", "ends"), [(10, (10, "aborted")), (11, (30, "answered"))])
def test_the_first_token_calls_its_time_out_off(wait: int, ends: tuple[int, str]) -> None:
    outcome = run([tenth()], source(table([(4, 3, 0)]))[0], FrontRules(patience=Patience(first_token_ns=wait)))
    assert times(outcome) == {0: (0, *ends)}


def test_both_time_outs_and_a_request_that_is_given_up_leave_room() -> None:
    """One at a time: 1 has no first token at 36; 0 has, and goes at 50 for all that, so 2 has its turn in time."""
    engine = tenth(max_batch=1)
    requests = table([(4, 9, 0), (4, 1, 1), (4, 1, 26)])
    outcome = run([engine], source(requests)[0], FrontRules(patience=Patience(answer_ns=50, first_token_ns=35)))
    assert times(outcome) == {0: (0, 50, "aborted"), 1: (1, 40, "aborted"), 2: (26, 60, "answered")}


# -- admission control


def test_the_queue_is_full_at_the_limit() -> None:
    """One runs; at 1 one waits, at 2 there are two: the next is rejected, until the queue is shorter again."""
    rules = FrontRules(gate=QueueGate(2))
    requests = table([(4, 3, 0), (4, 1, 1), (4, 1, 2), (4, 1, 3), (4, 1, 31)])
    outcome = run([tenth(max_batch=1)], source(requests)[0], rules)
    assert outcome.of("rejected") == [3]
    assert outcome.reasons == {3: "2 requests waited already (max_queued_requests 2)"}
    assert outcome.fates[3].engine == -1 and outcome.ends()[4] == 60


def test_the_queue_is_that_of_all_engines() -> None:
    rules = FrontRules(gate=QueueGate(2))
    requests = table([(4, 9, 0), (4, 9, 0), (4, 1, 1), (4, 1, 1), (4, 1, 1)])
    outcome = run([tenth(0, max_batch=1), tenth(1, max_batch=1)], source(requests)[0], rules)
    assert outcome.of("rejected") == [4]


def test_tokens_under_way_count_with_prompt_and_allowed_answer() -> None:
    rules = FrontRules(gate=TokenGate(12))
    requests = table([(4, 2, 0), (4, 2, 0), (1, 1, 0), (30, 3, 20), (1, 1, 21), (4, 2, 50)])
    outcome = run([tenth()], source(requests)[0], rules)
    assert outcome.of("rejected") == [2, 4], "6 + 6 are 12; one that comes to an empty pool is taken"
    assert outcome.reasons[2] == "12 tokens were under way, 2 more were wanted (max_backlog_tokens 12)"


def test_a_request_that_is_given_up_gives_its_tokens_back() -> None:
    rules = FrontRules(gate=TokenGate(12), patience=Patience(answer_ns=15))
    requests = table([(4, 8, 0), (4, 2, 19), (4, 2, 20)])
    outcome = run([tenth()], source(requests)[0], rules)
    assert outcome.of("rejected") == [1] and outcome.fates[2].how != "rejected"


def test_a_token_bucket() -> None:
    """A burst of two, then one in 100 ns."""
    gate = RateGate(100, 2)
    moments = [0, 0, 0, 99, 100, 101, 300, 300, 300, 399, 400]
    let_in = [gate.refuses(Request(n, t, 1, 1), t, None) is None for n, t in enumerate(moments)]  # type: ignore[arg-type]
    assert let_in == [True, True, False, False, True, False, True, True, False, False, True]
    slow = RateGateSettings(rate_limit=0.5).gate()
    seconds = [0, 1_999_999_999, 2_000_000_000]
    assert [slow.refuses(Request(n, t, 1, 1), t, None) is None for n, t in enumerate(seconds)] == [True, False, True]  # type: ignore[arg-type]


def test_a_client_whose_request_was_rejected_sends_its_next() -> None:
    requests = table([(4, 9, 0), (4, 1, 0), (4, 1, 0), (4, 1, 0)])
    outcome = run([tenth(max_batch=1)], source(requests, clients=3, think=7)[0], FrontRules(gate=QueueGate(1)))
    assert outcome.of("rejected") == [1, 2], "0 has not been seen as they come"
    assert outcome.fates[3].arrival == 7 and outcome.fates[3].how == "answered"


# -- instances that come and go


def scaling(**values: float) -> ScalingSettings:
    """Return the rule by requests, one an instance; times in ns."""
    return QueueScaling(**{"target_requests": 1, **values})  # type: ignore[arg-type]


def states(outcome: Outcome) -> list[tuple[int, int, str]]:
    assert outcome.cluster.scaling is not None
    return [(event.now, event.engine, event.state) for event in outcome.cluster.scaling.events]


def test_an_instance_starts_takes_requests_after_its_delay_and_drains() -> None:
    """Looks are 1000 ns apart. At 1000 two requests are there; at 1400 the second instance is ready."""
    rules = FrontRules(scaling=scaling(scale_interval=1e-6, startup_delay=4e-7))
    rows = [(4, 110, 0), (4, 140, 1), (4, 1, 1399), (4, 75, 1400), (4, 1, 1500), (4, 1, 2600)]
    outcome = run([tenth(0), tenth(1), tenth(2)], source(table(rows))[0], rules)
    served = {number: fate.engine for number, fate in outcome.fates.items()}
    assert states(outcome)[:3] == [(1000, 1, "starting"), (1400, 1, "active"), (2000, 1, "draining")]
    assert served[0] == served[1] == served[2] == 0
    assert served[3] != served[4], "both take requests from 1400 on"
    assert served[5] == 0
    last = max(fate.end or 0 for fate in outcome.fates.values() if fate.engine == 1)
    assert states(outcome)[3] == (last, 1, "asleep") and last > 2000
    assert outcome.cluster.scaling is not None
    assert outcome.cluster.scaling.paid_ns(2610) == [2610, last - 1000, 0]


def test_what_is_starting_is_given_up_first_and_a_cool_down_keeps_things_as_they_are() -> None:
    rows = [(4, 150, 0), (4, 150, 0), (4, 150, 0), (4, 300, 1500)]
    given_up = FrontRules(scaling=scaling(scale_interval=1e-6, startup_delay=5e-6))
    outcome = run([tenth(0), tenth(1), tenth(2)], source(table(rows))[0], given_up)
    assert states(outcome) == [(1000, 1, "starting"), (1000, 2, "starting"), (2000, 2, "asleep"), (2000, 1, "asleep")]
    cool = FrontRules(scaling=scaling(scale_interval=1e-6, startup_delay=0, scale_cooldown=3e-6))
    outcome = run([tenth(0), tenth(1), tenth(2)], source(table(rows))[0], cool)
    assert [now for now, *_ in states(outcome)] == [1000, 1000, 4000, 4000, 4000, 4500], "the last request was at 1"


def test_bounds_are_kept() -> None:
    rules = FrontRules(scaling=scaling(scale_interval=1e-6, startup_delay=0, min_instances=2, max_instances=3))
    rows = [(4, 300, n) for n in range(9)]
    outcome = run([tenth(n) for n in range(5)], source(table(rows))[0], rules)
    assert {fate.engine for fate in outcome.fates.values()} == {0, 1}
    assert states(outcome) == [(1000, 2, "active")], "nine are wanted until nothing is left to look at"


def test_looks_end_with_the_last_request_and_not_before() -> None:
    """A pause of a session is no end."""
    rules = FrontRules(scaling=scaling(scale_interval=1e-6, startup_delay=0))
    requests = table([(4, 1, 0), (4, 250, 0), (4, 250, 5020)], [(1, 5000), (1, 0), (0, 0)])
    outcome = run([tenth(0), tenth(1)], source(requests)[0], rules)
    assert states(outcome)[0] == (6000, 1, "active")
    assert outcome.cluster.now <= max(fate.end or 0 for fate in outcome.fates.values()) + 1000


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        (PoolState(4, 0, 9, 9, 0.8), 4),
        (PoolState(4, 1, 9, 9, 0.87), 5),
        (PoolState(4, 0, 9, 9, 0.89), 5),
        (PoolState(4, 0, 0, 0, 0.0), 0),
        (PoolState(4, 0, 0, 0, 0.41), 3),
        (PoolState(2, 0, 0, 0, 0.71), 2),
    ],
)
def test_instances_by_the_use_of_kv_memory(state: PoolState, wanted: int) -> None:
    assert UtilizationRule(0.8).wanted(state) == wanted
