"""vLLM's v0 rules: prompts first, the watermark, the latest loses its place, by recomputation or by swapping.

Tables are worked out by hand, for blocks of 4 tokens. A row is ``request:new tokens@tokens in the cache``; ``-1``:
request 1 has lost its place; ``out 1x2``: 2 blocks of it went to host memory; behind the bar are the blocks free in the
step.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from foundation.errors import UserError
from orchestrator.engine.batch import Batch
from orchestrator.kv_memory.groups import FULL
from orchestrator.kv_memory.store import KVSpace
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.settings import Place, policies
from orchestrator.schedulers.virtual_engine import V0Limits
from orchestrator.schedulers.vllm_v0 import VllmV0Scheduler
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.conservation import check_conserved
from tests.orchestrator.serving import Run, scheduler
from tests.orchestrator.steps import add, ids, told
from tests.orchestrator.test_stretches import again, workloads

CHUNKS = {"enable_chunked_prefill": True, "max_num_batched_tokens": 6, "max_num_seqs": 4}


def v0(blocks: int, **options: Any) -> VllmV0Scheduler:
    policy = scheduler("vllm-v0", blocks, **options)
    assert isinstance(policy, VllmV0Scheduler)
    return policy


def test_prompts_go_first_and_the_latest_is_computed_anew() -> None:
    """5 blocks; request 0 is 7 + 5 tokens, 1 is 4 + 4, and 2, which comes during the first step, 4 + 1.

    step  rows                 blocks held     what happens
    0     prompts of 0 and 1   2 1             both fit
    1     prompt of 2          2 1 1           who decodes waits; 2 is done
    2     0 and 1 decode       2 2             1 takes a second block
    3     0                    3 -             0 takes the last one free; 1 finds none and nobody behind it: it goes
    4     1, 6 tokens          3 2             it comes first again, as a prompt with the output that it had; 0 waits
    5     0                    3 -             0 must find a block free, though it has room: 1, the latest, goes
    6     1, 7 tokens          3 2             its last token
    7     0                    3               its last token
    """
    policy = v0(5)
    add(policy, [(7, 5), (4, 4)])
    steps = [told(policy)]
    add(policy, [(4, 1)], first=2)
    steps += [told(policy) for _ in range(7)]
    assert steps == [
        "0:7@0 1:4@0 | 2",
        "2:4@0 | 1",
        "0:1@7 1:1@4 | 1",
        "0:1@8 -1 | 2",
        "1:6@0 | 0",
        "0:1@9 -1 | 2",
        "1:7@0 | 0",
        "0:1@10 | 2",
    ]
    assert not policy.has_unfinished() and policy.usage().free_blocks == 5


def test_who_is_swapped_out_comes_back_before_any_prompt() -> None:
    """The same with swapping, and request 3 of 4 + 1 tokens that comes in step 3.

    step  rows                 blocks held     what happens
    3     0                    3 -             1 goes to host memory, 2 blocks
    4     0 and 1              3 2             nobody is admitted while 1 is away; behind the decodes it comes back
    5     0                    3 -             0 finds no block free: 1 goes again; the last token of 0
    6     1                    2               back; its last token. 3 waits until nobody is away
    7     prompt of 3          1
    """
    policy = v0(5, preemption_mode="swap")
    add(policy, [(7, 5), (4, 4)])
    steps = [told(policy) for _ in range(2)]
    steps.append(told(policy))
    add(policy, [(4, 1)], first=3)
    steps += [told(policy) for _ in range(4)]
    assert steps == [
        "0:7@0 1:4@0 | 2",
        "0:1@7 1:1@4 | 1",
        "0:1@8 -1 out 1x2 | 2",
        "0:1@9 1:1@5 in 1x2 | 0",
        "0:1@10 -1 out 1x2 | 2",
        "1:1@6 in 1x2 | 3",
        "3:4@0 | 4",
    ]
    assert not policy.has_unfinished() and policy.usage().free_blocks == 5


def test_an_admission_leaves_the_watermark_and_decodes_do_not() -> None:
    """10 blocks, of which admissions leave 2: 0 takes 6 of them, 1 would leave 1, and nobody overtakes it."""
    policy = v0(10, watermark=0.2)
    add(policy, [(24, 6), (12, 1), (4, 1)])
    assert [told(policy) for _ in range(7)] == [
        "0:24@0 | 4",
        "0:1@24 | 3",
        "0:1@25 | 3",
        "0:1@26 | 3",
        "0:1@27 | 3",
        "0:1@28 | 2",
        "1:12@0 2:4@0 | 6",
    ]
    alone = v0(10, watermark=0.5)
    add(alone, [(20, 16)])
    assert [told(alone) for _ in range(16)][-1] == "0:1@34 | 1", "decodes have what the watermark kept"


@pytest.mark.parametrize(("watermark", "last"), [(0.2, "0:1@14 1:1@18 | 2"), (0.0, "0:1@14 1:1@18 2:1@5 in 2x2 | 0")])
def test_who_comes_back_leaves_the_watermark_too(watermark: float, last: str) -> None:
    """11 blocks: those of request 2 would fit again at once, but for a watermark of 2 blocks."""
    policy = v0(11, watermark=watermark, preemption_mode="swap")
    add(policy, [(12, 10), (16, 9), (4, 6)])
    assert [told(policy) for _ in range(4)] == [
        "0:12@0 1:16@0 2:4@0 | 3",
        "0:1@12 1:1@16 2:1@4 | 0",
        "0:1@13 1:1@17 -2 out 2x2 | 2",
        last,
    ]


def test_seats_and_tokens_limit_the_prompts_of_a_step() -> None:
    policy = v0(100, max_model_len=16, max_num_batched_tokens=16, max_num_seqs=4)
    add(policy, [(10, 3), (6, 3), (1, 3), (9, 3), (2, 1)])
    assert [told(policy) for _ in range(3)] == [
        "0:10@0 1:6@0 | 95",
        "2:1@0 3:9@0 | 91",  # a seat for 4 is free when one of them is done
        "0:1@10 1:1@6 2:1@1 3:1@9 | 91",
    ]


def test_chunks_beside_decodes() -> None:
    """6 tokens a step: 0 is 4 + 3 tokens, 1 is 9 + 2, 2 is 2 + 1."""
    policy = v0(20, **CHUNKS)
    add(policy, [(4, 3), (9, 2), (2, 1)])
    assert [told(policy) for _ in range(4)] == [
        "0:4@0 1:2@0 | 16",  # all blocks of a prompt are taken with its first chunk: 1 and 3
        "0:1@4 1:5@2 | 15",
        "0:1@5 1:2@7 2:2@0 | 14",
        "1:1@9 | 17",
    ]


def test_who_comes_back_among_chunks_is_computed_in_chunks_as_well() -> None:
    """6 blocks, 4 tokens a step; request 0 is 4 + 7 tokens, 1 is 16 + 1 and goes in the middle of its prompt.

    step  rows        blocks held  what happens
    2     0           2            1 goes to host memory, 4 blocks
    3     1: 3, 0     2 4          it comes back to compute 3 of the 13 tokens that it lacks (v0 would wait for 13)
    4     1: 4        2 4          who came back is before the others, and takes all tokens: 0 is left out
    5     0           2            who was left out is first; it finds no block free, and 1 goes again
    6, 7  0           3            1 does not fit
    8, 9  1             4
    """
    policy = v0(6, **{**CHUNKS, "max_num_batched_tokens": 4}, preemption_mode="swap")
    add(policy, [(4, 7), (16, 1)])
    assert [told(policy) for _ in range(10)] == [
        "0:4@0 | 5",
        "0:1@4 1:3@0 | 0",
        "0:1@5 -1 out 1x4 | 4",
        "1:3@3 0:1@6 in 1x4 | 0",
        "1:4@6 | 0",
        "0:1@7 -1 out 1x4 | 4",
        "0:1@8 | 3",
        "0:1@9 | 3",
        "1:4@10 in 1x4 | 2",
        "1:2@14 | 2",
    ]
    assert not policy.has_unfinished() and policy.usage().free_blocks == 6


def test_prefixes_are_reused_and_cost_no_tokens_of_the_step() -> None:
    policy = v0(20, enable_prefix_caching=True, max_model_len=16, max_num_batched_tokens=16, max_num_seqs=4)
    for number, (prompt, last) in enumerate([(9, 0), (15, 1), (14, 2)]):
        if number == 1:
            assert told(policy) == "0:9@0 | 17"
        ids_ = [*range(8), *[100 + last] * (prompt - 8)]
        policy.add(Admission(Request(number, 0, prompt, 1, prompt_token_ids=ids_)), 0)
    batch = policy.schedule(0)
    assert batch is not None
    assert (batch.new_tokens.tolist(), batch.context_tokens.tolist()) == ([7, 6], [8, 8])
    assert [hit for _, hit in batch.admitted] == [8, 8]
    assert policy.usage().free_blocks == 20 - 2 - 2 - 2


def test_a_request_whose_prompt_is_computed_goes_on_as_a_decode() -> None:
    run = Run(v0(10), [(8, 3, 0), (8, 2, 0)], computed=True, max_steps=1)
    rows = [(done.batch.new_tokens.tolist(), done.batch.context_tokens.tolist()) for done in run.batches]
    assert rows == [([1, 1], [8, 8]), ([1, 1], [9, 9]), ([1], [10])]
    assert [row["output"] for row in run.rows()] == [2, 3] and run.metrics.totals.prompt_tokens == 0


def test_stages_have_virtual_engines_with_their_share_of_the_blocks() -> None:
    policy = v0(13, pipeline=2)
    assert (policy.places, policy.usage().total_blocks) == (2, 12)
    assert policy.unfit(Request(0, 0, 20, 5), 24) is None
    assert policy.unfit(Request(0, 0, 20, 6), 25) == "it needs 7 KV blocks of 4 tokens, the cache holds 6"
    added = add(policy, [(4, 9), (4, 9), (4, 9)])
    first, second = policy.schedule(0), policy.schedule(0)
    assert first is not None and second is not None and policy.schedule(0) is None
    assert (ids(first), ids(second)) == ([0, 2], [1])
    add(policy, [(4, 9)], first=3)
    policy.abort(added[1], 1)
    policy.update(first, set(), 1)
    policy.update(second, set(), 1)
    third, fourth = policy.schedule(1), policy.schedule(1)
    assert third is not None and ids(third) == [0, 2]
    assert fourth is not None and ids(fourth) == [3], "it went to the one with fewer requests"
    assert policy.usage().free_blocks == 12 - 2 - 2 - 1


def test_a_sequence_ends_at_the_longest() -> None:
    policy = v0(20, max_model_len=16)
    assert policy.rejects(Request(0, 0, 16, 1)) == "its prompt of 16 tokens is not below max_model_len (16)"
    assert policy.rejects(Request(0, 0, 15, 9)) is None
    run = Run(v0(20, max_model_len=16), [(10, 30, 0)])
    assert [row["output"] for row in run.rows()] == [6]


def test_what_never_fits_is_said_with_the_watermark() -> None:
    policy = v0(100, watermark=0.05)
    assert policy.unfit(Request(0, 0, 380, 1), 380) is None
    fully = "it needs 96 KV blocks of 4 tokens, the cache holds 100, 5 of which stay free at admission"
    assert policy.unfit(Request(0, 0, 381, 1), 381) == fully


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_num_batched_tokens": 8}, "--max_num_batched_tokens: 8 tokens a step cannot serve max_num_seqs (256)"),
        ({"max_num_batched_tokens": 300}, "300 is below max_model_len (4096) while chunked prefill is off"),
        ({**CHUNKS, "enable_prefix_caching": True}, "--max_num_batched_tokens: 6 is no multiple of --block_size 4"),
    ],
)
def test_what_v0_refuses(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError) as refused:
        v0(100, **options)
    assert text in str(refused.value)


def test_defaults_are_v0s() -> None:
    place = Place(KVSpace(100, 16, 1, None), (FULL,), 8192)

    def limits(**options: Any) -> V0Limits:
        policy = policies.get("vllm-v0")(**options).scheduler(place)
        assert isinstance(policy, VllmV0Scheduler)
        return policy._limits

    assert limits() == V0Limits(256, 8192, 8192)
    assert limits(enable_chunked_prefill=True, preemption_mode="swap") == V0Limits(256, 512, 8192, True, True)


OPTIONS: list[dict[str, Any]] = [
    {"watermark": 0.1},
    {"preemption_mode": "swap"},
    {"max_num_seqs": 3, "enable_prefix_caching": True},
    {"pipeline": 2, "preemption_mode": "swap", "watermark": 0.05},
    {"enable_chunked_prefill": True, "max_num_batched_tokens": 8, "max_num_seqs": 5},
    {"enable_chunked_prefill": True, "max_num_batched_tokens": 8, "max_num_seqs": 5, "preemption_mode": "swap"},
    {"enable_chunked_prefill": True, "max_num_batched_tokens": 12, "max_num_seqs": 5, "enable_prefix_caching": True},
    {"enable_chunked_prefill": True, "max_num_batched_tokens": 8, "max_num_seqs": 5, "pipeline": 3},
]


class Watched(VllmV0Scheduler):
    """Checks after each decision that no block is lost, and that the step is one that v0 would make."""

    def schedule(self, now: int) -> Batch | None:
        batch = super().schedule(now)
        for engine in self.engines:
            running = [*engine.running, *engine.in_flight]
            assert len(running) <= self._limits.max_num_seqs
            if not engine.kv.caches_prefixes:
                assert engine.kv.free + sum(map(engine.kv.held, running)) == engine.kv.total
        if batch is not None:
            assert 0 < int(batch.new_tokens.sum()) <= self._limits.max_num_batched_tokens
            self._check(batch)
        return batch

    def _check(self, batch: Batch) -> None:
        flight = self._ledger.flights[-1]
        engine = self.engines[flight.store]
        contexts = zip(flight.members, batch.context_tokens.tolist(), strict=True)
        kinds = {context < member.prompt for member, context in contexts}
        if not self._limits.chunked:
            assert len(kinds) == 1, "prompts only, or decodes only"
            assert kinds == {False} or not engine.swapped, "nobody begins while somebody is away"
        if batch.admitted:
            assert engine.kv.free >= engine.watermark.blocks or not all(kinds)


@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_conserved(options: dict[str, Any]) -> None:
    @reaches(0.15, examples=40, rows=workloads(busy=True), blocks=st.integers(20, 26))
    def holds(reached: Reached, rows: list[Request], blocks: int) -> None:
        stages = options.get("pipeline", 1)
        policy = v0(blocks * stages, **options)
        policy.__class__ = Watched
        run = Run(policy, again(rows), stages=stages)
        swaps = options.get("preemption_mode") == "swap"
        check_conserved(run, rows, swaps=swaps)
        totals = run.metrics.totals
        if swaps:
            assert totals.preemptions == totals.evictions
            assert run.aborted or totals.evicted_bytes == totals.reloaded_bytes
        if totals.preemptions:
            reached()

    holds()
