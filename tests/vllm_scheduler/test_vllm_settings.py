"""What is refused, and why: settings as vLLM refuses them, and requests that can never run."""

from typing import Any

import pytest

from foundation.errors import InternalError, UserError
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import EngineLoop
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig

GOOD: dict[str, Any] = {"num_gpu_blocks": 11, "max_model_len": 200, "max_num_seqs": 4, "max_num_batched_tokens": 64}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_num_batched_tokens": 3}, r"max_num_batched_tokens: 3 tokens a step cannot serve max_num_seqs \(4\)"),
        ({"enable_chunked_prefill": False}, r"64 is below max_model_len \(200\) while chunked prefill is off"),
        ({"policy": "sjf"}, "policy: unknown policy 'sjf'; known: fcfs, priority"),
        ({"version": "0.2"}, "version: unknown version '0.2'"),
        ({"num_gpu_blocks": 1}, "num_gpu_blocks: 1 is not a whole number of at least 2"),
        ({"block_size": 0}, "block_size: 0 is not"),
        ({"block_size": True}, "block_size: True is not"),
        ({"long_prefill_token_threshold": -1}, "long_prefill_token_threshold: -1 is not"),
        ({"version": "0.33", "long_prefill_token_threshold": 201}, r"201 is above max_model_len \(200\)"),
        ({"engine_loop": "0.20"}, "engine_loop: unknown engine_loop '0.20'; did you mean 0.33, 0.19"),
        ({"prefix_cache_retention_interval": -1}, "prefix_cache_retention_interval: -1 is not"),
    ],
)
def test_settings_that_vllm_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VllmSchedulerConfig(**{**GOOD, **change})


def test_a_long_threshold_is_allowed_in_the_older_version() -> None:
    assert VllmSchedulerConfig(**GOOD, long_prefill_token_threshold=201).version == "0.19"


@pytest.mark.parametrize(
    ("change", "places", "loop"),
    [
        ({}, 2, EngineLoop.QUEUE),
        ({"async_scheduling": False}, 1, EngineLoop.QUEUE),
        ({"pipeline_stages": 3, "async_scheduling": False}, 3, EngineLoop.QUEUE),
        ({"pipeline_stages": 3}, 3, EngineLoop.QUEUE),
        ({"pipeline_stages": 3, "version": "0.33"}, 4, EngineLoop.FILLED_QUEUE),
        ({"pipeline_stages": 3, "version": "0.33", "engine_loop": "0.19"}, 4, EngineLoop.QUEUE),
    ],
)
def test_places_in_the_batch_queue(change: dict[str, Any], places: int, loop: EngineLoop) -> None:
    scheduler = VllmScheduler(VllmSchedulerConfig(**{**GOOD, **change}))
    assert (scheduler.places, scheduler.loop) == (places, loop)


@pytest.mark.parametrize(
    ("prompt", "output", "reason"),
    [
        (199, 1, "it needs 13 KV blocks of 16 tokens, the cache holds 10"),
        (160, 1, None),
        (100, 61, None),
        (100, 62, "it needs 11 KV blocks of 16 tokens, the cache holds 10"),
    ],
)
def test_requests_that_can_never_run(prompt: int, output: int, reason: str | None) -> None:
    request = Request(0, 0, prompt, output)
    scheduler = VllmScheduler(VllmSchedulerConfig(**GOOD))
    assert scheduler.unfit(request, Admission(request, 0).peak_tokens(output)) == reason
    assert scheduler.rejects(request) is None


def test_a_request_without_room_for_an_answer_is_rejected() -> None:
    scheduler = VllmScheduler(VllmSchedulerConfig(**GOOD))
    request = Request(7, 0, 200, 5, name="long")
    assert scheduler.rejects(request) == "its prompt of 200 tokens is not below max_model_len (200)"
    with pytest.raises(InternalError, match="request 7 should have been rejected"):
        scheduler.add(Admission(request, 0), 0)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            Request(7, 0, 0, 5, source_line=3),
            "line 3: request 7 has 0 prompt and 5 output tokens; both must be at least 1",
        ),
        (Request(7, 0, 4, 5, prompt_token_ids=[1]), "request 7 has 1 prompt token ids for 4 prompt tokens"),
    ],
)
def test_requests_that_cannot_be(request_: Request, message: str) -> None:
    with pytest.raises(UserError, match=message):
        VllmScheduler(VllmSchedulerConfig(**GOOD)).add(Admission(request_, 0), 0)


def test_batches_are_updated_in_their_order() -> None:
    scheduler = VllmScheduler(VllmSchedulerConfig(**GOOD))
    scheduler.add(Admission(Request(0, 0, 10, 10), 0), 0)
    first, second = scheduler.schedule(0), scheduler.schedule(0)
    assert first is not None
    assert second is not None
    with pytest.raises(InternalError, match="batch 1 finished out of the order"):
        scheduler.update(second, frozenset(), 1)


def test_a_request_that_drives_itself_out_is_told_of_in_a_batch_of_nobody() -> None:
    """Two of three blocks, then all: the lone request loses them, and comes back with the next decision."""
    config = VllmSchedulerConfig(
        num_gpu_blocks=3,
        max_model_len=64,
        async_scheduling=False,
        enable_prefix_caching=False,
        scheduler_reserve_full_isl=False,
        max_num_batched_tokens=20,
        max_num_seqs=4,
    )
    scheduler = VllmScheduler(config)
    scheduler.add(Admission(Request(0, 0, 40, 2), 0), 0)
    told = []
    for now in range(4):
        batch = scheduler.schedule(now)
        assert batch is not None
        scheduler.update(batch, frozenset(), now)
        told.append((batch.new_tokens.tolist(), len(batch.preempted), [hit for _, hit in batch.admitted]))
    assert told == [([20], 0, [0]), ([], 1, []), ([20], 0, [0]), ([], 1, [])]
