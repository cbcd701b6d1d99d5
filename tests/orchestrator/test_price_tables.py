"""Pricing by tables is the traced way to the nanosecond: random batches over models, devices, parallelism, networks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers.small_profile import add_skew, bundle, small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import SimulationError, UserError
from orchestrator.deploying import Deploying
from orchestrator.engine.batch import Batch
from orchestrator.pricing.compiled.pricing import CompiledPricing
from orchestrator.pricing.traced import TracedPricing
from orchestrator.requests.request import Request
from orchestrator.settings.specification import RunSpec
from orchestrator.simulation import Simulation
from orchestrator.stopwatch import Stopwatch
from trace_gen.batch_shape import KVTransfer
from trace_gen.sized_columns import CountedSizes, SizedColumns

LLAMA, MIXTRAL, DEEPSEEK = "meta-llama/Llama-3.1-8B", "mistralai/Mixtral-8x7B-v0.1", "deepseek-ai/DeepSeek-V2-Lite"
COVERED: dict[str, dict[str, object]] = {
    "one rank": {"model_name": LLAMA, "hardware": "H100"},
    "padded to graphs": {"model_name": LLAMA, "hardware": "H100", "cudagraph_capture_sizes": "1,2,4,16,64"},
    "tensor": {"model_name": LLAMA, "hardware": "A100", "npu_num": 8},
    "sequence": {"model_name": LLAMA, "hardware": "H100", "npu_num": 2, "sequence_parallel": True},
    "stages": {"model_name": "gpt2", "hardware": "RTX4090", "npu_num": 3, "npu_group": 3},
    "both": {"model_name": LLAMA, "hardware": "H100", "npu_num": 16, "npu_group": 4},
    "slow links": {"model_name": "gpt2", "npu_num": 4, "npu_group": 2, "link_bw": 3, "link_latency": 1700},
    "mixture": {"model_name": MIXTRAL, "hardware": "H100", "npu_num": 4},
    "experts on ranks": {"model_name": MIXTRAL, "hardware": "H100", "npu_num": 4, "ep_size": 4},
    "routed alike at every step": {
        "model_name": MIXTRAL,
        "hardware": "H100",
        "npu_num": 4,
        "ep_size": 4,
        "expert_routing": "round_robin",
    },
    "latent": {"model_name": DEEPSEEK, "hardware": "H100", "npu_num": 2},
    "windows": {"model_name": "openai/gpt-oss-20b", "hardware": "H100", "npu_num": 2, "npu_group": 2},
}
UNCOVERED: dict[str, tuple[dict[str, object], str]] = {
    "requests": ({"model_name": "gpt2", "npu_num": 2, "attention_placement": "requests"}, "request by request"),
    "streamed": ({"model_name": "gpt2", "cpu_offload_gb": 0.1}, "streamed"),
    "backend": ({"model_name": "gpt2", "perf_model": "backend"}, "the backend decides"),
    "divided": ({"model_name": LLAMA, "hardware": "H100", "npu_num": 4, "cp_size": 2}, "divide sequences"),
    "chosen anew": (
        {"model_name": MIXTRAL, "hardware": "H100", "npu_num": 4, "ep_size": 4, "expert_routing": "random"},
        "every step",
    ),
}


@cache
def priced(name: str) -> CompiledPricing:
    """Return the pricing of one of `COVERED`; its backend is the embedded one, which has nothing to close."""
    return pricing_of(**COVERED[name])


def pricing_of(**values: object) -> CompiledPricing:
    spec = RunSpec.of(**{"scheduling": "vllm", **values})
    device = Deploying(spec).deploy(spec.engine).prices(ExitStack(), Stopwatch()).device
    assert isinstance(device, CompiledPricing)
    return device


@st.composite
def batches(draw: st.DrawFn, most: int = 600) -> Batch:
    """Prompts, chunks of prompts, decodes, or all of them; decodes alone for several steps, or with padding."""
    count = draw(st.integers(1, 9))
    rows = {"min_size": count, "max_size": count}
    context = draw(st.lists(st.integers(0, 3000), **rows))
    if draw(st.booleans()):
        new = draw(st.lists(st.one_of(st.just(1), st.integers(1, most)), **rows))
        samples = draw(st.lists(st.integers(0, 1), **rows))
        return Batch.of(3, _requests(count), new, context, samples)
    batch = Batch.of(3, _requests(count), [1] * count, context, [1] * count)
    batch.steps, batch.padding = draw(st.integers(1, 5)), draw(st.integers(0, 3))
    return batch


def _requests(count: int) -> list[Request]:
    return [Request(index, 0, 4000, 10) for index in range(count)]


def check(pricing: CompiledPricing, batch: Batch) -> None:
    """Price `batch` both ways, by tables for certain."""
    own, truth = pricing.tables.cost(batch), pricing.traced.price([batch])
    assert own is not None, pricing.tables.unfit
    np.testing.assert_array_equal(own.finish_ns, truth.finish_ns)
    np.testing.assert_array_equal(own.busy_ns, truth.busy_ns)


@pytest.mark.parametrize("name", COVERED)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(batch=batches())
def test_tables_are_the_traced_way_to_the_nanosecond(name: str, batch: Batch) -> None:
    check(priced(name), batch)


def test_a_users_network_is_covered(tmp_path: Path) -> None:
    network = tmp_path / "network.yml"
    network.write_text(
        "topology: [Ring, Switch]\nnpus_count: [2, 4]\nbandwidth: [30.0, 7.0]\nlatency: [300.0, 1100.0]\n"
    )
    pricing = pricing_of(model_name="gpt2", npu_num=8, npu_group=2, network=str(network))
    for new in ([1, 1, 1], [1, 300, 7], [513]):
        check(pricing, Batch.of(0, _requests(len(new)), new, [9] * len(new), [1] * len(new)))


@pytest.mark.parametrize("npus", [1, 2])
def test_measured_times_are_covered_and_lookups_are_counted_as_before(tmp_path: Path, npus: int) -> None:
    folder = bundle(tmp_path / "profile", degrees=(npus,))
    if npus == 1:
        add_skew(folder, 0.004, 0.002)
    given = {"model_name": small_model(tmp_path), "hardware": "RTX4090", "profile_dir": str(folder), "npu_num": npus}
    by_tables, by_traces = pricing_of(**given), pricing_of(**given)
    rows = [([1] * n, [1] * n) for n in (3, 3, 8, 17)] + [([20, 1, 1], [1, 1, 1]), ([700], [0]), ([1, 1, 1], [1, 1, 1])]
    for new, samples in rows:
        batch = Batch.of(0, _requests(len(new)), new, list(range(len(new))), samples)
        own, truth = by_tables.price([batch]), by_traces.traced.price([batch])
        np.testing.assert_array_equal(own.finish_ns, truth.finish_ns)
        np.testing.assert_array_equal(own.busy_ns, truth.busy_ns)
    assert (by_tables.by_tables, by_tables.by_traces) == (len(rows), 0)
    assert lookups(by_tables) == lookups(by_traces) != {}


def lookups(pricing: CompiledPricing) -> dict[str, object]:
    return {name: str(counts) for name, counts in pricing.tables.generator.perf_model.lookups.counts().items()}


@pytest.mark.parametrize("name", UNCOVERED)
def test_what_is_no_sum_is_traced_and_counted(name: str) -> None:
    values, reason = UNCOVERED[name]
    pricing = pricing_of(**values)
    assert reason in str(pricing.tables.unfit)
    batch = Batch.of(0, _requests(2), [5, 1], [0, 40], [1, 1])
    np.testing.assert_array_equal(pricing.price([batch]).finish_ns, pricing.traced.price([batch]).finish_ns)
    assert (pricing.by_tables, pricing.by_traces) == (0, 1)


def test_batches_that_move_kv_blocks_are_traced() -> None:
    pricing = pricing_of(model_name="gpt2")
    plain = Batch.of(0, _requests(2), [5, 1], [0, 40], [1, 1])
    moving = Batch.of(1, _requests(2), [5, 1], [0, 40], [1, 1], kv_loads=(KVTransfer(1, 2, 32, 10**9),))
    assert pricing.price([moving]).finish_ns[0, 0, 0] > pricing.price([plain]).finish_ns[0, 0, 0]
    assert (pricing.by_tables, pricing.by_traces) == (1, 1)


def test_tables_that_are_wrong_are_found_out_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = SizedColumns.sizes

    def slower(self: SizedColumns, values: Sequence[int]) -> CountedSizes:
        sizes = right(self, values)
        return replace(sizes, latency_ns=sizes.latency_ns + (sizes.latency_ns > 0))

    monkeypatch.setattr(SizedColumns, "sizes", slower)
    pricing = pricing_of(model_name="gpt2")
    batch = Batch.of(0, _requests(2), [5, 1], [0, 40], [1, 1])
    for _ in range(2):
        np.testing.assert_array_equal(pricing.price([batch]).finish_ns, pricing.traced.price([batch]).finish_ns)
    assert (pricing.by_tables, pricing.by_traces) == (0, 2)
    assert "8 tokens" in str(pricing.tables.reason)
    with pytest.raises(SimulationError, match="8 tokens"):
        pricing.tables.fill(8, 2)


def test_a_loop_finds_what_it_needs_in_the_arrays() -> None:
    pricing = pricing_of(model_name=LLAMA, hardware="H100", npu_num=4, npu_group=2, cudagraph_capture_sizes="1,8,64")
    tables = pricing.tables
    shapes = pricing.tables.generator.attention_shapes()
    assert [(part.shape, part.layers.tolist()) for part in tables.layers] == [
        (shape, layers.tolist()) for shape, layers in shapes.items()
    ]
    assert tables.padded[[0, 1, 2, 8, 9, 64, 65]].tolist() == [0, 1, 8, 8, 64, 64, 65]
    assert tables.samples_ns[0].tolist() == [0, 0]
    for tokens, samples in ((3, 3), (200, 4), (5000, 0)):
        tables.fill(int(tables.padded[tokens]) if tokens < len(tables.padded) else tokens, samples)
        new = [1] * max(samples, 1)
        new[-1] = tokens - len(new) + 1
        cost = pricing.traced.price(
            [Batch.of(0, _requests(len(new)), new, [7] * len(new), [min(samples, 1)] * len(new))]
        )
        own = tables.tokens_ns[tables.padded[tokens]] + tables.samples_ns[samples]
        busy = tables.tokens_busy[tables.padded[tokens]] + tables.samples_busy[samples]
        attending = cost.busy_ns[0, 0, tables.attention_class]
        assert own.sum() + attending == cost.finish_ns[0, 0, -1]
        assert (np.delete(cost.busy_ns[0, 0] - busy, tables.attention_class) == 0).all()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"exact_steps": True}, "exact_steps"),
        ({"interface": "text"}, "interface"),
        ({"trace_dir": "traces"}, "trace_dir"),
        ({"cross_check": "embedded"}, "cross_check"),
    ],
)
def test_who_wants_to_see_every_iteration_has_no_tables(values: dict[str, object], field: str) -> None:
    with pytest.raises(UserError, match=field):
        RunSpec.of(model_name="gpt2", pricing="compiled", **values)
    for asked in ("traced", None):
        spec = RunSpec.of(model_name="gpt2", pricing=asked, **values)
        with ExitStack() as stack:
            device = Deploying(spec).deploy(spec.engine).prices(stack, Stopwatch()).device
        assert isinstance(device, TracedPricing)
        assert device.max_steps == (512 if field == "cross_check" else 1)


RUNS: dict[str, dict[str, object]] = {
    "vllm": {"scheduling": "vllm", "npu_num": 2, "npu_group": 2},
    "evicting": {"scheduling": "orca", "kv_manage": "vllm", "npu_mem": 0.36},
    "host and jitter": {"scheduling": "vllm", "host_step_us": 300, "launch_us": 9, "jitter_steps": 3},
    "guessing": {
        "scheduling": "vllm",
        "speculative_method": "draft_model",
        "speculative_model": "gpt2",
        "num_speculative_tokens": 2,
        "acceptance_rate": 0.6,
    },
    "several": {"scheduling": "vllm", "instances": 2, "npu_num": 2},
    "rows that are done": {"scheduling": "static"},
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_are_the_same_whatever_way_iterations_are_priced(name: str) -> None:
    given = {"model_name": "gpt2", "req_num": 12, "request_rate": 60, **RUNS[name]}
    ways = ({}, {"pricing": "compiled"}, {"pricing": "traced"}, {"exact_steps": True})
    results = [Simulation(RunSpec.of(**given, **way)).run() for way in ways]
    first, *others = results
    for other in others:
        assert other.summary.as_json() == first.summary.as_json()
        for column, values in first.columns.items():
            np.testing.assert_array_equal(values, other.columns[column])
    priced = [result.backend for result in results]
    assert priced[2] == priced[3] == {}
    assert priced[0] == priced[1]
    assert (name == "evicting") == bool(priced[0])
