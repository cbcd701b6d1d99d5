"""The roofline beside kernels that others measured, and what any device does.

Times in microseconds are rows of aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0; systems/data, vLLM's kernels in bf16,
heads of 128).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import batch, make_generator, model

from trace_gen.attention.work import AttentionShape
from trace_gen.batch_shape import BatchShape
from trace_gen.hardware import HARDWARE_FOLDER, Hardware, load_hardware
from trace_gen.perf_model import AttentionPart
from trace_gen.perf_models.roofline.attention import AttentionRoofline

DEVICES = sorted(path.stem for path in HARDWARE_FOLDER.glob("*.json"))
MODELS = ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-2-7b-hf", "mistralai/Mixtral-8x7B-v0.1", "Qwen/Qwen2.5-1.5B")
SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)
HEAD = 128


def attention_us(hardware: Hardware, count: int, new: int, context: int, heads: int, kv_heads: int) -> float:
    """Return the time of one kernel over like requests (us)."""
    roofline = AttentionRoofline(hardware, hardware.peak_flops["bf16"], hardware.memory_bandwidth)
    kv = 4 * HEAD * kv_heads
    shape = AttentionShape(heads, kv_heads, 4 * HEAD * heads, kv, 2 * HEAD * heads, 2 * HEAD * heads, kv)
    requests = BatchShape(*(np.full(count, value, dtype=np.int64) for value in (0, new, context, 1)))
    part = AttentionPart(np.zeros(1, dtype=np.int64), False, shape, requests, shape.work(requests))
    return float(roofline.batch_ns(part)[0]) / 1e3


def product_us(hardware: Hardware, m: int, n: int, k: int) -> float:
    """Return the time of a product of 16-bit matrices (us), as docs/performance_models.md says it."""
    part = hardware.efficiencies["gemm"]
    compute = 2 * m * n * k / (hardware.peak_flops["bf16"] * part.compute)
    memory = 2 * (n * k + m * (n + k)) / (hardware.memory_bandwidth * part.memory)
    return float(part.overhead_ns / 1e3 + 1e6 * np.hypot(compute, memory))


@pytest.mark.parametrize(
    ("name", "m", "n", "k", "measured"),
    [
        ("A100-80G", 1, 6144, 4096, 38.2),
        ("A100-80G", 64, 12288, 4096, 72.8),
        ("A100-80G", 2048, 4096, 16384, 1004.2),
        ("H100", 1, 12288, 4096, 35.6),
        ("H100", 64, 4096, 16384, 52.9),
        ("H100", 2048, 12288, 4096, 257.9),
        ("L40S", 1, 12288, 4096, 136.8),
        ("L40S", 64, 16384, 4096, 230.1),
        ("L40S", 2048, 16384, 4096, 1117.9),
        ("H200", 2048, 4096, 4096, 84.4),
        ("B200", 2048, 12288, 4096, 131.1),
    ],
)
def test_products_take_what_was_measured(name: str, m: int, n: int, k: int, measured: float) -> None:
    assert product_us(load_hardware(name), m, n, k) == pytest.approx(measured, rel=0.16)


@pytest.mark.parametrize(
    ("name", "count", "new", "context", "heads", "kv_heads", "measured"),
    [
        ("A100-80G", 1, 4096, 0, 32, 8, 899.6),
        ("A100-80G", 8, 2048, 0, 32, 8, 1835.6),
        ("A100-80G", 64, 1, 1023, 32, 8, 192.7),
        ("A100-80G", 8, 1, 4095, 32, 8, 107.6),
        ("A100-80G", 1, 1, 8191, 8, 8, 198.3),
        ("A100-80G", 8, 1, 4095, 4, 4, 106.8),
        ("A100-80G", 64, 1, 2047, 8, 8, 342.7),
        ("H100", 1, 4096, 0, 32, 8, 264.3),
        ("H100", 8, 4096, 0, 32, 8, 1983.6),
        ("H100", 64, 1, 2047, 32, 8, 186.7),
        ("H100", 1, 1, 2047, 8, 8, 15.3),
        ("H100", 256, 1, 1023, 8, 8, 360.7),
        ("B200", 64, 1, 2047, 32, 8, 86.1),
    ],
)
def test_attention_takes_what_was_measured(
    name: str, count: int, new: int, context: int, heads: int, kv_heads: int, measured: float
) -> None:
    found = attention_us(load_hardware(name), count, new, context, heads, kv_heads)
    assert found == pytest.approx(measured, rel=0.2)


def test_a_whole_context_is_waited_for_where_it_is_not_split() -> None:
    """FlashAttention-2 without groups: one long context takes as long as 8 of them, with groups a part of that."""
    a100 = load_hardware("A100-80G")
    one, eight = (attention_us(a100, count, 1, 8191, 4, 4) for count in (1, 8))
    assert one == pytest.approx(eight, rel=0.06)
    split = replace(
        a100, efficiencies={**a100.efficiencies, "attention_decode_ungrouped": a100.efficiencies["attention_decode"]}
    )
    assert attention_us(split, 1, 1, 8191, 4, 4) < one / 5


@SETTINGS
@given(
    st.sampled_from(DEVICES),
    st.integers(1, 40),
    st.integers(1, 6000),
    st.integers(1, 4000),
    st.sampled_from([1, 2, 4, 8]),
)
def test_more_work_never_takes_less(name: str, count: int, context: int, more: int, heads: int) -> None:
    """Decodes with more context, more requests, more heads; prompts with more tokens in the same tiles and in more."""
    device = load_hardware(name)
    once = attention_us(device, count, 1, context, 4 * heads, heads)
    assert once <= attention_us(device, count, 1, context + more, 4 * heads, heads)
    assert once <= attention_us(device, count + 1, 1, context, 4 * heads, heads)
    assert once <= attention_us(device, count, 1, context, 8 * heads, 2 * heads)
    prompt = attention_us(device, 1, context + 1, 0, 4 * heads, heads)
    assert prompt <= attention_us(device, 1, context + 1 + 64 * more, 0, 4 * heads, heads)
    assert product_us(device, count, 4096, 4096) <= product_us(device, count + more, 4096, 4096)


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_runs_every_kind_of_model(name: str) -> None:
    for family in MODELS:
        generator = make_generator(model(family), hardware=name)
        step, prompt = (
            int(generator.generate([shape]).latency_ns.sum()) for shape in (batch([1], [500]), batch([600]))
        )
        assert 0 < step < prompt
