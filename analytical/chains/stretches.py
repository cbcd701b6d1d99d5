"""How long nodes run that need no other: added up to stretches between those that do, for all steps at once.

Sets of ranks that have many stretches each are worked out side by side, as if they were one (`join`). Nodes that share
their work are worked out once: a stretch is so many times this kind of work and so many times that (`_Kinds`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analytical.machine.compute import roofline_ns
from analytical.machine.description import Machine
from converters.execution_graph import IntArray, NodeType, NodeWork, RankGraph
from foundation.recent import RecentByIdentity

Runtimes = NDArray[np.float64]
"""Whole ns as doubles, which are exact as far as they are used here and never wrap around."""

SHORT_NS = 2**43
"""A piece (stretch, collective, message) that takes longer, 2.4 hours, is for the event queue, which counts in integers
of any size: the sum of `MOST_PIECES` shorter ones stays within 64 bits."""

MOST_PIECES = 2**19
KINDS_KEPT = 8
DENSE = 4
"""How often each stretch has each kind of work is a table of at most so many numbers a node."""


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
class _Kinds:
    """The different works among a share's nodes: their `columns` in the table of work; `which` is each node's kind.

    `first`: the kinds of nodes that run from t = 0 on. `times` ``[kinds, stretches]``: how often a stretch has each;
    None where that would be a table much larger than one of all nodes.
    """

    columns: NDArray[np.int64]
    which: NDArray[np.int64]
    first: NDArray[np.int64]
    times: NDArray[np.float64] | None

    @classmethod
    def of(cls, share: Share, column: IntArray) -> _Kinds:
        """Find the kinds of a share's nodes; ``column[row]`` is where a node finds its work."""
        columns, which = np.unique(column[share.rows], return_inverse=True)
        times = None
        if columns.size * share.begins.size <= DENSE * share.rows.size:
            times = np.zeros((columns.size, share.begins.size))
            stretch = np.searchsorted(share.begins, np.arange(share.rows.size), side="right") - 1
            np.add.at(times, (which, stretch), 1)
        return cls(columns, which, np.array(sorted(set(which[share.first].tolist())), dtype=np.int64), times)

    def sums(self, runtime: Runtimes, begins: NDArray[np.int64]) -> Runtimes:
        """Add up runtimes of kinds ``[k, kinds]``, none above `SHORT_NS`, to those of the stretches from `begins` on.

        Products and sums of whole doubles are exact as long as the result is, and what is not is above `SHORT_NS`.
        """
        if self.times is None:
            return np.add.reduceat(runtime[:, self.which], begins, axis=1)
        result: Runtimes = runtime @ self.times
        return result


@dataclass(frozen=True, slots=True)
class Shares:
    """The nodes whose runtime comes from the roofline, the remote memory and the recorded duration.

    `kinds`: those of the first two, by the columns of work that a graph came with.
    """

    compute: Share
    memory: Share
    replay: Share
    kinds: RecentByIdentity[tuple[_Kinds, _Kinds]] = field(default_factory=lambda: RecentByIdentity(KINDS_KEPT))


@dataclass(frozen=True, slots=True)
class Stretches:
    """`total` ``[k, stretches]``: ns of each; `gpu` ``[k, sets]``: ns of GPU compute."""

    total: IntArray
    gpu: IntArray

    def add(self, share: Share, sums: Runtimes, counted: Runtimes) -> bool:
        """Add the sums of a share's stretches, and what of it is GPU time; return whether they are short enough."""
        if sums.max() > SHORT_NS:
            return False
        whole = sums.astype(np.int64, copy=False)
        every = share.stretches.size == self.total.shape[1]  # which is several times as quick as listing them
        self.total[:, slice(None) if every else share.stretches] += whole
        if share.sets.size:
            self.gpu[:, share.sets] += np.add.reduceat(counted.astype(np.int64, copy=False), share.set_begins, axis=1)
        return True


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


def stretch_ns(shares: Shares, stretches: int, graphs: Sequence[RankGraph], machine: Machine) -> Stretches | None:
    """Return the stretches of sets side by side; None if a value is for the event queue, which may find it wrong."""
    steps, works = graphs[0].steps, [graph.work for graph in graphs]
    result = Stretches(np.zeros((steps, stretches), dtype=np.int64), np.zeros((steps, len(graphs)), dtype=np.int64))
    table = works[0] if all(_share_table(works[0], work) for work in works) else _beside(works)
    both = (shares.compute, shares.memory)
    for share, kinds, values in zip(both, _kinds(shares, works, table), (_compute, _memory), strict=True):
        if not share.rows.size:
            continue
        runtime = values(table, kinds.columns, machine)
        # Nothing may take 0 ns at t = 0; what is no number is not short either.
        if runtime is None or not runtime[:, kinds.first].all() or not runtime.max() <= SHORT_NS:
            return None
        sums = kinds.sums(runtime, share.begins)
        if not result.add(share, sums, sums):
            return None
    return result if _add_replayed(result, shares.replay, graphs) else None


def _share_table(one: NodeWork, other: NodeWork) -> bool:
    return one.num_ops is other.num_ops and one.tensor_size is other.tensor_size


def _beside(works: Sequence[NodeWork]) -> NodeWork:
    """Return the tables of several works as one, with no columns of nodes."""
    steps = max(len(work.tensor_size) for work in works)
    sizes = [np.broadcast_to(work.tensor_size, (steps, work.tensor_size.shape[1])) for work in works]
    nobody = np.zeros(0, dtype=np.int64)
    return NodeWork(nobody, np.concatenate([work.num_ops for work in works], axis=1), np.concatenate(sizes, axis=1))


def _kinds(shares: Shares, works: Sequence[NodeWork], table: NodeWork) -> tuple[_Kinds, _Kinds]:
    """Return the kinds of compute and memory nodes, found by the identity of the columns of `works`."""
    widths = [0] * len(works) if table is works[0] else [work.num_ops.shape[1] for work in works]

    def make() -> tuple[_Kinds, _Kinds]:
        column = _shifted([work.column for work in works], widths)
        return _Kinds.of(shares.compute, column), _Kinds.of(shares.memory, column)

    return shares.kinds.get([work.column for work in works], make, key=tuple(widths))


def _compute(table: NodeWork, columns: NDArray[np.int64], machine: Machine) -> Runtimes | None:
    operations, size = table.num_ops[:, columns], table.tensor_size[:, columns]
    if size.min() < 1 or operations.min() < 1:
        return None
    return roofline_ns(operations, size, machine.system)


def _memory(table: NodeWork, columns: NDArray[np.int64], machine: Machine) -> Runtimes | None:
    memory = machine.memory
    size = table.tensor_size[:, columns]
    if size.min() < 0:
        return None
    result: Runtimes = np.trunc(size.astype(np.float64) / float(memory.remote_mem_bw)) + memory.remote_mem_latency
    return result


def _add_replayed(result: Stretches, share: Share, graphs: Sequence[RankGraph]) -> bool:
    """Add what takes its recorded duration, the same at every step; False if a value is for the event queue."""
    if not share.rows.size:
        return True
    recorded = np.concatenate([graph.duration_us for graph in graphs])[share.rows].astype(np.float64)
    runtime = np.where(recorded > 0, recorded * 1000, 1)[None, :]
    if not runtime[:, share.first].all():
        return False
    counted = runtime if share.counted is None else runtime[:, share.counted]
    return result.add(share, np.add.reduceat(runtime, share.begins, axis=1), counted)
