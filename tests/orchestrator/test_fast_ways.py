"""Whatever is run, the fast ways (tables, compiled loops, requests as columns) leave what the exact one does.

The exact one traces and simulates every iteration, step by step, of engines of objects.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from orchestrator import RunSpec, Simulation
from orchestrator.engine.compiled import covering
from orchestrator.result import RunResult
from tests.helpers.reached import Reached, reaches
from tests.helpers.small_mixture import small_mixture

EXACT = {"pricing": "traced", "exact_steps": True, "compiled_engines": "never"}
LOOPS, TABLES = "engines_in_compiled_loops", "iterations_by_tables"

POLICIES = st.sampled_from(
    [
        {},
        {"async_scheduling": False},
        {"vllm_version": "0.33"},
        {"policy": "priority"},
        *({"scheduling": name} for name in ("orca", "sarathi", "sglang", "static", "vllm-v0")),
    ]
)
LAYOUTS = st.sampled_from(
    [
        {},
        {"npu_num": 2},
        {"npu_num": 2, "npu_group": 2},
        {"npu_num": 4, "npu_group": 2},
        {"instances": 3, "router": "least-outstanding"},
        {"instances": 2, "router": "prefix-aware"},
    ]
)
TRAFFIC = st.fixed_dictionaries(
    {
        "request_rate": st.sampled_from([5.0, 80.0, float("inf")]),
        "random_input_len": st.sampled_from([20, 150, 700]),
        "random_output_len": st.sampled_from([1, 12, 40]),
        "prefix_len": st.sampled_from([0, 40, 160]),
        "seed": st.integers(0, 10**4),
    }
)
PRESSURE = st.sampled_from([{}, {}, {"num_gpu_blocks_override": 150}])


def both(given: dict[str, Any]) -> tuple[RunResult, RunResult]:
    """Run the fast ways, short as the run is, and the exact one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(covering, "LEAST_REQUESTS", 1)
        patch.setattr(covering, "LEAST_UNCOMPILED", 1)
        fast = Simulation(RunSpec.of(**given)).run()
    return fast, Simulation(RunSpec.of(**{**given, **EXACT})).run()


def assert_same(fast: RunResult, exact: RunResult) -> None:
    assert fast.summary.as_json() == exact.summary.as_json()
    assert fast.columns.keys() == exact.columns.keys()
    for name, values in exact.columns.items():
        np.testing.assert_array_equal(fast.columns[name], values)
    assert fast.intervals == exact.intervals
    assert fast.time == exact.time
    assert exact.backend.get(LOOPS, 0) == exact.backend.get(TABLES, 0) == 0


@reaches(0.25, examples=30, policy=POLICIES, layout=LAYOUTS, traffic=TRAFFIC, pressure=PRESSURE)
def test_one_kind_of_engine(
    reached: Reached, policy: dict[str, Any], layout: dict[str, Any], traffic: dict[str, Any], pressure: dict[str, Any]
) -> None:
    """Policies, pipelines, several instances, shared prefixes, too few blocks; loops run wherever they can."""
    plain = {"model_name": "gpt2", "hardware": "H100", "scheduling": "vllm", "req_num": 10}
    if policy.get("scheduling", "vllm") == "vllm":
        policy = {**pressure, **policy}
    given = {**plain, **traffic, **layout, **policy}
    if given["scheduling"] == "static":
        given.pop("prefix_len")
    fast, exact = both(given)
    assert_same(fast, exact)
    if fast.backend.get(LOOPS, 0) and exact.summary.finished_requests == 10:
        reached()


@reaches(0.9, examples=8, traffic=TRAFFIC, kv_transfer=st.sampled_from(["whole", "layerwise"]))
def test_engines_that_hand_requests_over(reached: Reached, traffic: dict[str, Any], kv_transfer: str) -> None:
    pair = [{"role": "prefill"}, {"role": "decode", "instances": 2}]
    given = {"model_name": "gpt2", "hardware": "H100", "scheduling": "vllm", "req_num": 12, "engines": pair}
    fast, exact = both({**given, **traffic, "kv_transfer": kv_transfer})
    assert_same(fast, exact)
    if exact.summary.transfers is not None:
        reached()


def test_waves(tmp_path: Path) -> None:
    """Data-parallel engines of a mixture of experts, with tensor parallelism and without."""
    model, dataset = small_mixture(tmp_path)

    @reaches(0.9, examples=6, seed=st.integers(0, 99), tensor=st.integers(1, 2), data=st.integers(2, 3))
    def runs(reached: Reached, seed: int, tensor: int, data: int) -> None:
        given = {"model_name": model, "hardware": "H100", "dataset": dataset, "scheduling": "vllm", "seed": seed}
        layout = {"data_parallel_size": data, "npu_num": tensor, "enable_expert_parallel": True}
        fast, exact = both({**given, **layout})
        assert_same(fast, exact)
        if Counter(fast.columns["engine"].tolist()):
            reached()

    runs()
