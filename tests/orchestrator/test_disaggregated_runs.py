"""Whole runs with engines that hand requests over: from settings to the summary, the rows and the timeline."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import RunSpec, Simulation
from orchestrator.observers.files import ResultFiles
from orchestrator.pricing.layers import stage_layers
from orchestrator.result import RunResult
from orchestrator.settings.specification import from_flags
from orchestrator.simulation import prepare
from trace_gen.batch_shape import BatchShape

PAIR = [{"role": "prefill"}, {"role": "decode", "instances": 2}]
TOKEN_BYTES = 12 * 2 * 768 * 2
"""Of a token's KV cache: keys and values of 12 layers, 768 numbers of 2 bytes each."""
PLAIN: dict[str, Any] = {"model_name": "facebook/opt-125m", "hardware": "H100", "scheduling": "vllm", "req_num": 40}


def run(**given: Any) -> RunResult:
    return Simulation(RunSpec.of(**{**PLAIN, "engines": PAIR, **given})).run()


def test_a_run_hands_every_request_over_once() -> None:
    result = run()
    moved = result.summary.transfers
    assert moved is not None and moved.transfers == result.summary.finished_requests == 40
    assert set(result.columns["engine"].tolist()) == {1, 2}
    together = Simulation(RunSpec.of(**PLAIN)).run()
    assert result.summary.generated_tokens == together.summary.generated_tokens
    assert result.summary.prompt_tokens == together.summary.prompt_tokens + 40
    blocks = -(-result.columns["input"] // 16)
    assert moved.bytes == int(blocks.sum()) * 16 * TOKEN_BYTES


def test_layerwise_is_there_sooner() -> None:
    slow = {"transfer_bw": 0.5}
    whole, layerwise = run(**slow), run(**slow, kv_transfer="layerwise")
    assert layerwise.summary.ttft_ms is not None and whole.summary.ttft_ms is not None
    assert layerwise.summary.ttft_ms["mean"] < whole.summary.ttft_ms["mean"]
    assert layerwise.summary.transfers is not None and whole.summary.transfers is not None
    assert layerwise.summary.transfers.bytes == whole.summary.transfers.bytes


def test_a_slower_link_is_later() -> None:
    means = []
    for bandwidth in (100.0, 1.0, 0.1):
        ttft = run(transfer_bw=bandwidth).summary.ttft_ms
        assert ttft is not None
        means.append(ttft["mean"])
    assert means == sorted(means) and means[0] < means[-1]


def test_engines_of_both_roles_serve_some_alone() -> None:
    """Every second request comes to the engine that does all."""
    result = run(engines=[{"role": "prefill"}, {"role": "both"}])
    assert result.summary.transfers is not None
    assert result.summary.transfers.transfers == 20
    assert set(result.columns["engine"].tolist()) == {1}


def test_tensor_parallel_sizes_may_differ() -> None:
    """A transfer is as fast as the slower side, which has one network card a NPU."""
    pair = [{"role": "prefill", "npu_num": 4}, {"role": "decode", "npu_num": 2}]
    one = run(engines=pair, req_num=1, transfer_latency=0)
    moved = one.summary.transfers
    assert moved is not None
    assert moved.mean_ms == pytest.approx(moved.bytes / 100e9 * 1e3, abs=1e-6)


def test_its_files_say_what_was_moved_and_repeat_it(tmp_path: Path) -> None:
    spec = RunSpec.of(**PLAIN, engines=PAIR)
    first = Simulation(spec, [ResultFiles(tmp_path / "first.csv", itl=None, report=True)]).run()
    summary = json.loads((tmp_path / "first-summary.json").read_text())
    assert summary["transfers"]["transfers"] == 40
    events = json.loads((tmp_path / "first-trace.json").read_text())["traceEvents"]
    slices = [event for event in events if event.get("cat") == "KV transfer"]
    sizes = -(-first.columns["input"] // 16) * 16 * TOKEN_BYTES
    assert sorted(event["args"]["bytes"] for event in slices) == sorted(sizes.tolist())
    again = Simulation(from_flags(["--settings", str(tmp_path / "first-settings.json")])).run()
    assert again.summary == first.summary


def test_layers_are_done_one_after_the_other_and_end_before_the_sampler() -> None:
    deployed = prepare(RunSpec.of(**PLAIN, engines=PAIR)).deployments[0]
    column = np.array([64])
    shape = BatchShape(np.zeros(1, dtype=np.int64), column, column * 0, column // 64)
    (stage,) = stage_layers(deployed.generator.generate([shape], 0))
    assert len(stage.done) == 12
    assert all(first < second for first, second in pairwise((0, *stage.done, stage.total)))
    between = {second - first for first, second in pairwise(stage.done)}
    assert len(between) == 1, "layers that are alike take the same time"
