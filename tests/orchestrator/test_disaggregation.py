"""Engines that compute prompts and engines that go on with them: tables worked out by hand, and what always holds.

Blocks hold 4 tokens and 1,000 bytes. In the tables every pass lasts 100 ns and a byte takes 1 ns on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st

from orchestrator.cluster.clock import Told
from orchestrator.cluster.resources import Port, send
from orchestrator.engine.records import Aborted, CompletedBatch, Rejected, Transferred
from orchestrator.requests.request import Request
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig
from orchestrator.settings.engine import Role
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.paired import BLOCK_BYTES, FREE, Paired
from tests.orchestrator.serving import Run, StageTimes

A_BYTE_A_NS = 10**9
ROLES: list[tuple[Role, ...]] = [
    ("prefill", "decode"),
    ("prefill", "both"),
    ("prefill", "prefill", "decode"),
    ("prefill", "decode", "decode"),
    ("prefill", "decode", "both"),
    ("both", "prefill", "decode", "decode", "prefill", "decode"),
]


def config(blocks: int = 64, **change: Any) -> VllmSchedulerConfig:
    settings = {"block_size": 4, "async_scheduling": False, "enable_prefix_caching": False, **change}
    return VllmSchedulerConfig(num_gpu_blocks=blocks + 1, max_model_len=64, **settings)


def timed(**change: Any) -> Paired:
    """Return a prefill and a decode engine as the tables assume them."""
    pricing = [StageTimes([100]), StageTimes([100])]
    return Paired(**{"config": config(), "bytes_per_s": A_BYTE_A_NS, "pricing": pricing, "max_steps": 1, **change})


def moves(told: Sequence[Told]) -> list[tuple[int, int, int, int, int, int, int]]:
    """Return (request, source, target, bytes, asked, began, came) of each transfer."""
    return [
        (one.request.id, one.source, one.target, one.bytes, one.asked_ns, one.began_ns, one.came_ns)
        for one in told
        if isinstance(one, Transferred)
    ]


# -- tables


def test_a_prompt_is_computed_moved_and_gone_on_with() -> None:
    """10 tokens are 3 blocks. Computed at 100, asked for at once, there at 3,100; three tokens, 100 ns each."""
    pair = timed()
    told = pair.run([Request(0, 0, 10, 3)])
    assert moves(told) == [(0, 0, 1, 3 * BLOCK_BYTES, 100, 100, 3100)]
    row = pair.rows()[0]
    assert (row["queued"], row["scheduled"], row["first_token"], row["end"]) == (0, 0, 3200, 3400)
    assert (row["input"], row["output"], row["engine"]) == (10, 3, 1)


def test_latency_takes_no_card_and_is_added_to_each_transfer() -> None:
    """Both are asked for at 100; the second leaves when the first has left."""
    pair = timed(latency_ns=50)
    told = pair.run([Request(0, 0, 4, 1), Request(1, 0, 8, 1)])
    assert moves(told) == [(0, 0, 1, 1000, 100, 100, 1150), (1, 0, 1, 2000, 100, 1100, 3150)]


def test_transfers_from_two_engines_to_one_go_one_after_the_other() -> None:
    pair = timed(roles=("prefill", "prefill", "decode"), pricing=[StageTimes([100])] * 3)
    told = pair.run([Request(0, 0, 4, 1), Request(1, 0, 4, 1)])
    assert moves(told) == [(0, 0, 2, 1000, 100, 100, 1100), (1, 1, 2, 1000, 100, 1100, 2100)]


def test_transfers_to_two_engines_from_two_go_at_once() -> None:
    pair = timed(roles=("prefill", "prefill", "decode", "decode"), pricing=[StageTimes([100])] * 4)
    told = pair.run([Request(0, 0, 4, 1), Request(1, 0, 4, 1)])
    assert moves(told) == [(0, 0, 2, 1000, 100, 100, 1100), (1, 1, 3, 1000, 100, 100, 1100)]


def test_a_full_decode_engine_presses_back_on_the_one_that_computes_prompts() -> None:
    """A request has 2 blocks at first and 3 in the end: the decode engine holds one, the prefill engine two.

    Request 0 is computed at 100, moved by 2,100 and done at 2,300. 1, computed with it, is moved only then, and its
    blocks are kept until it is there, at 4,300. So 2 and 3 find room at 2,100 and 4,300.
    """
    pair = timed(config=[config(4), config(3)])
    told = pair.run([Request(number, 0, 8, 2) for number in range(4)])
    assert [(move[0], *move[4:]) for move in moves(told)] == [
        (0, 100, 100, 2100),
        (1, 2300, 2300, 4300),
        (2, 4500, 4500, 6500),
        (3, 6700, 6700, 8700),
    ]
    scheduled = {number: row["scheduled"] for number, row in pair.rows().items()}
    assert scheduled == {0: 0, 1: 0, 2: 2100, 3: 4300}


def test_layers_leave_while_others_are_computed() -> None:
    """4 layers, done at 25, 50, 75 and 90 of 100 ns, with 250 bytes each (250 ns): the last has come at 1,025.

    The decode engine has room for it at 0, and goes on 75 ns before it would if all left at 100.
    """
    pair = timed(layerwise=True)
    told = pair.run([Request(0, 0, 4, 1)])
    assert moves(told) == [(0, 0, 1, 1000, 25, 25, 1025)]
    assert pair.rows()[0]["first_token"] == 1125


def test_chunks_of_a_prompt_leave_as_they_are_computed() -> None:
    """Two chunks of 4 tokens: the first layer's quarter of each is ready at 25 and 125, and the card is fast."""
    pair = timed(layerwise=True, config=config(max_num_batched_tokens=4, max_num_seqs=2), bytes_per_s=FREE)
    told = pair.run([Request(0, 0, 8, 1)])
    ((_, _, _, amount, asked, _, came),) = moves(told)
    assert (amount, asked, came) == (2000, 25, 200), "nothing is there before the pass has ended that computes the last"


def test_given_up_while_another_engine_computes_its_prompt() -> None:
    """Both engines forget it, its client is told of once, and all blocks are free."""
    pair = timed(layerwise=True)
    told = pair.run([Request(0, 0, 8, 4, abort_ns=50), Request(1, 0, 8, 1)])
    assert [(one.request.id, one.engine) for one in told if isinstance(one, Aborted)] == [(0, 1)]
    assert [move[0] for move in moves(told)] == [1]
    assert_nothing_left(pair)


@pytest.mark.parametrize("at", [50, 100, 101, 500, 2099, 2100, 2150, 2250])
@pytest.mark.parametrize("layerwise", [False, True])
def test_given_up_at_any_stage_leaves_nothing_behind(at: int, layerwise: bool) -> None:
    pair = timed(layerwise=layerwise)
    told = pair.run([Request(0, 0, 8, 4, abort_ns=at)])
    assert [one.request.id for one in told if isinstance(one, Aborted)] == [0]
    assert not pair.rows()
    assert_nothing_left(pair)


def test_given_up_before_the_decode_engine_has_room_nothing_is_moved() -> None:
    """The decode engine is full until 2,300; 1 is given up at 700, and its blocks at the other engine go to 2 then."""
    pair = timed(config=[config(4), config(3)])
    told = pair.run([Request(0, 0, 8, 2), Request(1, 0, 8, 2, abort_ns=700), Request(2, 0, 8, 2)])
    assert [move[0] for move in moves(told)] == [0, 2]
    assert pair.rows()[2]["scheduled"] == 700
    assert_nothing_left(pair)


def test_an_engine_that_turns_a_request_away_does_not_keep_it_elsewhere() -> None:
    pair = timed(config=[config(), replace(config(), max_model_len=8)])
    told = pair.run([Request(0, 0, 10, 3)])
    assert [type(one) for one in told if not isinstance(one, CompletedBatch)] == [Rejected]
    assert_nothing_left(pair)


def test_what_a_decode_engine_finds_of_a_prefix_is_not_moved() -> None:
    """Three of the second prompt's four blocks are there from the first; the fourth is moved."""
    ids = list(range(16))
    pair = timed(config=config(enable_prefix_caching=True))
    same = [Request(0, 0, 16, 1, prompt_token_ids=ids), Request(1, 9000, 16, 1, prompt_token_ids=ids)]
    assert [move[3] for move in moves(pair.run(same))] == [4000, 1000]


def test_ports_are_taken_in_turn() -> None:
    out, into = Port(2 * A_BYTE_A_NS), Port(A_BYTE_A_NS)
    assert send((out, into), 10, 5, 3) == (5, 15, 18)
    assert send((out,), 3, 0, 0) == (15, 17, 17), "a byte and a half a ns are two"


# -- what always holds


def assert_nothing_left(pair: Paired) -> None:
    for engine, scheduler in zip(pair.engines, pair.schedulers, strict=True):
        usage = engine.usage()
        assert engine.idle()
        assert usage.free_blocks == usage.total_blocks
        assert scheduler.remote is not None
        assert not (scheduler.remote.fetching or scheduler.remote.sending or scheduler.remote.heard)


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Paired, list[Request]]:
    """Draw engines and requests, each of which fits into every engine alone."""
    block, length = draw(st.sampled_from([1, 4, 16])), draw(st.sampled_from([24, 60]))
    seats, chunked = draw(st.integers(1, 6)), draw(st.booleans())
    roles = draw(st.sampled_from(ROLES))
    configs = [
        VllmSchedulerConfig(
            num_gpu_blocks=1 + -(-length // block) + draw(st.integers(0, 3 * length // block)),
            max_model_len=length,
            max_num_seqs=seats,
            max_num_batched_tokens=max(seats, draw(st.sampled_from([8, 64])), 0 if chunked else length),
            block_size=block,
            enable_prefix_caching=draw(st.booleans()),
            enable_chunked_prefill=chunked,
            async_scheduling=draw(st.booleans()),
            scheduler_reserve_full_isl=draw(st.booleans()),
            policy=draw(st.sampled_from(["fcfs", "priority"])),
        )
        for _ in roles
    ]
    requests = []
    moment = 0
    for number in range(draw(st.integers(1, 12))):
        moment += draw(st.sampled_from([0, 0, 100, 3000]))
        prompt = draw(st.integers(1, length - 2))
        output = draw(st.integers(1, length - 1 - prompt))
        request = Request(number, moment, prompt, output, name=str(number), priority=draw(st.integers(0, 2)))
        if draw(st.booleans()):
            request.prompt_token_ids = [1] * prompt
        if draw(st.integers(0, 3)) == 0:
            request.abort_ns = moment + draw(st.integers(0, 20_000))
        requests.append(request)
    bytes_per_s = draw(st.sampled_from([FREE, 10**9, 3 * 10**9, 10**10]))
    latency = draw(st.sampled_from([0, 700]))
    paired = Paired(configs, roles, bytes_per_s, latency, layerwise=draw(st.booleans()))
    return paired, requests


def fresh(pair: Paired, **change: Any) -> Paired:
    """Return the same cluster before it has run."""
    given = {"bytes_per_s": pair.bytes_per_s, "latency_ns": pair.latency_ns, "layerwise": pair.layerwise}
    return Paired(pair.config, pair.roles, **{**given, **change})


@reaches(0.6, examples=250, drawn=clusters())
def test_nothing_is_lost_and_nothing_is_left(reached: Reached, drawn: tuple[Paired, list[Request]]) -> None:
    """Every request is finished with its whole answer or given up, once; blocks go back; times are in order."""
    pair, requests = drawn
    told = pair.run(requests)
    rows = pair.rows()
    gone = Counter(one.request.id for one in told if isinstance(one, Aborted))
    assert set(gone.values()) <= {1}
    assert not rows.keys() & gone.keys()
    assert rows.keys() | gone.keys() == {request.id for request in requests}
    for request in requests:
        if request.abort_ns is None:
            assert rows[request.id]["output"] == request.output_tokens
    for row in rows.values():
        assert row["arrival"] <= row["queued"] <= row["scheduled"] < row["first_token"] <= row["end"]
        assert pair.roles[row["engine"]] != "prefill"
    moved = [one for one in told if isinstance(one, Transferred)]
    assert all(one.asked_ns <= one.began_ns <= one.came_ns for one in moved)
    handed = sum(len(one.outcome.handed_over) for one in told if isinstance(one, CompletedBatch))
    assert len(moved) <= handed
    assert_nothing_left(pair)
    if moved:
        reached()


@reaches(0.6, examples=150, drawn=clusters())
def test_stretches_change_nothing(reached: Reached, drawn: tuple[Paired, list[Request]]) -> None:
    pair, requests = drawn
    many, single = fresh(pair), fresh(pair, max_steps=1)
    first, second = many.run(requests), single.run(requests)
    assert many.rows() == single.rows()
    assert moves(first) == moves(second)
    assert many.recorder.itl.distribution() == single.recorder.itl.distribution()
    if moves(first):
        reached()


@reaches(0.9, examples=60, drawn=clusters())
def test_layerwise_is_as_early_as_whole_for_a_lone_request(
    reached: Reached, drawn: tuple[Paired, list[Request]]
) -> None:
    """With nobody else there, KV cache that leaves earlier is there no later."""
    pair, requests = drawn
    alone = [replace(requests[0], abort_ns=None, arrival_ns=0)]
    ends = {}
    for layerwise in (False, True):
        one = fresh(pair, layerwise=layerwise)
        one.roles, one.config = ("prefill", "decode"), list(pair.config)[:2]  # type: ignore[arg-type]
        one.run(alone)
        ends[layerwise] = one.rows()[0]["end"]
    assert ends[True] <= ends[False]
    reached()


@reaches(0.9, examples=60, rows=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20)), min_size=1, max_size=12))
def test_totals_are_those_of_one_engine_that_does_all(reached: Reached, rows: list[tuple[int, int]]) -> None:
    """Separate pools whose link is free: the same tokens come out, and a prompt's last token is computed twice."""
    requests = [Request(number, 1000 * number, *row) for number, row in enumerate(rows)]
    roomy = config(1000)
    pair = Paired(roomy, ("prefill", "decode"))
    pair.run(requests)
    whole = Run(VllmScheduler(roomy), [replace(request) for request in requests])
    split, together = pair.recorder.totals, whole.metrics.totals
    assert split.generated_tokens == together.generated_tokens == sum(output for _, output in rows)
    assert split.prompt_tokens == together.prompt_tokens + len(rows)
    assert split.transferred_bytes == BLOCK_BYTES * sum(-(-prompt // 4) for prompt, _ in rows)
    reached()
