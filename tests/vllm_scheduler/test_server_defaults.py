"""What vLLM's server decides by itself, against its own sources' table and a recorded server."""

from __future__ import annotations

import pytest

from orchestrator.schedulers.vllm.server import GIB, StepLimits, profiled_bytes, step_limits, utilization
from trace_gen.hardware import load_hardware


@pytest.mark.parametrize(
    ("version", "hardware", "seqs", "tokens"),
    [
        ("0.19", "RTX3090", 256, 2048),
        ("0.19", "RTX4090", 256, 2048),
        ("0.19", "L40S", 256, 2048),
        ("0.19", "A100-80G", 256, 2048),
        ("0.19", "H100", 1024, 8192),
        ("0.19", "H200", 1024, 8192),
        ("0.19", "B200", 1024, 8192),
        ("0.19", "MI300X", 1024, 8192),
        ("0.19", "RTXPRO6000", 1024, 8192),
        ("0.33", "A100-80G", 256, 2048),
        ("0.33", "H100", 1024, 8192),
        ("0.33", "B200", 1024, 16384),
        ("0.33", "MI300X", 1024, 16384),
        ("0.19", "TPU-v5e", 256, 512),
        ("0.19", "TPU-v6e", 256, 1024),
    ],
)
def test_a_step_holds_what_the_server_lets_it_on_each_device(
    version: str, hardware: str, seqs: int, tokens: int
) -> None:
    device = load_hardware(hardware)
    limits = step_limits(version, device.device, device.memory_bytes, 131_072, chunked_prefill=True)
    assert limits == StepLimits(seqs, tokens)


@pytest.mark.parametrize(("memory", "seqs"), [(70 * GIB, 1024), (70 * GIB - 1, 256)])
def test_the_large_devices_begin_at_70_gib(memory: int, seqs: int) -> None:
    assert step_limits("0.19", "X", memory, 4096, chunked_prefill=True).max_num_seqs == seqs


@pytest.mark.parametrize(("memory", "tokens"), [(160 * GIB, 16384), (160 * GIB - 1, 8192)])
def test_the_largest_begin_at_160_gib_in_the_newer_version(memory: int, tokens: int) -> None:
    assert step_limits("0.33", "X", memory, 32_768, chunked_prefill=True).max_num_batched_tokens == tokens
    assert step_limits("0.19", "X", memory, 32_768, chunked_prefill=True).max_num_batched_tokens == 8192


def small(max_model_len: int, **given: int | bool) -> StepLimits:
    options = {"chunked_prefill": True, **given}
    return step_limits("0.19", "RTX 3090", 24 * GIB, max_model_len, **options)  # type: ignore[arg-type]


def test_whole_prompts_raise_the_budget_to_the_longest_and_a_given_one_stays() -> None:
    assert small(8192, chunked_prefill=False) == StepLimits(256, 8192)
    assert small(1024, chunked_prefill=False) == StepLimits(256, 2048)
    assert small(8192, chunked_prefill=False, max_num_batched_tokens=9000) == StepLimits(256, 9000)


def test_a_budget_never_exceeds_what_the_sequences_can_hold() -> None:
    assert small(4) == StepLimits(256, 1024)
    assert small(8192, max_num_seqs=1) == StepLimits(1, 2048)
    assert small(100, max_num_seqs=3) == StepLimits(3, 300)


def test_sequences_never_exceed_a_budget_that_was_given() -> None:
    assert small(8192, max_num_batched_tokens=100) == StepLimits(100, 100)
    assert small(8192, max_num_batched_tokens=100, max_num_seqs=50) == StepLimits(50, 100)
    assert small(8192, max_num_batched_tokens=10, max_num_seqs=50) == StepLimits(50, 10), "refused later, as by vLLM"


def test_the_blocks_of_a_recorded_server_come_out() -> None:
    """Llama-3.1-8B on an RTX 4090 of 25,250,627,584 bytes, vLLM 0.19.0 by itself: 2,588 blocks of 16 tokens."""
    limits = step_limits("0.19", "NVIDIA GeForce RTX 4090", 25_250_627_584, 32_768, chunked_prefill=True)
    weights, block = 8_030_261_248 * 2, 16 * 2 * 32 * 8 * 128 * 2
    profiled = profiled_bytes(limits, vocabulary=128_256, hidden=4096, inner=14_336, ranks=1)
    blocks = (utilization("0.19") * 25_250_627_584 - weights - profiled) / block
    assert blocks == pytest.approx(2588, rel=0.002)
    assert utilization("0.33") == 0.92


def test_several_ranks_share_what_is_inner_and_hold_buffers_each() -> None:
    limits = StepLimits(10, 100)
    alone = profiled_bytes(limits, vocabulary=1000, hidden=64, inner=301, ranks=1)
    shared = profiled_bytes(limits, vocabulary=1000, hidden=64, inner=301, ranks=2)
    assert alone == 10 * 1000 * 26 + 100 * 6 * (64 + 301) + round(0.146 * GIB)
    assert shared == 10 * 1000 * 26 + 100 * 6 * (64 + 151) + round(0.6 * GIB)
