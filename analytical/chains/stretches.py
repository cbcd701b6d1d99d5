"""How long nodes run that need no other: added up to stretches between those that do, for all steps at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analytical.machine.compute import roofline_ns
from analytical.machine.description import Machine
from converters.execution_graph import IntArray, NodeType, RankGraph

Runtimes = NDArray[np.float64]
"""Whole ns as doubles, which are exact as far as they are used here and never wrap around."""

SHORT_NS = 2**43
"""A piece (stretch, collective, message) that takes longer, 2.4 hours, is for the event queue, which counts in integers
of any size: the sum of `MOST_PIECES` shorter ones stays within 64 bits."""

MOST_PIECES = 2**19


@dataclass(frozen=True, slots=True)
class Share:
    """Nodes of one kind, ordered by stretch: their rows, the stretches that there are any in, and where among the rows
    each of those begins. `first`: which of them run from t = 0 on. `counted`: which are GPU time (None: all).
    """

    rows: NDArray[np.int64]
    stretches: NDArray[np.int64]
    begins: NDArray[np.int64]
    first: NDArray[np.int64]
    counted: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Shares:
    """The nodes whose runtime comes from the roofline, the remote memory and the recorded duration."""

    compute: Share
    memory: Share
    replay: Share


@dataclass(frozen=True, slots=True)
class Stretches:
    """`total` ``[k, stretches]``: ns of each; `gpu` ``[k]``: ns of GPU compute."""

    total: IntArray
    gpu: IntArray


def share_out(
    graph: RankGraph, rows: IntArray, stretch: IntArray, first: NDArray[np.bool_], machine: Machine
) -> Shares:
    """Sort `rows` into shares; ``stretch[i]``, which never falls, is the stretch that ``rows[i]`` lies in.

    None of them communicates, but for a BROADCAST, which is only replayed. `first`: which of them wait for nothing.
    """
    kind, cpu = graph.node_type[rows], graph.is_cpu_op[rows]
    memory = (kind == NodeType.MEM_LOAD) | (kind == NodeType.MEM_STORE)
    modelled = (kind == NodeType.COMP) & ~cpu & machine.system.roofline_enabled
    gpu = (kind == NodeType.COMP) & ~cpu

    def share(chosen: NDArray[np.bool_], counted: NDArray[np.bool_] | None) -> Share:
        positions = np.flatnonzero(chosen)
        stretches, begins = np.unique(stretch[positions], return_index=True)
        own = None if counted is None else np.flatnonzero(counted[positions])
        return Share(rows[positions], stretches, begins, np.flatnonzero(first[positions]), own)

    return Shares(
        compute=share(modelled, None),
        memory=share(memory, np.zeros_like(memory)),
        replay=share(~memory & ~modelled, gpu),
    )


def stretch_ns(shares: Shares, stretches: int, graph: RankGraph, machine: Machine) -> Stretches | None:
    """Return the stretches of a set; None if a value is for the event queue (or wrong, for it to say so)."""
    total = np.zeros((graph.steps, stretches), dtype=np.int64)
    gpu = np.zeros(graph.steps, dtype=np.int64)
    for share, values in ((shares.compute, _compute), (shares.memory, _memory), (shares.replay, _replay)):
        if not share.rows.size:
            continue
        runtime = values(graph, share.rows, machine)
        if runtime is None or not runtime[:, share.first].all():
            return None  # nothing may take 0 ns at t = 0
        sums = np.add.reduceat(runtime, share.begins, axis=1)
        if sums.max() > SHORT_NS:
            return None
        sums = sums.astype(np.int64, copy=False)
        total[:, share.stretches] += sums
        if share.counted is None:
            gpu += sums.sum(axis=1)
        elif share.counted.size:
            gpu += runtime[:, share.counted].sum(axis=1).astype(np.int64, copy=False)
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
    moved = np.trunc(size.astype(np.float64) / float(memory.remote_mem_bw))
    return np.broadcast_to(moved + memory.remote_mem_latency, (graph.steps, len(rows)))


def _replay(graph: RankGraph, rows: NDArray[np.int64], machine: Machine) -> Runtimes | None:
    recorded = graph.duration_us[rows].astype(np.float64)
    return np.broadcast_to(np.where(recorded > 0, recorded * 1000, 1), (graph.steps, len(rows)))


def _take(values: IntArray, rows: NDArray[np.int64]) -> IntArray:
    """Return columns of a ``[k, n]`` array; one row of them where all steps share it."""
    if values.strides[0] == 0:
        values = values[:1]
    return values[:, rows]
