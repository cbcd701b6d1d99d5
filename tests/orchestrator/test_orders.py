"""The orders of the waiting queue, in the policies that have one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import UserError
from orchestrator.requests.request import Request
from orchestrator.schedulers.orders import ORDERS
from orchestrator.settings.specification import RunSpec
from tests.orchestrator.serving import Run, scheduler

#          prompt, output, priority
REQUESTS = [(9, 2, 1), (4, 9, 0), (20, 1, 2), (4, 3, 1), (6, 5, 0)]
TAKEN = {
    "fcfs": [0, 1, 2, 3, 4],
    "priority": [1, 4, 0, 3, 2],
    "sjf": [3, 0, 4, 1, 2],  # 11, 13, 21, 7, 11
    "ljf": [2, 1, 0, 4, 3],
    "shortest-prompt": [1, 3, 4, 0, 2],
    "longest-prompt": [2, 0, 4, 1, 3],
    "shortest-output": [2, 0, 3, 4, 1],
    "longest-output": [1, 4, 3, 0, 2],
}
QUEUEING: list[tuple[str, dict[str, Any]]] = [
    ("orca", {}),
    ("orca", {"pipeline": 2}),
    ("none", {}),
    ("static", {}),
    ("continuous", {}),
    ("mixed-continuous", {}),
    ("chunked-mixed-continuous", {"prefill_chunk": 8}),
    ("lightllm", {}),
]
SEATS = {"lightllm": "running_max_req_size"}
"""What limits the requests of a batch, where it is not `max_batch`."""


def waiting(arrivals: list[int] | None = None) -> list[Request]:
    times = arrivals or [0] * len(REQUESTS)
    return [
        Request(index, times[index], prompt, output, priority=priority)
        for index, (prompt, output, priority) in enumerate(REQUESTS)
    ]


def one_seat(policy: str, seats: int = 1) -> dict[str, int]:
    return {SEATS.get(policy, "max_batch"): seats} if seats else {}


def taken(run: Run) -> list[int]:
    """Return the requests in the order in which they were scheduled."""
    rows = run.by_id()
    return sorted(rows, key=lambda number: (rows[number]["scheduled"], number))


def test_every_order_is_tested() -> None:
    assert set(TAKEN) == set(ORDERS)


@pytest.mark.parametrize(("policy", "options"), QUEUEING)
@pytest.mark.parametrize("order", TAKEN)
def test_who_is_taken_first(policy: str, options: dict[str, Any], order: str) -> None:
    run = Run(
        scheduler(policy, 100, queue_order=order, **one_seat(policy), **options),
        waiting(),
        stages=options.get("pipeline", 1),
    )
    assert taken(run) == TAKEN[order]


@pytest.mark.parametrize(("policy", "options"), QUEUEING)
def test_who_has_started_is_not_overtaken(policy: str, options: dict[str, Any]) -> None:
    """Request 0 runs when the others come; they are taken by their prompts."""
    rows = waiting([0, 1, 1, 1, 1])
    options = {**options, **one_seat(policy), "pipeline": 1}
    run = Run(scheduler(policy, 100, queue_order="shortest-prompt", **options), rows)
    assert taken(run) == [0, 1, 3, 4, 2]


def test_a_head_that_does_not_fit_is_not_overtaken() -> None:
    """4 blocks of 4 tokens: the longest needs 5 tokens beside the 12 that are taken, so the short one waits, too."""
    rows = [Request(0, 0, 11, 2), Request(1, 1, 5, 1), Request(2, 1, 1, 1)]
    run = Run(scheduler("orca", 4, queue_order="longest-prompt"), rows)
    assert [[request.id for request in done.batch.requests] for done in run.batches] == [[0], [0], [1, 2]]


def test_a_static_batch_is_due_after_the_first_arrival_whatever_the_order() -> None:
    rows = [Request(0, 100, 9, 2), Request(1, 400, 4, 2), Request(2, 601, 1, 1)]
    run = Run(scheduler("none", 100, batch_delay=500, queue_order="shortest-prompt"), rows)
    assert [row["scheduled"] for row in run.by_id().values()] == [600, 600, run.by_id()[0]["end"]]
    assert [request.id for request in run.batches[0].batch.requests] == [1, 0]


def test_an_order_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="fcfs"):
        RunSpec.of(model_name="gpt2", queue_order="random")


def test_vllm_has_its_own() -> None:
    with pytest.raises(UserError, match="not read by --scheduling vllm"):
        RunSpec.of(model_name="gpt2", scheduling="vllm", queue_order="priority")
    with pytest.raises(UserError, match="here give --queue_order"):
        RunSpec.of(model_name="gpt2", policy="priority")


@pytest.mark.parametrize("order", TAKEN)
@pytest.mark.parametrize(("policy", "options"), QUEUEING)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 20_000), st.integers(0, 3)),
        min_size=1,
        max_size=10,
    ),
    blocks=st.integers(19, 40),
    max_batch=st.integers(0, 3),
)
def test_every_order_serves_all(
    policy: str,
    options: dict[str, Any],
    order: str,
    rows: list[tuple[int, int, int, int]],
    blocks: int,
    max_batch: int,
) -> None:
    rows.sort(key=lambda row: row[2])
    made = [Request(place, row[2], row[0], row[1], priority=row[3]) for place, row in enumerate(rows)]
    served = scheduler(policy, blocks, queue_order=order, **one_seat(policy, max_batch), **options)
    run = Run(served, made, stages=options.get("pipeline", 1))
    assert run.engine.idle()
    assert sorted(run.by_id()) == list(range(len(rows)))
    assert served.usage().free_blocks == blocks
    assert run.metrics.totals.generated_tokens == sum(row[1] for row in rows)
