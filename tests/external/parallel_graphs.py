"""Graphs of every parallelism, small: experts over data-parallel members, context parallelism, norms by token, and two
sub-batches that overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from converters.execution_graph import ExecutionGraph
from converters.lowering import lower
from trace_gen.architecture import Layer, LayerRun, ModelArchitecture, NormKind
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.batch_shape import BatchShape, dummy_batch
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.experts import Experts
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.trace import RowWork, Trace

ATTENTION = GroupedAttention(8, 4, 64)
DENSE = Layer(ATTENTION, DenseMlp(1024))
SPARSE = Layer(ATTENTION, Experts(16, 2, 256, 512))
NOT_ROWS = {"op_names", "devices", "rank_sets", "groups", "group_parts", "batch_requests", "work", "attributes"}


def batch(new: list[int], context: list[int], first: int = 0) -> BatchShape:
    count = len(new)
    ids = np.arange(first, first + count)
    return BatchShape(ids, np.array(new), np.array(context), np.ones(count, dtype=np.int64))


MIXED = batch([900, 1, 1, 1], [60, 300, 7, 1000])


def trace_of(layer: Layer, mesh: Mesh, *wave: BatchShape, **options: Any) -> Trace:
    model = ModelArchitecture("small", "small", 512, (LayerRun(layer, 4),), 2048, 8192, NormKind.RMS, False)
    latencies = make_perf_model("roofline", PerfModelOptions(model, load_hardware("H100"), mesh.tensor))
    return TraceGenerator(model, mesh, latencies, **options).generate(wave)


def members() -> tuple[BatchShape, ...]:
    return MIXED, batch([1] * 9, list(range(50, 500, 50)), 100)


def sub_batched() -> Trace:
    """Two batches of one model on TP 4, row beside row: each waits for its own rows alone."""
    first, second = (trace_of(DENSE, Mesh(4), shape) for shape in members())
    order = np.argsort(np.append(np.arange(first.rows), np.arange(second.rows)), kind="stable")
    columns = {
        field.name: np.concatenate([getattr(first, field.name), getattr(second, field.name)])[order]
        for field in fields(Trace)
        if field.name not in NOT_ROWS and not field.name.startswith("dep_")
    }
    columns["sub_batch"] = np.repeat(np.array([0, 1], dtype=np.int32), [first.rows, second.rows])[order]
    work = RowWork.by_row(
        *(
            np.concatenate([getattr(first, name), getattr(second, name)], axis=1)[:, order]
            for name in ("latency_ns", "flops", "mem_bytes")
        )
    )
    waits = np.zeros(first.rows + second.rows + 1, dtype=np.int64)
    listed = np.concatenate([first.batch_requests, second.batch_requests])
    return replace(first, **columns, work=work, dep_offsets=waits, batch_requests=listed)


TRACES: dict[str, tuple[Callable[[], Trace], tuple[int, ...]]] = {
    "experts over members": (lambda: trace_of(SPARSE, Mesh(2, expert=4, data=2), *members()), (2, 2)),
    "experts over members, gathered": (
        lambda: trace_of(SPARSE, Mesh(1, 2, 2, 2), *members(), expert_exchange="allgather"),
        (2, 2),
    ),
    "a member that makes a dummy pass": (
        lambda: trace_of(SPARSE, Mesh(2, expert=4, data=2), MIXED, dummy_batch()),
        (2, 2),
    ),
    "a dummy pass through stages, gathered": (
        lambda: trace_of(SPARSE, Mesh(2, 2, 6, 3), dummy_batch(), members()[1], MIXED, expert_exchange="allgather"),
        (2, 3, 2),
    ),
    "nothing but dummies": (lambda: trace_of(SPARSE, Mesh(1, 1, 2, 2), dummy_batch(), dummy_batch()), (2,)),
    "experts over context-parallel ranks": (lambda: trace_of(SPARSE, Mesh(2, expert=4, context=2), MIXED), (2, 2)),
    "a ring": (lambda: trace_of(DENSE, Mesh(2, 2, context=4), MIXED), (2, 4, 2)),
    "a ring of all ranks": (lambda: trace_of(DENSE, Mesh(context=4), MIXED), (4,)),
    "keys and values gathered": (
        lambda: trace_of(DENSE, Mesh(2, context=3), MIXED, context_mode="allgather"),
        (2, 3),
    ),
    "decodes of divided sequences": (lambda: trace_of(DENSE, Mesh(2, 2, context=2), members()[1]), (2, 2, 2)),
    "norms by token": (lambda: trace_of(DENSE, Mesh(4, 2), MIXED, sequence_parallel=True), (4, 2)),
    "stages of one and three layers": (lambda: trace_of(DENSE, Mesh(2, 2, layers=(1, 3)), MIXED), (2, 2)),
    "two sub-batches": (sub_batched, (4,)),
}


def graph(name: str, *, dimensions: bool) -> tuple[ExecutionGraph, tuple[int, ...]]:
    """Return a graph and its network's dimensions; collectives name these, or communicator groups."""
    make, sizes = TRACES[name]
    return lower(make(), network_dims=sizes if dimensions else None), sizes
