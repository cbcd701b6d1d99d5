"""Like iterations worked out at once are the iterations one by one, whatever the policy and whatever intervenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from orchestrator.engine.batch import Batch
from orchestrator.kv_memory.groups import FULL, LayerGroup
from orchestrator.pricing.interface import Cost
from orchestrator.requests.request import Request
from tests.helpers.reached import Reached, reaches
from tests.orchestrator.serving import FormulaPricing, Run, scheduler

WINDOW = LayerGroup(7)
BLOCKS = st.integers(26, 60)
INTERVALS = st.sampled_from([700, 5_000, 10**9])
SMALL_CHUNKS = {"enable_chunked_prefill": True, "max_num_batched_tokens": 12, "max_num_seqs": 6}
POLICIES: list[tuple[str, dict[str, Any]]] = [
    ("orca", {}),
    ("orca", {"max_batch": 3}),
    ("orca", {"pipeline": 3}),
    ("orca", {"pipeline": 2, "max_batch": 2}),
    ("orca", {"kv_manage": "pow2"}),
    ("orca", {"gen": True}),
    ("orca", {"groups": (WINDOW,)}),
    ("none", {"max_batch": 4, "batch_delay": 3000}),
    ("none", {"pipeline": 2, "max_batch": 2}),
    ("orca", {"queue_order": "sjf", "max_batch": 3}),
    ("none", {"queue_order": "priority", "max_batch": 2, "batch_delay": 3000}),
    ("static", {"max_batch": 4, "batch_delay": 3000}),
    ("static", {"pipeline": 2, "max_batch": 2, "queue_order": "shortest-output"}),
    ("static", {"groups": (WINDOW, FULL), "gen": True}),
    ("continuous", {}),
    ("continuous", {"max_batch": 3, "queue_order": "priority"}),
    ("continuous", {"pipeline": 2}),
    ("continuous", {"groups": (WINDOW,)}),
    ("mixed-continuous", {"max_batch": 3}),
    ("chunked-mixed-continuous", {"prefill_chunk": 5}),
    ("chunked-mixed-continuous", {"prefill_chunk": 1, "max_batch": 4}),
    ("chunked-mixed-continuous", {"prefill_chunk": 7, "pipeline": 3}),
    ("chunked-mixed-continuous", {"prefill_chunk": 9, "groups": (WINDOW,), "queue_order": "ljf"}),
    ("chunked-mixed-continuous", {"gen": True, "kv_manage": "oracle"}),
    ("lightllm", {"max_waiting_iters": 3}),
    ("lightllm", {"max_waiting_iters": 0, "running_max_req_size": 3}),
    ("lightllm", {"batch_max_tokens": 30, "queue_order": "sjf", "pipeline": 2}),
    ("lightllm", {"groups": (WINDOW, FULL)}),
    ("vllm", {"async_scheduling": False, "max_num_batched_tokens": 256}),
    ("vllm", {"async_scheduling": False, "enable_prefix_caching": False}),
    ("vllm", {"async_scheduling": True, "max_num_batched_tokens": 256}),
    ("vllm", {"async_scheduling": True, "groups": (WINDOW, FULL)}),
    ("vllm", {"async_scheduling": True, "vllm_version": "0.33", "groups": (WINDOW,)}),
    ("vllm", {"async_scheduling": False, "max_num_batched_tokens": 5, "max_num_seqs": 4}),
    ("vllm", {"pipeline": 2, "async_scheduling": False}),
    ("vllm", {"pipeline": 3, "async_scheduling": False, "policy": "priority"}),
    ("vllm", {"pipeline": 2}),
    ("vllm", {"pipeline": 3, "enable_prefix_caching": False}),
    ("vllm", {"pipeline": 2, "vllm_version": "0.33"}),
    ("sglang", {}),
    ("sglang", {"disable_overlap_schedule": True, "chunked_prefill_size": 8, "enable_mixed_chunk": True}),
    ("sglang", {"schedule_policy": "lpm", "schedule_conservativeness": 0.05, "groups": (WINDOW, FULL)}),
    ("sglang", {"pipeline": 3, "max_running_requests": 9}),
    ("vllm-v0", {}),
    ("vllm-v0", {"max_num_seqs": 3, "watermark": 0.1}),
    ("vllm-v0", {"preemption_mode": "swap", "watermark": 0.05}),
    ("vllm-v0", {"enable_prefix_caching": True}),
    ("vllm-v0", {"groups": (WINDOW,), "preemption_mode": "swap"}),
    ("vllm-v0", {"pipeline": 2}),
    ("vllm-v0", {"pipeline": 3, "preemption_mode": "swap", "max_num_seqs": 2}),
    ("vllm-v0", {"enable_chunked_prefill": True, "max_num_batched_tokens": 8, "max_num_seqs": 8}),
    ("vllm-v0", {**SMALL_CHUNKS, "preemption_mode": "swap", "watermark": 0.05}),
    ("vllm-v0", {**SMALL_CHUNKS, "enable_prefix_caching": True}),
    ("vllm-v0", {**SMALL_CHUNKS, "pipeline": 2}),
    ("sarathi", {}),
    ("sarathi", {"chunk_size": 7, "max_num_seqs": 4, "watermark": 0.1}),
    ("sarathi", {"chunk_size": 3}),
    ("sarathi", {"chunk_size": 9, "groups": (WINDOW, FULL)}),
    ("sarathi", {"chunk_size": 9, "pipeline": 2}),
    ("sarathi", {"pipeline": 3, "max_num_seqs": 5}),
]


@st.composite
def workloads(draw: st.DrawFn, busy: bool = False) -> list[Request]:
    """Up to a dozen requests that fit alone; some end before what their client allowed, some clients go away.

    `busy`: half a dozen at least, all within a few steps.
    """
    latest, fewest = (4_000, 6) if busy else (60_000, 1)
    rows = draw(
        st.lists(
            st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, latest), st.integers(0, 3)),
            min_size=fewest,
            max_size=12,
        )
    )
    made = []
    for prompt, output, arrival, kind in sorted(rows, key=lambda row: row[2]):
        request = Request(len(made), arrival, prompt, output, name=str(len(made)), priority=kind)
        if kind == 1:
            request.abort_ns = arrival + draw(st.integers(0, 40_000))
        if kind == 2:
            request.max_tokens = output + draw(st.integers(1, 20))
        made.append(request)
    return made


def again(rows: list[Request]) -> list[Request]:
    return [
        Request(
            r.id, r.arrival_ns, r.prompt_tokens, r.output_tokens, r.name, r.priority,
            max_tokens=r.max_tokens, abort_ns=r.abort_ns,
        )
        for r in rows
    ]  # fmt: skip


@pytest.mark.parametrize(("policy", "options"), POLICIES)
def test_stretches_change_nothing(policy: str, options: dict[str, Any]) -> None:
    # Windows of 0.33, and requests that wait their turn in its pipelines, are told step by step.
    foreseen = 0.0 if options.get("vllm_version") == "0.33" else 0.4

    @reaches(foreseen, examples=40, rows=workloads(), blocks=BLOCKS, interval=INTERVALS)
    def compare(reached: Reached, rows: list[Request], blocks: int, interval: int) -> None:
        groups = len(options.get("groups", (FULL,)))
        parts = options.get("pipeline", 1) if policy == "vllm-v0" else 1
        single, few, many = (
            Run(
                scheduler(policy, blocks * groups * parts, **options),
                again(rows),
                stages=options.get("pipeline", 1),
                max_steps=steps,
                interval_ns=interval,
                computed=options.get("gen", False),
            )
            for steps in (1, 5, 512)
        )
        assert few.outcome() == single.outcome()
        assert many.outcome() == single.outcome()
        assert few.summary().prompt_tokens == many.summary().prompt_tokens == single.summary().prompt_tokens
        assert len(many.rows()) + len(many.aborted) == len(rows)
        left = many.engine.usage()
        assert many.engine.idle()
        assert (left.free_blocks, left.running, left.waiting) == (left.total_blocks, 0, 0)
        if len(many.batches) < len(single.batches):
            reached()

    compare()


class Uneven(FormulaPricing):
    """Stages whose times are so many times the first's; batches of many requests get slower faster."""

    def __init__(self, times: tuple[int, ...]) -> None:
        super().__init__(len(times), base=10)
        self._times = np.array(times)

    def price(self, wave: Sequence[Batch]) -> Cost:
        cost = super().price(wave)
        stage_ns = np.diff(cost.finish_ns, prepend=0) * self._times
        return Cost(stage_ns.cumsum(axis=-1), cost.busy_ns)


@pytest.mark.parametrize(
    ("policy", "options"),
    [("orca", {}), ("orca", {"max_batch": 4}), ("sarathi", {}), ("vllm-v0", {})],
)
def test_batches_of_a_pipeline_that_come_to_wait_for_each_other(policy: str, options: dict[str, Any]) -> None:
    """Where a stage is slow, two batches may have ended before the next decision, which is about both if they share
    their requests' pool."""
    rows = st.lists(
        st.tuples(st.integers(1, 8), st.integers(20, 120), st.sampled_from([0, 1, 200, 500, 900])),
        min_size=6,
        max_size=25,
    )

    @reaches(
        0.5, examples=40, rows=rows, times=st.sampled_from([(1, 1, 1), (6, 6, 1, 6), (1, 6), (2, 2, 1), (6, 1, 6)])
    )
    def compare(reached: Reached, rows: list[tuple[int, int, int]], times: tuple[int, ...]) -> None:
        arriving = sorted(rows, key=lambda row: row[2])
        single, many = (
            Run(
                scheduler(policy, 2000 * len(times), pipeline=len(times), **options),
                arriving,
                pricing=Uneven(times),
                max_steps=steps,
            )
            for steps in (1, 512)
        )
        assert many.outcome() == single.outcome()
        if len(many.batches) < len(single.batches) / 2:
            reached()

    compare()
