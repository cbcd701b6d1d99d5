"""How long a chain runs between the nodes at which it waits for others, for all steps at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analytical.chains.plan import SetPlan
from analytical.machine.compute import roofline_ns
from analytical.machine.description import Machine
from converters.execution_graph import IntArray, RankGraph

Runtimes = IntArray | NDArray[np.float64]
"""Whole ns; as doubles where that saves a conversion (they are far below 2^53)."""


@dataclass(frozen=True, slots=True)
class Stretches:
    """`total` ``[k, stops + 1]``: ns before the first stop and after each stop; `gpu` ``[k]``: ns of GPU compute."""

    total: IntArray
    gpu: IntArray


def stretch_ns(plan: SetPlan, graph: RankGraph, machine: Machine) -> Stretches | None:
    """Return the stretches of a set; None if a value is for the event queue (or wrong, for it to say so)."""
    total = np.zeros((graph.steps, len(plan.stops) + 1), dtype=np.int64)
    gpu = np.zeros(graph.steps, dtype=np.int64)
    for share, values in ((plan.compute, _compute), (plan.memory, _memory), (plan.replay, _replay)):
        if not share.rows.size:
            continue
        runtime = values(graph, share.rows, machine)
        if runtime is None or (share.leads and not runtime[:, 0].all()):
            return None  # a chain cannot begin with 0 ns
        sums = np.add.reduceat(runtime, share.begins, axis=1).astype(np.int64, copy=False)
        total[:, share.stretches] += sums
        if share.counted is None:
            gpu += sums.sum(axis=1)
        elif share.counted.size:
            gpu += runtime[:, share.counted].sum(axis=1)
    return Stretches(total, gpu)


def _compute(graph: RankGraph, rows: NDArray[np.int64], machine: Machine) -> Runtimes | None:
    operations, size = graph.num_ops[:, rows], _take(graph.tensor_size, rows)
    if size.min() < 1 or operations.min() < 1:
        return None
    return roofline_ns(operations, size, machine.system)


def _memory(graph: RankGraph, rows: NDArray[np.int64], machine: Machine) -> Runtimes | None:
    memory = machine.memory
    size = _take(graph.tensor_size, rows)
    if size.min() < 0:
        return None
    moved = (size.astype(np.float64) / float(memory.remote_mem_bw)).astype(np.int64)
    return np.broadcast_to(moved + memory.remote_mem_latency, (graph.steps, len(rows)))


def _replay(graph: RankGraph, rows: NDArray[np.int64], machine: Machine) -> Runtimes | None:
    recorded = graph.duration_us[rows]
    return np.broadcast_to(np.where(recorded > 0, recorded * 1000, 1), (graph.steps, len(rows)))


def _take(values: IntArray, rows: NDArray[np.int64]) -> IntArray:
    """Return columns of a ``[k, n]`` array; one row of them where all steps share it."""
    if values.strides[0] == 0:
        values = values[:1]
    return values[:, rows]
