"""How long nodes run that need no other: added up to stretches between those that do, for all steps at once.

Sets of ranks are worked out side by side, as if they were one (`share_out`). Nodes that share their work are worked out
once: a stretch is so many times this kind of work and so many times that (`_Kinds`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from analytical.machine.compute import roofline_ns
from analytical.machine.description import Machine
from converters.execution_graph import IntArray, NodeType, NodeWork, RankGraph
from foundation.recent import RecentByIdentity
from foundation.records import dataclass

Runtimes = NDArray[np.float64]
"""Whole ns as doubles, which are exact as far as they are used here and never wrap around."""

SHORT_NS = 2**43
"""A piece (stretch, collective, message) that takes longer, 2.4 hours, is for the event queue, which counts in integers
of any size: the sum of `MOST_PIECES` shorter ones stays within 64 bits."""

MOST_PIECES = 2**19
KINDS_KEPT = 8
DENSE = 4
"""How often each stretch has each kind of work is a table of at most so many numbers a node."""


@dataclass(frozen=True, slots=True, eq=False)
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


@dataclass(frozen=True, slots=True, eq=False)
class _Kinds:
    """The different works among a share's nodes: their `columns` in the table of work; `which` is each node's kind
    (None: each is of its own).

    `first`: the kinds of nodes that run from t = 0 on. `times` ``[kinds, stretches]``: how often a stretch has each;
    None where that would be a table much larger than one of all nodes.
    """

    columns: NDArray[np.int64]
    which: NDArray[np.int64] | None
    first: NDArray[np.int64]
    times: NDArray[np.float64] | None

    @classmethod
    def each_its_own(cls, share: Share, column: IntArray) -> _Kinds:
        """Return a kind for each of a share's nodes; ``column[row]`` is where a node finds its work."""
        return cls(column[share.rows], None, share.first, None)

    @classmethod
    def of(cls, share: Share, column: IntArray) -> _Kinds:
        """Find the kinds of a share's nodes; `column` as above."""
        columns, which = np.unique(column[share.rows], return_inverse=True)
        times = None
        if columns.size * share.begins.size <= DENSE * share.rows.size:
            times = np.zeros((columns.size, share.begins.size))
            stretch = np.searchsorted(share.begins, np.arange(share.rows.size), side="right") - 1
            np.add.at(times, (which, stretch), 1)
        return cls(columns, which, np.array(sorted(set(which[share.first].tolist())), dtype=np.int64), times)

    def sums(self, runtime: Runtimes, begins: NDArray[np.int64]) -> Runtimes:
        """Add up runtimes of kinds ``[k, kinds]`` to those of the stretches from `begins` on.

        None is above `SHORT_NS` where there are `times`. Products and sums of whole doubles are exact as long as the
        result is, and what is not is above `SHORT_NS`.
        """
        if self.times is None:
            nodes = runtime if self.which is None else runtime[:, self.which]
            return np.add.reduceat(nodes, begins, axis=1)
        result: Runtimes = runtime @ self.times
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """The nodes whose runtime comes from the roofline, the remote memory and the recorded duration.

    `kinds`: those of the first two, by the columns of work that a graph came with.
    """

    compute: Share
    memory: Share
    replay: Share
    kinds: RecentByIdentity[tuple[_Kinds, _Kinds]] = field(default_factory=lambda: RecentByIdentity(KINDS_KEPT))


@dataclass(frozen=True, slots=True, eq=False)
class Stretches:
    """`total` ``[k, stretches]``: ns of each; `gpu` ``[k, sets]``: ns of GPU compute."""

    total: IntArray
    gpu: IntArray

    def add(self, share: Share, sums: Runtimes, counted: Runtimes) -> bool:
        """Add the sums of a share's stretches, and what of it is GPU time; return whether they are short enough."""
        if not sums.max() <= SHORT_NS:  # what is no number is not short either
            return False
        self.total[:, _columns(share.stretches, self.total)] += sums.astype(np.int64, copy=False)
        if share.sets.size:
            each = np.add.reduceat(counted.astype(np.int64, copy=False), share.set_begins, axis=1)
            self.gpu[:, _columns(share.sets, self.gpu)] += each
        return True


def _columns(chosen: NDArray[np.int64], table: IntArray) -> NDArray[np.int64] | slice:
    """Return `chosen` columns of a table as an index: all of them as a slice, which is several times as quick."""
    return slice(None) if chosen.size == table.shape[1] else chosen


@dataclass(frozen=True, slots=True, eq=False)
class OwnNodes:
    """The nodes of a set of ranks that need no other; none of them communicates, but for a BROADCAST, which is only
    replayed. ``rows[i]`` lies in stretch ``stretch[i]``, which never falls, of so many `stretches`; `first`: which of
    them wait for nothing.
    """

    graph: RankGraph
    rows: NDArray[np.int64]
    stretch: NDArray[np.int64]
    first: NDArray[np.bool_]
    stretches: int


def share_out(sets: Sequence[OwnNodes], machine: Machine) -> Shares:
    """Sort the nodes of several sets, side by side, into shares."""
    kind = np.concatenate([own.graph.node_type[own.rows] for own in sets])
    cpu = np.concatenate([own.graph.is_cpu_op[own.rows] for own in sets])
    rows = _shifted([own.rows for own in sets], [own.graph.nodes for own in sets])
    stretch = _shifted([own.stretch for own in sets], [own.stretches for own in sets])
    first = np.concatenate([own.first for own in sets])
    set_of = np.repeat(np.arange(len(sets)), [own.rows.size for own in sets])

    memory = (kind == NodeType.MEM_LOAD) | (kind == NodeType.MEM_STORE)
    gpu = (kind == NodeType.COMP) & ~cpu
    modelled = gpu & machine.system.roofline_enabled

    def share(chosen: NDArray[np.bool_], counted: NDArray[np.bool_] | None) -> Share:
        positions = np.flatnonzero(chosen)
        stretches, begins = _runs(stretch[positions])
        own = None if counted is None else np.flatnonzero(counted[positions])
        owners, owned = _runs(set_of[positions[begins if own is None else own]])
        return Share(rows[positions], stretches, begins, np.flatnonzero(first[positions]), own, owners, owned)

    return Shares(
        compute=share(modelled, None),
        memory=share(memory, np.zeros_like(memory)),
        replay=share(~memory & ~modelled, gpu),
    )


def _runs(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct of some values that never fall, and where each begins."""
    begins = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: values.size])
    return values[begins], begins


def _shifted(parts: Sequence[NDArray[np.int64]], sizes: Sequence[int]) -> NDArray[np.int64]:
    """Return positions within each of several things as positions within all of them, laid end to end."""
    if len(parts) == 1:
        return parts[0]
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
        if runtime is None or not runtime[:, kinds.first].all():  # nothing may take 0 ns at t = 0
            return None
        if kinds.times is not None and not runtime.max() <= SHORT_NS:  # sums of long ones are long as well
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

    def make(find: Callable[[Share, IntArray], _Kinds]) -> tuple[_Kinds, _Kinds]:
        column = _shifted([work.column for work in works], widths)
        return find(shares.compute, column), find(shares.memory, column)

    if table.num_ops.shape[1] >= sum(work.column.size for work in works):
        return make(_Kinds.each_its_own)  # as in files, whose columns are never seen twice
    return shares.kinds.get([work.column for work in works], lambda: make(_Kinds.of), key=tuple(widths))


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
    counted = runtime if share.counted is None else runtime[:, share.counted]
    return result.add(share, np.add.reduceat(runtime, share.begins, axis=1), counted)
