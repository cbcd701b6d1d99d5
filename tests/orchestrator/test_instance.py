"""The clock: who is seen when, what runs of like iterations may not change, and how a pipeline fills."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.batch import Batch
from orchestrator.foresight import Foresight
from tests.orchestrator.serving import FormulaExecutor, Run, scheduler

ROWS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 60_000)), min_size=1, max_size=12).map(
    lambda rows: sorted(rows, key=lambda row: row[2])
)


def test_a_request_is_seen_at_the_first_step_boundary_at_or_after_its_arrival() -> None:
    # One request of 3 steps at 0: prompt 10 -> 1000 + 70 = 1070; decodes 1007 + 10 and 1007 + 11.
    run = Run(scheduler("orca", 100), [(10, 3, 0), (5, 1, 1070), (5, 1, 1071)])
    rows = run.by_id()
    assert rows[1]["queued"] == rows[1]["scheduled"] == 1070, "an arrival at the boundary is in time"
    # The second step holds one decode at context 10 and a prompt of 5: 1000 + 6 * 7 + 10.
    assert rows[1]["end"] == 1070 + 1052
    assert rows[2]["queued"] == 1070 + 1052


def test_idle_time_is_jumped_over() -> None:
    run = Run(scheduler("orca", 100), [(10, 1, 5), (10, 1, 10**15)])
    assert [row["scheduled"] for row in run.rows()] == [5, 10**15]
    assert len(run.batches) == 2


def test_completions_come_before_arrivals_before_decisions_at_one_moment() -> None:
    # Three blocks of 4: the first request holds all; the second arrives as it ends and takes its memory at once.
    run = Run(scheduler("orca", 3), [(12, 1, 0), (12, 1, 1084)])
    assert run.by_id()[1]["queued"] == run.by_id()[1]["scheduled"] == run.by_id()[0]["end"] == 1084


@pytest.mark.parametrize(
    ("policy", "options", "stages"),
    [
        ("orca", {}, 1),
        ("orca", {"max_batch": 3}, 1),
        ("orca", {"pipeline": 3}, 3),
        ("orca", {"pipeline": 2, "max_batch": 2}, 2),
        ("orca", {"kv_manage": "pow2"}, 1),
        ("orca", {"gen": True}, 1),
        ("none", {"max_batch": 4, "batch_delay": 3000}, 1),
        ("none", {"pipeline": 2, "max_batch": 2}, 2),
        ("vllm", {"async_scheduling": False, "max_num_batched_tokens": 256}, 1),
        ("vllm", {"async_scheduling": True, "max_num_batched_tokens": 256}, 1),
        ("vllm", {"pipeline": 2}, 2),
    ],
)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=ROWS, blocks=st.integers(24, 60), interval=st.sampled_from([700, 5_000, 10**9]))
def test_runs_of_like_iterations_change_nothing(
    policy: str, options: dict[str, Any], stages: int, rows: list[tuple[int, int, int]], blocks: int, interval: int
) -> None:
    single, macro = (
        Run(scheduler(policy, blocks, **options), rows, stages=stages, max_steps=steps, interval_ns=interval)
        for steps in (1, 512)
    )
    assert macro.outcome() == single.outcome()
    assert len(macro.rows()) == len(rows)
    assert macro.instance.idle()


@pytest.mark.parametrize("options", [{"pipeline": 3}, {"pipeline": 3, "max_batch": 2}, {"pipeline": 2}])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=ROWS, blocks=st.integers(20, 60))
def test_executing_ahead_changes_nothing(
    options: dict[str, Any], rows: list[tuple[int, int, int]], blocks: int
) -> None:
    stages = options["pipeline"]
    plain = Run(scheduler("orca", blocks, **options), rows, stages=stages)
    foreseen = Run(
        scheduler("orca", blocks, **options), rows, executor=Foresight(FormulaExecutor(stages), keep=2 * stages)
    )
    assert foreseen.outcome() == plain.outcome()


def test_alternating_batches_are_executed_many_iterations_at_once() -> None:
    executor = FormulaExecutor(2)
    rows = [(4, 200, 0), (4, 200, 10), (4, 200, 20), (4, 200, 30)]
    run = Run(scheduler("orca", 1000, pipeline=2, max_batch=2), rows, executor=Foresight(executor, keep=4))
    assert run.metrics.totals.iterations > 390
    assert len(executor.runs) < 40


def test_a_long_decode_is_few_batches() -> None:
    run = Run(scheduler("orca", 1000), [(10, 600, 0)], interval_ns=10**12)
    assert len(run.batches) < 15
    assert run.metrics.totals.iterations == 600


class StageTimes(FormulaExecutor):
    """The same stage times for every batch."""

    def __init__(self, times: list[int]) -> None:
        super().__init__(len(times))
        self._finish = np.cumsum(times)

    def run(self, batch: Batch) -> NDArray[np.int64]:
        return np.tile(self._finish, (batch.steps, 1))


def test_a_full_pipeline_is_paced_by_its_slowest_stage() -> None:
    # Three stages of 10, 30 and 20; single-token requests, one a batch: the n-th leaves at 60 + 30 n.
    rows = [(1, 1, 0)] * 6
    run = Run(scheduler("orca", 100, pipeline=3, max_batch=1), rows, executor=StageTimes([10, 30, 20]))
    assert [row["end"] for row in run.rows()] == [60 + 30 * n for n in range(6)]


def test_no_more_batches_than_stages_are_in_flight() -> None:
    # First stage very fast: without the limit all batches would start within 6 ns. At most 2 are in flight, so the
    # third starts when the first is done.
    run = Run(scheduler("orca", 100, pipeline=2, max_batch=1), [(1, 1, 0)] * 6, executor=StageTimes([1, 99]))
    starts = sorted(row["scheduled"] for row in run.rows())
    assert starts == [0, 1, 100, 199, 298, 397]
    assert [row["end"] for row in run.rows()] == [100 + 99 * n for n in range(6)]


def test_a_request_has_one_token_in_the_pipeline_at_a_time() -> None:
    run = Run(scheduler("orca", 100, pipeline=2), [(1, 5, 0)], executor=StageTimes([10, 10]))
    assert run.metrics.itl_lists()[0].tolist() == [20, 20, 20, 20]


def test_two_groups_of_requests_alternate_in_a_pipeline() -> None:
    # The second request arrives while the first is on stage 0: each decodes every 20 ns, offset by 10.
    run = Run(scheduler("orca", 100, pipeline=2), [(1, 5, 0), (1, 5, 3)], executor=StageTimes([10, 10]))
    assert [row["end"] for row in run.rows()] == [100, 110]
