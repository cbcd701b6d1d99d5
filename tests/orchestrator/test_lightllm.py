"""LightLLM's scheduling: the predicted peak, who is admitted when, by tables of steps; memory never runs out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.lightllm import predicted_peak
from tests.orchestrator.serving import Run, StageTimes, requests, scheduler, simulate
from tests.orchestrator.test_continuous import Step, step_of

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 30)), min_size=1, max_size=12)


def steps(rows: list[tuple[int, int, int]] | list[Request], tokens: int, **options: Any) -> list[Step]:
    """Return every step of a run on memory for so many tokens, in which each step takes 10 ns."""
    run = Run(scheduler("lightllm", tokens, 1, **options), rows, pricing=StageTimes([10]), max_steps=1)
    return [step_of(done.batch) for done in run.batches]


def test_the_peak_of_three() -> None:
    assert predicted_peak([4, 9, 6], [0, 5, 3]) == 21


@settings(max_examples=200, deadline=None, derandomize=True)
@given(lengths=LENGTHS, spare=st.integers(0, 3))
def test_the_peak_is_the_fullest_moment(lengths: list[tuple[int, int]], spare: int) -> None:
    known, left = [row[0] for row in lengths], [row[1] for row in lengths]
    held = [sum(k + spare + t for k, more in lengths if more >= t) for t in range(max(left) + 1)]
    assert predicted_peak(known, left, spare) == max(held)


def test_prompts_have_steps_of_their_own_after_so_many_decodes() -> None:
    """Worked out by hand: 20 tokens of memory, 12 new ones a step, two decodes between prompts.

    step  decodes before  what
    0     (nothing runs)  0: 6 known, 2 left, peak 8; 1: 5 and 1, peak 13; 2: 15 new tokens are above 12
    1     0               0 and 1
    2     1               0 and 1, which is done (3 tokens)
    3     2               2: 7 and 3, beside 0 with 8 and 0: peak 15
    4     0               0, which is done (4 tokens), and 2
    5..7                  2, until it has 5 tokens
    """
    assert steps([(5, 4, 0), (4, 3, 0), (6, 5, 0)], 20, batch_max_tokens=12, max_waiting_iters=2) == [
        [(0, 5, 0, 1), (1, 4, 0, 1)],
        [(0, 1, 5, 1), (1, 1, 4, 1)],
        [(0, 1, 6, 1), (1, 1, 5, 1)],
        [(2, 6, 0, 1)],
        [(0, 1, 7, 1), (2, 1, 6, 1)],
        [(2, 1, 7, 1)],
        [(2, 1, 8, 1)],
        [(2, 1, 9, 1)],
    ]


LONG, SHORT = (9, 10, 0), (3, 9, 0)


def test_a_request_is_admitted_as_soon_as_the_peak_is_below_the_memory_though_nobody_is_done() -> None:
    """24 tokens. After s decodes the first has 10 + s known and 8 - s left, the second would have 4 and 7.

    s      0   1   2   5   6   7
    peak   28  29  28  25  24  23     the first's end, s = 1 and later: 2 (8 - s) + (10 + s) + 4
    """
    found = steps([LONG, SHORT], 24, max_waiting_iters=0)
    assert [[row[:2] for row in step] for step in found[:11]] == [
        [(0, 9)], *[[(0, 1)]] * 7, [(1, 3)], *[[(0, 1), (1, 1)]] * 2
    ]  # fmt: skip
    run = Run(scheduler("lightllm", 24, 1, max_waiting_iters=0), [LONG, SHORT])
    assert run.metrics.peak_kv_blocks == 23, "as predicted"
    assert len(steps([LONG, SHORT], 25, max_waiting_iters=0)) == len(found) - 1, "a step earlier with a token more"


def test_the_decodes_between_hold_up_an_admission() -> None:
    found = steps([LONG, SHORT], 24, max_waiting_iters=9)
    assert [[row[:2] for row in step] for step in found[:11]] == [[(0, 9)], *[[(0, 1)]] * 9, [(1, 3)]]


def test_what_the_client_allowed_is_predicted_not_what_comes() -> None:
    """The first allows 10 tokens and ends after 3; until then the second waits for the memory it might need."""
    rows = [Request(0, 0, 9, 3, max_tokens=10), Request(1, 0, 3, 1)]
    assert [[row[:2] for row in step] for step in steps(rows, 19, max_waiting_iters=0)] == [
        [(0, 9), (1, 3)], [(0, 1)], [(0, 1)]
    ]  # fmt: skip
    rows[1].max_tokens = 9
    assert [[row[:2] for row in step] for step in steps(rows, 19, max_waiting_iters=0)] == [
        [(0, 9)], [(0, 1)], [(0, 1)], [(1, 3)]
    ]  # fmt: skip


def test_so_many_run_at_once() -> None:
    found = steps([(2, 3, 0)] * 3, 100, running_max_req_size=2)
    assert [[row[0] for row in step] for step in found] == [[0, 1], [0, 1], [0, 1], [2], [2], [2]]


def test_prompts_computed_elsewhere_go_on_as_decodes_once_admitted() -> None:
    policy = scheduler("lightllm", 100, 1)
    policy.add(Admission(Request(0, 0, 8, 5), 8), 0)
    policy.add(Admission(Request(1, 0, 6, 5), 2), 0)
    found = []
    for _ in range(2):
        batch = policy.schedule(0)
        assert batch is not None
        found.append(step_of(batch))
        policy.update(batch, set(), 0)
    assert found == [[(0, 1, 8, 1), (1, 4, 2, 1)], [(0, 1, 9, 1), (1, 1, 6, 1)]]
    assert policy.usage().free_blocks == 100 - 10 - 7


def test_who_goes_leaves_nothing_behind() -> None:
    policy = scheduler("lightllm", 100, 1)
    first, second, third = requests([(8, 5, 0), (6, 5, 0), (4, 5, 0)])
    for request in (first, second):
        policy.add(Admission(request), 0)
    flying = policy.schedule(0)
    assert flying is not None
    policy.add(Admission(third), 0)
    assert [policy.abort(request, 0) for request in (first, third)] == [False, False]
    assert policy.usage().free_blocks == 86, "in flight"
    assert policy.update(flying, set(), 0).emitted == [second]
    assert (policy.usage().free_blocks, policy.usage().running, policy.usage().waiting) == (94, 1, 0)
    assert policy.abort(second, 0) is False
    assert policy.usage().free_blocks == 100 and not policy.has_unfinished()


def test_what_can_never_run() -> None:
    policy = scheduler("lightllm", 30, 1, batch_max_tokens=20)
    assert policy.rejects(Request(0, 0, 20, 1)) is None
    assert policy.rejects(Request(0, 0, 21, 1)) == "its prompt of 21 tokens is above batch_max_tokens (20)"
    assert policy.unfit(Request(0, 0, 20, 10), 29) is None
    said = "it is predicted to hold 30 tokens at its peak, which is not below the 30 that the KV cache holds"
    assert policy.unfit(Request(0, 0, 20, 11), 30) == said
    assert policy.unfit(Request(0, 0, 20, 2, max_tokens=11), 21) == said, "by what its client allowed"
    assert scheduler("lightllm", 100, 1, max_model_len=24).unfit(Request(0, 0, 20, 10), 29) is not None


def test_a_pipeline_has_one_batch_at_a_time() -> None:
    run = Run(scheduler("lightllm", 100, 1, pipeline=2), [(4, 3, 0), (4, 3, 0)], pricing=StageTimes([10, 10]))
    assert [row["end"] for row in run.rows()] == [60, 60]


@pytest.mark.parametrize("block_size", [1, 3, 16])
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 30_000), st.integers(0, 9)),
        min_size=1,
        max_size=12,
    ),
    tokens=st.integers(96, 240),
    waits=st.integers(0, 4),
)
def test_every_token_is_computed_once_and_memory_suffices(
    block_size: int, rows: list[tuple[int, int, int, int]], tokens: int, waits: int
) -> None:
    rows.sort(key=lambda row: row[2])
    made = [Request(place, row[2], row[0], row[1], max_tokens=row[1] + row[3]) for place, row in enumerate(rows)]
    blocks = -(-tokens // block_size)
    policy = scheduler("lightllm", blocks, block_size, max_waiting_iters=waits, batch_max_tokens=40)
    assert all(policy.unfit(one, one.prompt_tokens + one.max_tokens - 1) is None for one in made)
    run = Run(policy, made, max_steps=1)
    computed = dict.fromkeys(range(len(made)), 0)
    for done in run.batches:
        for number, new, context, samples in step_of(done.batch):
            assert computed[number] == context and samples == 1
            computed[number] += new
        prompts = done.batch.prompt_work()[1]
        assert prompts == int(done.batch.new_tokens.sum()) <= 40 or not prompts
    assert computed == {one.id: one.prompt_tokens + one.output_tokens - 1 for one in made}
    assert policy.usage().free_blocks == blocks and run.engine.idle()


def test_a_prompt_above_a_step_is_turned_away() -> None:
    from orchestrator.engine.engine import Engine
    from orchestrator.engine.records import Rejected

    engine = Engine(scheduler("lightllm", 100, 1, batch_max_tokens=10), StageTimes([10]))
    told = list(simulate([engine], requests([(11, 2, 0), (10, 2, 0)])))
    assert [one.request.id for one in told if isinstance(one, Rejected)] == [0]
    assert engine.idle()
