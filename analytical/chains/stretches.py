"""How long nodes run that need no other: added up to stretches between those that do, for all steps at once.

Sets of ranks that have many stretches each are worked out side by side, as if they were one (`join`, `side_by_side`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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


class Columns(Protocol):
    """What runtimes depend on: the columns of a `RankGraph`, or of several side by side."""

    @property
    def num_ops(self) -> IntArray:
        """See `RankGraph`."""

    @property
    def tensor_size(self) -> IntArray:
        """See `RankGraph`."""

    @property
    def duration_us(self) -> IntArray:
        """See `RankGraph`."""

    @property
    def steps(self) -> int:
        """See `RankGraph`."""


@dataclass(frozen=True, slots=True)
class Share:
    """Nodes of one kind, ordered by stretch: their rows, the stretches that there are any in, and where among the rows
    each of those begins. `first`: which of them run from t = 0 on. `counted`: which are GPU time (None: all), of the
    sets of ranks `sets`; where among them, or among the stretches if all are, those of each set begin.
    """

    rows: NDArray[np.int64]
    stretches: NDArray[np.int64]
    begins: NDArray[np.int64]
    first: NDArray[np.int64]
    counted: NDArray[np.int64] | None
    sets: NDArray[np.int64]
    set_begins: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shares:
    """The nodes whose runtime comes from the roofline, the remote memory and the recorded duration."""

    compute: Share
    memory: Share
    replay: Share


@dataclass(frozen=True, slots=True)
class Stretches:
    """`total` ``[k, stretches]``: ns of each; `gpu` ``[k, sets]``: ns of GPU compute."""

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
        sets = np.zeros(1 if (stretches if own is None else own).size else 0, dtype=np.int64)
        return Share(
            rows[positions], stretches, begins, np.flatnonzero(first[positions]), own, sets, np.zeros_like(sets)
        )

    return Shares(
        compute=share(modelled, None),
        memory=share(memory, np.zeros_like(memory)),
        replay=share(~memory & ~modelled, gpu),
    )


def join(parts: Sequence[Shares], nodes: Sequence[int], stretches: Sequence[int]) -> Shares:
    """Return the shares of several sets of so many `nodes` and `stretches` each, side by side."""
    if len(parts) == 1:
        return parts[0]

    def joined(shares: Sequence[Share]) -> Share:
        everything = shares[0].counted is None
        counts = [share.stretches.size if share.counted is None else share.counted.size for share in shares]
        rows = [share.rows.size for share in shares]
        return Share(
            rows=_shifted([share.rows for share in shares], nodes),
            stretches=_shifted([share.stretches for share in shares], stretches),
            begins=_shifted([share.begins for share in shares], rows),
            first=_shifted([share.first for share in shares], rows),
            counted=None
            if everything
            else _shifted([own for share in shares if (own := share.counted) is not None], rows),
            sets=_shifted([share.sets for share in shares], [1] * len(shares)),
            set_begins=_shifted([share.set_begins for share in shares], counts),
        )

    return Shares(
        compute=joined([part.compute for part in parts]),
        memory=joined([part.memory for part in parts]),
        replay=joined([part.replay for part in parts]),
    )


def _shifted(parts: Sequence[NDArray[np.int64]], sizes: Sequence[int]) -> NDArray[np.int64]:
    """Return positions within each of several things as positions within all of them, laid end to end."""
    offsets = np.concatenate(([0], np.cumsum(sizes[:-1], dtype=np.int64)))
    return np.concatenate([part + offset for part, offset in zip(parts, offsets, strict=True)])


@dataclass(frozen=True, slots=True)
class _SideBySide:
    num_ops: IntArray
    tensor_size: IntArray
    duration_us: IntArray
    steps: int


def side_by_side(graphs: Sequence[RankGraph]) -> Columns:
    """Return the columns of several graphs as one."""
    if len(graphs) == 1:
        return graphs[0]
    steps, sizes = graphs[0].steps, [graph.tensor_size for graph in graphs]
    if all(size.strides[0] == 0 for size in sizes):
        shared = np.concatenate([size[0] for size in sizes])
        size = np.broadcast_to(shared, (steps, shared.size))
    else:
        size = np.concatenate(sizes, axis=1)
    return _SideBySide(
        np.concatenate([graph.num_ops for graph in graphs], axis=1),
        size,
        np.concatenate([graph.duration_us for graph in graphs]),
        steps,
    )


def stretch_ns(
    shares: Shares, stretches: int, columns: Columns, machine: Machine, *, sets: int = 1
) -> Stretches | None:
    """Return the stretches of `sets` sets; None if a value is for the event queue (or wrong, for it to say so)."""
    total = np.zeros((columns.steps, stretches), dtype=np.int64)
    gpu = np.zeros((columns.steps, sets), dtype=np.int64)
    for share, values in ((shares.compute, _compute), (shares.memory, _memory), (shares.replay, _replay)):
        if not share.rows.size:
            continue
        runtime = values(columns, share.rows, machine)
        if runtime is None or not runtime[:, share.first].all():
            return None  # nothing may take 0 ns at t = 0
        sums = np.add.reduceat(runtime, share.begins, axis=1)
        if sums.max() > SHORT_NS:
            return None
        sums = sums.astype(np.int64, copy=False)
        total[:, share.stretches] += sums
        if share.sets.size:
            counted = sums if share.counted is None else runtime[:, share.counted].astype(np.int64, copy=False)
            gpu[:, share.sets] += np.add.reduceat(counted, share.set_begins, axis=1)
    return Stretches(total, gpu)


def _compute(graph: Columns, rows: NDArray[np.int64], machine: Machine) -> Runtimes | None:
    operations, size = graph.num_ops[:, rows], _take(graph.tensor_size, rows)
    if size.min() < 1 or operations.min() < 1:
        return None
    return roofline_ns(operations, size, machine.system)


def _memory(graph: Columns, rows: NDArray[np.int64], machine: Machine) -> Runtimes | None:
    memory = machine.memory
    size = _take(graph.tensor_size, rows)
    if size.min() < 0:
        return None
    moved = np.trunc(size.astype(np.float64) / float(memory.remote_mem_bw))
    return np.broadcast_to(moved + memory.remote_mem_latency, (graph.steps, len(rows)))


def _replay(graph: Columns, rows: NDArray[np.int64], machine: Machine) -> Runtimes | None:
    recorded = graph.duration_us[rows].astype(np.float64)
    return np.broadcast_to(np.where(recorded > 0, recorded * 1000, 1), (graph.steps, len(rows)))


def _take(values: IntArray, rows: NDArray[np.int64]) -> IntArray:
    """Return columns of a ``[k, n]`` array; one row of them where all steps share it."""
    if values.strides[0] == 0:
        values = values[:1]
    return values[:, rows]
