"""Orca's rules: first come first served, the longest prefix that fits, eviction of the last added, reload."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.orca import OrcaScheduler
from tests.orchestrator.serving import BLOCK_BYTES, Run, scheduler
from tests.orchestrator.steps import add, ended, ids, step

ROWS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 30_000)), min_size=1, max_size=12).map(
    lambda rows: sorted(rows, key=lambda row: row[2])
)


def test_an_order_of_those_that_wait() -> None:
    """The shortest prompt first, of equals the first to come; who has started is not overtaken."""
    kv = scheduler("orca", 100)._ledger  # type: ignore[attr-defined]
    policy = OrcaScheduler(kv, max_batch=1, order=lambda request: request.prompt_tokens)
    add(policy, [(9, 1), (4, 1), (9, 1), (4, 2), (6, 1)])
    assert [ids(step(policy)) for _ in range(6)] == [[1], [3], [3], [4], [0], [2]]
    policy = OrcaScheduler(kv, max_batch=1)
    add(policy, [(9, 1), (4, 1), (6, 1)])
    assert [ids(step(policy)) for _ in range(3)] == [[0], [1], [2]]


def test_prompts_and_decodes_share_an_iteration() -> None:
    policy = scheduler("orca", 100)
    add(policy, [(7, 3)])
    assert step(policy).new_tokens.tolist() == [7]
    policy.add(Admission(Request(1, 0, 5, 2)), 0)
    batch = step(policy)
    assert (ids(batch), batch.new_tokens.tolist(), batch.context_tokens.tolist()) == ([0, 1], [1, 5], [7, 0])
    assert [request.id for request, hit in batch.admitted if hit == 0] == [1]


def test_the_prefix_ends_at_the_first_request_that_does_not_fit() -> None:
    policy = scheduler("orca", 4)  # 4 blocks of 4 tokens
    add(policy, [(4, 1), (16, 1), (4, 1)])
    assert ids(step(policy)) == [0], "the third would fit, but nobody overtakes the second"
    assert ids(step(policy)) == [1]


def test_max_batch_limits_an_iteration() -> None:
    policy = scheduler("orca", 100, max_batch=2)
    add(policy, [(4, 2), (4, 1), (4, 1)])
    assert ids(step(policy)) == [0, 1]
    assert ids(step(policy)) == [0, 2]


def test_eviction_takes_the_last_added_and_reloads_it_when_room_returns() -> None:
    """Worked out by hand: 4 blocks of 4 tokens; request 0 is 7 + 4 tokens, requests 1 and 2 are 4 + 3.

    step  tokens after   blocks  what happens
    0     7, 4, 4        2 1 1   prompts, memory full
    1     8              2 1 1   0 fits into its second block; 1 needs a block, there is none: the prefix is [0]
    2     9, 5           3 1     0 needs a third block: 2 (added last) is evicted, 1 block; nothing is left for 1
    3     10             3 1     0 alone (its 4th token): done, 3 blocks free
    4     5, 5           2 2     1 goes on; 2 is reloaded, 1 block, and takes another
    5     6, 6           2 2     1 and 2 done
    """
    policy = scheduler("orca", 4)
    add(policy, [(7, 4), (4, 3), (4, 3)])
    batches = [step(policy) for _ in range(6)]
    assert [ids(batch) for batch in batches] == [[0, 1, 2], [0], [0], [0], [1, 2], [1, 2]]
    assert [[t.request_id for t in batch.kv_evictions] for batch in batches] == [[], [], [2], [], [], []]
    assert [[t.request_id for t in batch.kv_loads] for batch in batches] == [[], [], [], [], [2], []]
    (evicted,), (reloaded,) = batches[2].kv_evictions, batches[4].kv_loads
    assert evicted == reloaded
    assert (evicted.blocks, evicted.tokens, evicted.bytes, evicted.tier) == (1, 4, BLOCK_BYTES, "host")
    assert [request.id for request in batches[2].preempted] == [2]
    assert [request.id for request, _ in batches[4].admitted] == [2]
    assert not policy.has_unfinished()
    assert policy.usage().free_blocks == 4


def test_a_batch_in_flight_is_not_evicted() -> None:
    policy = scheduler("orca", 2, pipeline=2, max_batch=1)
    add(policy, [(4, 3), (4, 3)])
    first, second = policy.schedule(0), policy.schedule(0)
    assert first is not None and second is not None
    policy.update(first, set(), 1)
    assert policy.schedule(1) is None, "0 needs a block, and only 1, in flight, has one"
    policy.update(second, set(), 2)
    batch = policy.schedule(2)
    assert batch is not None and ids(batch) == [0] and [t.request_id for t in batch.kv_evictions] == [1]


@pytest.mark.parametrize(
    ("manager", "expected"),
    [("vllm", [3, 4, 4, 4, 4]), ("oracle", [5] * 5), ("pow2", [5] * 5), ("max", [8] * 5)],
)
def test_how_much_memory_a_request_holds(manager: str, expected: list[int]) -> None:
    """Prompt 12, output 5, blocks of 4: 3 blocks and growth; 17 tokens; 12 + 8 tokens; 32 tokens."""
    policy = scheduler("orca", 40, kv_manage=manager, max_model_len=32)
    add(policy, [(12, 5)])
    held = []
    for _ in range(5):
        batch = policy.schedule(0)
        assert batch is not None
        held.append(40 - policy.usage().free_blocks)
        policy.update(batch, ended(batch), 0)
    assert held == expected
    assert policy.usage().free_blocks == 40


def test_reservations_admit_fewer_and_never_evict() -> None:
    rows = [(8, 30, 0)] * 6
    paged, oracle = (Run(scheduler("orca", 24, kv_manage=manager), rows) for manager in ("vllm", "oracle"))
    assert len(paged.batches[0].batch.requests) == 6
    assert len(oracle.batches[0].batch.requests) == 2
    assert paged.metrics.totals.evictions > 0
    assert oracle.metrics.totals.evictions == 0


@pytest.mark.parametrize("options", [{}, {"pipeline": 3}, {"max_batch": 2}, {"gen": True}])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=ROWS, blocks=st.integers(18, 50))
def test_what_is_conserved(options: dict[str, Any], rows: list[tuple[int, int, int]], blocks: int) -> None:
    policy = scheduler("orca", blocks, **options)
    run = Run(policy, rows, stages=options.get("pipeline", 1), computed=options.get("gen", False))
    assert policy.usage().free_blocks == blocks, "memory is all free at the end"
    totals = run.metrics.totals
    assert totals.evicted_bytes == totals.reloaded_bytes
    assert totals.preemptions == totals.evictions
    skip = bool(options.get("gen"))
    computed: dict[int, int] = {}
    for done in run.batches:
        batch = done.batch
        for request, new, context in zip(batch.requests, batch.new_tokens, batch.context_tokens, strict=True):
            expected = computed.get(request.id, request.prompt_tokens if skip else 0)
            assert context == expected, "every token is computed once, in order"
            computed[request.id] = context + new + batch.steps - 1
    assert computed == {index: prompt + output - (0 if skip else 1) for index, (prompt, output, _) in enumerate(rows)}
    assert totals.generated_tokens == sum(output for _, output, _ in rows)
    assert totals.prompt_tokens == (0 if skip else sum(prompt for prompt, _, _ in rows))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=ROWS, blocks=st.integers(18, 50))
def test_first_come_is_first_served(rows: list[tuple[int, int, int]], blocks: int) -> None:
    scheduled = [row["scheduled"] for _, row in sorted(Run(scheduler("orca", blocks), rows).by_id().items())]
    assert scheduled == sorted(scheduled)


def test_a_request_that_can_never_fit_is_named_with_both_sizes() -> None:
    reason = scheduler("orca", 4).unfit(Request(0, 0, 10, 8), 17)
    assert reason == "the request needs 5 KV blocks (0.00 GB), the memory left beside the weights holds 4 (0.00 GB)"
    assert scheduler("orca", 5).unfit(Request(0, 0, 10, 8), 17) is None
    too_long = scheduler("orca", 100, max_model_len=16).unfit(Request(0, 0, 10, 8), 17)
    assert too_long == "the request grows to 17 tokens, the limit (max_model_len) is 16"
