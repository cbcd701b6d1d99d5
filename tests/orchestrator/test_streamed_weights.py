"""Weights in host memory: which ones, what room they leave, and what it costs to load them in every iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.reached import Reached, reaches
from hypothesis import strategies as st

from orchestrator import RunSpec, Simulation
from orchestrator.deploying import Deploying
from orchestrator.deployment import Deployment
from orchestrator.engine.batch import Batch
from orchestrator.pricing.classes import MEMORY, STREAMING
from orchestrator.requests.request import Request
from orchestrator.stopwatch import Stopwatch
from trace_gen.trace import Location, Trace

GIB = 2**30
HOST_GB_S = 50


def deployed(**values: Any) -> Deployment:
    given = {"model_name": "openai-community/gpt2", "remote_bw": HOST_GB_S, **values}
    spec = RunSpec.of(**given)
    return Deploying(spec).deploy(spec.engine)


def trace_of(built: Deployment, tokens: int = 30) -> Trace:
    return built.generator.generate([batch(tokens).shape()])


def batch(tokens: int) -> Batch:
    return Batch.of(0, [Request(0, 0, tokens, 5)], [tokens], [0], [1])


def away(trace: Trace, stage: int) -> np.ndarray:
    return np.flatnonzero((trace.weight_loc != Location.LOCAL) & (trace.stage == stage))


def finish_ns(built: Deployment, tokens: int) -> int:
    from contextlib import ExitStack

    with ExitStack() as stack:
        (engine,) = built.start(stack, Stopwatch()).engines
        return int(engine._pricing.price([batch(tokens)]).finish_ns[0, 0, -1])


def test_the_first_layers_go_until_the_bytes_are_reached() -> None:
    """GPT-2: a layer has 12 x 768^2 + 13 x 768 numbers of 2 bytes, 14,175,744; 0.02 GiB reach into the second."""
    built = deployed(cpu_offload_gb=0.02)
    trace = trace_of(built)
    rows = away(trace, 0)
    assert set(trace.layer[rows].tolist()) == {0, 1}
    first = trace.layer[rows] == 0
    assert int(trace.weight_bytes[rows][first].sum()) == 14_175_744
    bytes_away = int(trace.weight_bytes[rows].sum())
    last = int(trace.weight_bytes[rows[-1]])
    assert bytes_away - last < 0.02 * GIB <= bytes_away == built.generator.streamed.bytes_of(0)
    assert [trace.name(int(row)) for row in rows] == [
        trace.name(int(row)) for row in np.flatnonzero((trace.weight_bytes > 0) & (trace.layer >= 0))[: len(rows)]
    ]


def test_embedding_and_head_stay_however_much_may_go() -> None:
    trace = trace_of(deployed(cpu_offload_gb=1000))
    far = trace.weight_loc != Location.LOCAL
    assert (far == ((trace.layer >= 0) & (trace.weight_bytes > 0))).all()
    assert (trace.weight_bytes[trace.layer < 0] > 0).any()


def test_each_stage_and_each_rank_give_up_their_own() -> None:
    built = deployed(cpu_offload_gb=0.02, npu_num=4, npu_group=2)
    trace = trace_of(built)
    for stage, first in ((0, 0), (1, 6)):
        rows = away(trace, stage)
        assert int(trace.weight_bytes[rows].sum()) == built.generator.streamed.bytes_of(stage)
        assert sorted(set(trace.layer[rows].tolist())) == [first, first + 1, first + 2, first + 3]


@pytest.mark.parametrize("policy", ["orca", "vllm"])
def test_what_is_away_is_room_for_kv_blocks(policy: str) -> None:
    plain, streaming = (deployed(cpu_offload_gb=size, scheduling=policy) for size in (0, 0.05))
    gained = streaming.generator.streamed.bytes_of(0)
    assert plain.weight_bytes - streaming.weight_bytes == gained > 0
    more = streaming.space.total_blocks - plain.space.total_blocks
    assert more * plain.space.block_bytes <= gained + plain.space.block_bytes
    assert (more + 1) * plain.space.block_bytes > gained


def test_a_model_that_fits_no_device_runs_at_the_speed_of_the_host() -> None:
    """70B in 16 bits on one H100: 80 GiB come over a link of 50 GB/s for every token, 1.718 s; little else counts."""
    rows = RunSpec.of(
        model_name="meta-llama/Llama-3.1-70B-Instruct",
        hardware="H100",
        scheduling="vllm",
        cpu_offload_gb=80,
        remote_bw=HOST_GB_S,
        req_num=1,
    )
    summary = Simulation(rows).run().summary
    assert summary.tpot_ms is not None
    assert 1718 < summary.tpot_ms["p50"] < 1800
    assert summary.simulated_time_s[STREAMING] > 0.95 * summary.makespan_s * 1718 / 1800
    assert summary.simulated_time_s[MEMORY] == 0


def test_every_load_costs_its_bytes_over_the_link() -> None:
    """On one NPU loads hide behind nothing: an iteration takes longer by the loads, each with its latency of 0 ns."""

    @reaches(0.9, examples=12, size=st.floats(0.001, 0.3), tokens=st.integers(1, 300))
    def compare(reached: Reached, size: float, tokens: int) -> None:
        plain, streaming = deployed(), deployed(cpu_offload_gb=size)
        trace = trace_of(streaming, tokens)
        loads = trace.weight_bytes[away(trace, 0)]
        spent = finish_ns(streaming, tokens) - finish_ns(plain, tokens)
        assert abs(spent - int(loads.sum()) / HOST_GB_S) <= 2 * len(loads)
        reached()

    compare()
