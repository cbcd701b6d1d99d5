"""The roofline's latencies: at least the datasheet's bound, monotone, shared by ranks, and the overrides it takes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import FAMILIES, LLAMA, batch, batches, decodes, generator, model, rows_named

from foundation.errors import UserError
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.memory import parameter_count
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.precision import Precision
from trace_gen.trace import OperatorClass

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


def time_of(shape: BatchShape, name: str = LLAMA, hardware: str = "RTX4090", **options: object) -> np.ndarray:
    architecture = model(name)
    perf = make_perf_model("roofline", PerfModelOptions(architecture, load_hardware(hardware), **options))  # type: ignore[arg-type]
    return TraceGenerator(architecture, Mesh(), perf).generate([shape]).latency_ns.sum(axis=1)


def test_decode_of_llama_on_a_4090_is_bound_by_its_weights() -> None:
    """15.0 GB of weights (all but the embedding table) at 1008 GB/s are 14.9 ms: a decode takes a little longer."""
    read = 2 * (parameter_count(model()) - model().vocab_size * model().hidden_size)
    bound_ms = read / 1008e9 * 1e3
    decode_ms = time_of(batch([1], [128]))[0] / 1e6
    assert bound_ms < decode_ms < 1.2 * bound_ms


def test_long_prefill_is_bound_by_arithmetic() -> None:
    tokens = 2048
    flops = 2 * tokens * (parameter_count(model()) - 2 * model().vocab_size * model().hidden_size)
    bound_ms = flops / 165.2e12 * 1e3
    prefill_ms = time_of(batch([tokens]))[0] / 1e6
    assert bound_ms < prefill_ms < 1.25 * bound_ms


def test_local_bandwidth_replaces_the_datasheets() -> None:
    decode = batch([1], [128])
    slow, fast = time_of(decode, memory_bandwidth=504e9)[0], time_of(decode)[0]
    assert 1.8 < slow / fast < 2.0


def test_fewer_bits_are_read_faster() -> None:
    architecture = model()
    options = PerfModelOptions(architecture, load_hardware("H100"))
    times = []
    for precision in (Precision(), Precision(8, 8, 8), Precision(4, 16, 16)):
        perf = make_perf_model("roofline", replace(options, precision=precision))
        trace = TraceGenerator(architecture, Mesh(), perf, precision=precision).generate([batch([1], [128])])
        times.append(int(trace.latency_ns.sum()))
    assert times == sorted(times, reverse=True)
    assert times[0] > 1.4 * times[1]


def test_a_width_without_a_rate_is_refused_before_anything_is_computed() -> None:
    for precision in (Precision(32, 32, 32), Precision(32, 16, 16), Precision(16, 32, 16)):
        with pytest.raises(UserError, match="TPU-v5e states no rate for 32-bit numbers"):
            make_perf_model("roofline", PerfModelOptions(model(), load_hardware("TPU-v5e"), precision=precision))


def test_unknown_performance_model() -> None:
    with pytest.raises(UserError, match="unknown performance model 'rooflin'; did you mean roofline"):
        make_perf_model("rooflin", PerfModelOptions(model(), load_hardware("A40")))


@SETTINGS
@given(shape=batches, position=st.integers(0, 5), more=st.integers(1, 300), name=st.sampled_from(FAMILIES))
def test_more_tokens_or_context_never_take_less(shape: BatchShape, position: int, more: int, name: str) -> None:
    position %= len(shape.new_tokens)
    base = time_of(shape, name)[0]
    added = np.zeros_like(shape.new_tokens)
    added[position] = more
    assert time_of(replace(shape, new_tokens=shape.new_tokens + added), name)[0] >= base
    assert time_of(replace(shape, context_tokens=shape.context_tokens + added), name)[0] >= base


@SETTINGS
@given(contexts=decodes, name=st.sampled_from(FAMILIES))
def test_one_more_request_never_takes_less(contexts: list[int], name: str) -> None:
    fewer = batch([1] * len(contexts), contexts)
    more = batch([1] * len(contexts) + [1], [*contexts, 5])
    assert time_of(more, name)[0] >= time_of(fewer, name)[0]


@SETTINGS
@given(shape=batches, tensor=st.sampled_from([2, 4, 8]))
def test_ranks_take_less_than_one_but_not_less_than_their_share(shape: BatchShape, tensor: int) -> None:
    whole = generator().generate([shape]).latency_ns.sum()
    shared = generator(tensor=tensor).generate([shape]).latency_ns.sum()
    assert whole // tensor <= shared <= whole


def attention_ns(shape: BatchShape) -> int:
    architecture = model()
    perf = make_perf_model("roofline", PerfModelOptions(architecture, load_hardware("RTX4090")))
    trace = TraceGenerator(architecture, Mesh(), perf).generate([shape])
    return int(trace.latency_ns[0, rows_named(trace, "attention")[0]])


def test_attention_works_through_tiles_in_whole_waves() -> None:
    """32 heads and tiles of 64 queries fill the 128 units of a 4090 with 256 tokens; 257 need a second wave."""
    one, full, more, two = (attention_ns(batch([tokens], [16384])) for tokens in (2, 256, 257, 512))
    assert one > 0.9 * full
    assert more > 1.7 * full
    assert two < 1.1 * more


def test_small_tiles_do_not_wait_as_long_as_large_ones() -> None:
    alone = attention_ns(batch([256], [16384]))
    with_decodes = attention_ns(batch([256] + [1] * 64, [16384] + [1] * 64))
    assert alone < with_decodes < 1.5 * alone


def test_requests_placed_on_ranks_are_timed_one_by_one() -> None:
    trace = generator(tensor=2, attention_placement="requests").generate([batch([1, 1, 1], [100, 5000, 100])])
    first, second, third = (trace.latency_ns[0, row] for row in rows_named(trace, "attention")[:3])
    assert first == third < second


def test_a_sliding_window_bounds_attention(tmp_path: Path) -> None:
    config = '{"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 2, "num_attention_heads": 32, %s'
    rest = '"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000, "sliding_window": %s}'
    path = tmp_path / "config.json"
    flops = {}
    for window in ("null", "1024"):
        path.write_text(config % (rest % window))
        architecture = load_model(str(path))
        perf = make_perf_model("roofline", PerfModelOptions(architecture, load_hardware("A100")))
        trace = TraceGenerator(architecture, Mesh(), perf).generate([batch([1, 1500], [8192, 0])])
        flops[window] = int(trace.flops[0, rows_named(trace, "attention")[0]])
    pairs_full = 8193 + 1500 * 1501 // 2
    pairs_windowed = 1024 + sum(min(query, 1024) for query in range(1, 1501))
    assert flops == {"null": 4 * 4096 * pairs_full, "1024": 4 * 4096 * pairs_windowed}


MEASURED = Path(os.environ.get("ORRERY_SHARED", Path(__file__).parents[3] / "shared")) / "measured"


@pytest.mark.skipif(not MEASURED.is_dir(), reason="no measured profiles here (ORRERY_SHARED names their folder)")
@pytest.mark.parametrize(
    ("case", "hardware", "limits"),
    [
        ("RTX4090__Llama-3.1-8B", "RTX4090", {"GEMM": 0.05, "ATTENTION": 0.16, "ELEMENTWISE": 0.20}),
        ("RTXPRO6000__Llama-3.1-8B", "RTXPRO6000", {"GEMM": 0.09, "ATTENTION": 0.16, "ELEMENTWISE": 0.25}),
        ("RTXPRO6000__Qwen3-30B-A3B-Instruct-2507", "RTXPRO6000", {"GROUPED_GEMM": 0.08}),
    ],
)
def test_near_measured_kernels(case: str, hardware: str, limits: dict[str, float]) -> None:
    """Mean absolute logarithmic error by class; the documentation states the figures."""
    from benchmarks.roofline_accuracy import kernel_errors

    errors = kernel_errors(MEASURED / case / "input", load_hardware(hardware), 1, sample=1500)
    for name, limit in limits.items():
        assert np.abs(errors[OperatorClass[name]]).mean() < limit
