"""What simulated time goes to: operators by class, exposed communication, moved KV blocks; nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reached import Reached, reaches
from hypothesis import strategies as st

from converters.execution_graph import IterationResult
from orchestrator import RunSpec, Simulation
from orchestrator.deploying import Deploying
from orchestrator.deployment import Deployment
from orchestrator.engine.batch import Batch
from orchestrator.pricing.classes import COMMUNICATION, COMPUTE, MEMORY, STREAMING, WorkClasses
from orchestrator.pricing.interface import Pricing
from orchestrator.requests.request import Request
from orchestrator.stopwatch import Stopwatch
from trace_gen.batch_shape import KVTransfer
from trace_gen.trace import OperatorClass, RowKind


def deployed(**values: Any) -> Deployment:
    spec = RunSpec.of(model_name="openai-community/gpt2", link_latency=300, **values)
    return Deploying(spec).deploy(spec.engine)


def pricing(built: Deployment) -> Pricing:
    from contextlib import ExitStack

    with ExitStack() as stack:
        (engine,) = built.start(stack, Stopwatch()).engines
    return engine._pricing


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    count = draw(st.integers(1, 4))
    new = draw(st.lists(st.one_of(st.just(1), st.integers(1, 200)), min_size=count, max_size=count))
    context = draw(st.lists(st.integers(0, 400), min_size=count, max_size=count))
    moved = draw(st.lists(st.integers(1, 30), max_size=2))
    transfers = tuple(KVTransfer(index, blocks, 8 * blocks, 294912 * blocks) for index, blocks in enumerate(moved))
    members = [Request(index, 0, 600, 10) for index in range(count)]
    ones = [1] * count
    return Batch.of(0, members, new, context, ones, kv_loads=transfers[:1], kv_evictions=transfers[1:])


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"npu_num": 2},
        {"npu_num": 3, "attention_placement": "requests"},
        {"npu_num": 2, "perf_model": "backend"},
        {"npu_num": 4, "npu_group": 2},
        {"npu_num": 3, "npu_group": 3},
        {"cpu_offload_gb": 0.1},
        {"cpu_offload_gb": 0.02, "npu_num": 2},
    ],
)
def test_classes_add_up_to_the_time_of_the_batch(values: dict[str, Any]) -> None:
    priced = pricing(deployed(**values))
    shared = values.get("npu_num", 1) > 1

    @reaches(0.3, examples=12, batch=batches())
    def compare(reached: Reached, batch: Batch) -> None:
        cost = priced.price([batch])
        assert cost.busy_ns.dtype == cost.finish_ns.dtype == np.int64
        finish, busy = (
            int(cost.finish_ns[0, 0, -1]),
            dict(zip(priced.classes, cost.busy_ns[0, 0].tolist(), strict=True)),
        )
        assert min(busy.values()) >= 0
        # In a pipeline a later stage may move blocks while the first computes, so that the classes hold more.
        assert sum(busy.values()) == finish or (values.get("npu_group", 1) > 1 and sum(busy.values()) > finish)
        moves = bool(batch.kv_loads or batch.kv_evictions)
        assert (busy[MEMORY] > 0) is moves and (busy[COMMUNICATION] > 0) is shared
        assert (STREAMING in busy) is ("cpu_offload_gb" in values) and busy.get(STREAMING, 1) > 0
        if moves:
            reached()

    compare()


def test_operators_are_counted_by_class() -> None:
    built = deployed()
    batch = Batch.of(0, [Request(0, 0, 50, 5), Request(1, 0, 9, 5)], [50, 1], [0, 9], [1, 1])
    trace = built.generator.generate([batch.shape()])
    busy = dict(zip(pricing(built).classes, pricing(built).price([batch]).busy_ns[0, 0].tolist(), strict=True))
    of_class = {one: int(trace.latency_ns[0, trace.operator_class == one].sum()) for one in OperatorClass}
    assert busy["matrix products"] == of_class[OperatorClass.GEMM] > 0
    assert busy["attention"] == of_class[OperatorClass.ATTENTION] > 0
    assert busy["sampling"] == of_class[OperatorClass.SAMPLER] > 0
    assert busy[COMMUNICATION] == busy[MEMORY] == 0


def test_moves_cost_what_the_batch_takes_longer_with_them() -> None:
    priced = pricing(deployed(npu_num=2))
    members, moved = [Request(0, 0, 50, 5)], (KVTransfer(7, 4, 32, 294912 * 4),)
    plain, moving = (priced.price([Batch.of(0, members, [50], [0], [1], kv_loads=loads)]) for loads in ((), moved))
    more = int(moving.finish_ns[0, 0, -1] - plain.finish_ns[0, 0, -1])
    change = dict(zip(priced.classes, (moving.busy_ns - plain.busy_ns)[0, 0].tolist(), strict=True))
    assert more > 0 and change[MEMORY] == more and change[COMMUNICATION] == 0


def test_moves_count_for_the_ranks_that_make_them() -> None:
    """Only rank 0 moves blocks: where rank 1 is the slowest, all that is not work is communication."""
    batch = Batch.of(0, [Request(0, 0, 50, 5)], [50], [0], [1], kv_loads=(KVTransfer(7, 4, 32, 294912 * 4),))
    trace = deployed(npu_num=2).generator.generate([batch.shape()])
    moves = trace.kind == RowKind.MEM_LOAD
    trace = replace(
        trace,
        rank_sets=(*trace.rank_sets, (0,)),
        rank_set=np.where(moves, len(trace.rank_sets), trace.rank_set).astype(np.int32),
    )
    classes = WorkClasses(lambda sizes: sizes // 1000, backend_decides=False)
    result = IterationResult(((0,), (1,)), np.full((1, 2), 10**9), np.zeros((1, 2), dtype=np.int64))
    moved = int((trace.input_bytes[moves] // 1000).sum())
    for slowest, spent in ((0, moved), (1, 0)):
        (busy,) = classes.busy_ns(trace, result, np.array([[slowest]]), np.full((1, 1), 10**9))[0].tolist()
        assert busy[-1] == spent and sum(busy) == 10**9 and busy[-2] > 0


def test_steps_at_once_have_the_classes_of_steps_one_by_one() -> None:
    priced = pricing(deployed(npu_num=4, npu_group=2))
    members = [Request(index, 0, 5, 50) for index in range(3)]

    def busy(context: list[int], steps: int) -> np.ndarray:
        return priced.price([replace(Batch.of(0, members, [1] * 3, context, [1] * 3), steps=steps)]).busy_ns[0]

    alone = [busy([10 + step, 300 + step, 77 + step], 1) for step in range(6)]
    assert np.array_equal(busy([10, 300, 77], 6), np.concatenate(alone))


def test_a_run_says_where_its_time_went(tmp_path: Path) -> None:
    rows = tmp_path / "rows.tsv"
    rows.write_text("100\t8\t0\n40\t15\t1000000\n7\t3\t900000000\n")
    result = Simulation(RunSpec.of(model_name="openai-community/gpt2", dataset=str(rows), npu_num=2)).run()
    parts = result.summary.simulated_time_s
    assert sum(parts.values()) == pytest.approx(result.summary.makespan_s)
    operators = ("matrix products", "attention", "elementwise", "embedding", "sampling", "other operators")
    assert tuple(parts) == (*operators, "exposed communication", "moved KV blocks", "waiting", "idle")
    assert parts["idle"] > 0.5 and parts["moved KV blocks"] == 0
    by_backend = Simulation(RunSpec.of(model_name="gpt2", dataset=str(rows), perf_model="backend")).run()
    assert by_backend.summary.simulated_time_s[COMPUTE] > 0
