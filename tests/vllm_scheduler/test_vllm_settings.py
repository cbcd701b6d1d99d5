"""What is refused, and why: settings as vLLM refuses them, and requests that can never run."""

from typing import Any

import pytest

from foundation.errors import InternalError, UserError
from orchestrator.request import Request
from orchestrator.schedulers.interface import Scheduler
from orchestrator.schedulers.vllm import PipelinedVllmScheduler, VllmSchedulerConfig, vllm_scheduler

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
        ({"async_scheduling": True, "pipeline_stages": 2}, "not modelled with 2 pipeline stages"),
    ],
)
def test_settings_that_vllm_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VllmSchedulerConfig(**{**GOOD, **change})


def test_a_long_threshold_is_allowed_in_the_older_version() -> None:
    assert VllmSchedulerConfig(**GOOD, long_prefill_token_threshold=201).version == "0.19"


@pytest.mark.parametrize(
    ("change", "kind", "in_flight", "ahead"),
    [
        ({}, "VllmScheduler", 2, True),
        ({"async_scheduling": False}, "VllmScheduler", 1, False),
        ({"pipeline_stages": 3}, "PipelinedVllmScheduler", 3, False),
    ],
)
def test_batches_in_flight(change: dict[str, Any], kind: str, in_flight: int, ahead: bool) -> None:
    scheduler: Scheduler = vllm_scheduler(VllmSchedulerConfig(**{**GOOD, **change}))
    assert (type(scheduler).__name__, scheduler.max_in_flight, scheduler.decides_ahead) == (kind, in_flight, ahead)
    assert isinstance(scheduler, PipelinedVllmScheduler) == ("pipeline_stages" in change)


@pytest.mark.parametrize(
    ("prompt", "output", "reason"),
    [
        (199, 1, "it needs 13 KV blocks of 16 tokens, the cache holds 10"),
        (200, 1, "its prompt of 200 tokens is not below max_model_len (200)"),
        (160, 1, None),
        (100, 61, None),
        (100, 62, "it needs 11 KV blocks of 16 tokens, the cache holds 10"),
    ],
)
def test_requests_that_can_never_run(prompt: int, output: int, reason: str | None) -> None:
    assert vllm_scheduler(VllmSchedulerConfig(**GOOD)).unfit(Request(0, 0, prompt, output)) == reason


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(7, 0, 0, 5, source_line=3), "line 3: request 7 has 0 prompt and 5 output tokens"),
        (Request(7, 0, 200, 5, name="long"), r"request long cannot run: its prompt of 200 tokens is not below"),
        (Request(7, 0, 4, 5, prompt_token_ids=[1]), "request 7 has 1 prompt token ids for 4 prompt tokens"),
    ],
)
def test_requests_that_the_front_end_rejects(request_: Request, message: str) -> None:
    with pytest.raises(UserError, match=message):
        vllm_scheduler(VllmSchedulerConfig(**GOOD)).add(request_, 0)


def test_batches_are_updated_in_their_order() -> None:
    scheduler = vllm_scheduler(VllmSchedulerConfig(**GOOD))
    scheduler.add(Request(0, 0, 10, 10), 0)
    first, second = scheduler.schedule(0), scheduler.schedule(0)
    assert first is not None
    assert second is not None
    with pytest.raises(InternalError, match="in the order"):
        scheduler.update(second, 1)
    with pytest.raises(InternalError, match="not the last"):
        scheduler.steady(first)


def test_a_request_that_drove_itself_out_is_reported_with_the_next_batch() -> None:
    """Two of three usable blocks, then all: the lone request loses them and comes back in the same call."""
    config = VllmSchedulerConfig(
        num_gpu_blocks=3,
        max_model_len=64,
        async_scheduling=False,
        enable_prefix_caching=False,
        scheduler_reserve_full_isl=False,
        max_num_batched_tokens=20,
        max_num_seqs=4,
    )
    scheduler = vllm_scheduler(config)
    scheduler.add(Request(0, 0, 40, 2), 0)
    for now in range(2):
        batch = scheduler.schedule(now)
        assert batch is not None
        scheduler.update(batch, now)
    batch = scheduler.schedule(2)
    assert batch is not None
    assert [request.id for request in batch.preempted] == [0]
    assert [(request.id, hit) for request, hit in batch.admitted] == [(0, 0)]
