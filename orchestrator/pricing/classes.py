"""What the time of a batch goes to: operators by class, and what no operator explains: communication, moved KV blocks.

A stage is done when its slowest rank is, so that rank's operators are counted, and the time between the finish of the
stage before and its own that they leave over::

    stage before is done      operators of the slowest rank, by class       its finish
    |------------------------|=============================================|--left over--|

Left over is exposed communication, or what moves between memories where there is no communication: KV blocks, and
weights that are streamed. Where there is more than one of them, moves get what they cost alone, KV blocks first, as far
as it goes. (A backend says only how much was not computation.) Where the backend itself decides how long operators
take, they are one class, `COMPUTE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from converters.execution_graph import IterationResult
from foundation.recent import RecentByIdentity
from foundation.records import dataclass
from trace_gen.trace import CommType, Location, OperatorClass, RowKind, Trace

IntArray = NDArray[np.int64]
RankSets = tuple[tuple[int, ...], ...]
COMPUTE, COMMUNICATION, MEMORY = "computation", "exposed communication", "moved KV blocks"
STREAMING = "streamed weights"
_NAMES = {
    OperatorClass.GEMM: "matrix products",
    OperatorClass.GROUPED_GEMM: "matrix products",
    OperatorClass.ATTENTION: "attention",
    OperatorClass.ELEMENTWISE: "elementwise",
    OperatorClass.EMBEDDING: "embedding",
    OperatorClass.SAMPLER: "sampling",
    OperatorClass.OTHER: "other operators",
}
_OPERATORS = tuple(dict.fromkeys(_NAMES.values()))
_KEPT = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Ranks:
    """What of a trace is whose, by set of ranks.

    `operators` ``[m, sets x classes]``: how often a rank has each column of the trace's work, by class; `moves`: the
    rows by which it moves KV blocks, `streams`: those whose weights it loads; `rest`: which of communication (0), moved
    blocks (1) and streamed weights (2) what is left of its time goes to.
    """

    operators: NDArray[np.float64]
    moves: tuple[NDArray[np.intp], ...]
    streams: tuple[NDArray[np.intp], ...]
    rest: tuple[int, ...]

    @classmethod
    def of(cls, trace: Trace, rank_sets: RankSets) -> _Ranks:
        """Sort the rows of a trace by the sets of ranks that run them."""
        column, width = trace.work.column, trace.work.latency_ns.shape[1]
        names = np.array([_OPERATORS.index(_NAMES[kind]) if kind in _NAMES else -1 for kind in OperatorClass])
        of_class = [names[trace.operator_class] == place for place in range(len(_OPERATORS))]
        moves = np.isin(trace.kind, (RowKind.MEM_LOAD, RowKind.MEM_STORE))
        streams = (trace.weight_loc != Location.LOCAL) & (trace.weight_bytes > 0)
        mine = [_rows_of(trace, ranks[0]) for ranks in rank_sets]
        operators = [np.bincount(column[rows & own], minlength=width) for rows in mine for own in of_class]
        piped = len(set(trace.stage.tolist())) > 1
        moved, streamed = ([np.flatnonzero(which & rows) for rows in mine] for which in (moves, streams))
        communicates = [piped or bool((trace.comm_type[rows] != CommType.NONE).any()) for rows in mine]
        rest = [
            0 if talks else 2 if far.size else 1 if blocks.size else 0
            for talks, far, blocks in zip(communicates, streamed, moved, strict=True)
        ]
        return cls(np.array(operators, dtype=np.float64).T, tuple(moved), tuple(streamed), tuple(rest))


class WorkClasses:
    """Tells the classes of a trace's time apart; `names` are theirs.

    `moved_ns` says what it costs to move bytes between a rank and host memory with nothing else going on;
    `backend_decides`: latencies of the trace are not what the backend takes; `streams`: weights come from there.
    """

    def __init__(
        self, moved_ns: Callable[[IntArray], IntArray], *, backend_decides: bool, streams: bool = False
    ) -> None:
        self._moved_ns = moved_ns
        self._backend_decides = backend_decides
        self._computing = (COMPUTE,) if backend_decides else _OPERATORS
        self.names = (*self._computing, COMMUNICATION, MEMORY, *([STREAMING] if streams else []))
        self._ranks: RecentByIdentity[_Ranks] = RecentByIdentity(_KEPT)

    @property
    def communication(self) -> int:
        """Where among the names exposed communication stands."""
        return len(self._computing)

    def place(self, kind: OperatorClass) -> int:
        """Return where among the names operators of `kind` stand, where the trace's latencies are what they take."""
        return self.names.index(_NAMES.get(kind, COMMUNICATION))

    def busy_ns(self, trace: Trace, result: IterationResult, slowest: IntArray, own_ns: IntArray) -> IntArray:
        """Return ``[k, stages, classes]`` ns of stages that took `own_ns` ``[k, stages]``.

        `slowest` ``[k, stages]``, or ``[1, stages]`` where it never changes: the column of `result` that each stage's
        slowest rank is in.
        """
        objects = (
            trace.work.column,
            trace.rank_set,
            trace.operator_class,
            trace.kind,
            trace.comm_type,
            trace.weight_loc,
        )
        sets = result.rank_sets
        ranks = self._ranks.get(objects, lambda: _Ranks.of(trace, sets), key=(sets, trace.rank_sets))
        parts = np.empty((*own_ns.shape, len(self.names)), dtype=np.int64)
        count = len(self._computing)
        parts[:, :, :count] = chosen(self._work_ns(trace, result, ranks), slowest)
        parts[:, :, count:] = 0
        left = np.maximum(own_ns - parts[:, :, :count].sum(axis=2), 0)
        for place, moving, sizes in self._moves(trace, ranks):
            alone = np.array([int(self._moved_ns(sizes[rows]).sum()) for rows in moving], dtype=np.int64)
            parts[:, :, place] = np.minimum(left, alone[slowest])
            left = left - parts[:, :, place]
        for place in set(ranks.rest):
            parts[:, :, count + place] += np.where((np.array(ranks.rest) == place)[slowest], left, 0)
        return parts

    def _moves(self, trace: Trace, ranks: _Ranks) -> Iterator[tuple[int, Sequence[NDArray[np.intp]], IntArray]]:
        """Yield the classes of moves that there are: their places among the names, rows by set of ranks, and bytes."""
        if any(rows.size for rows in ranks.moves):
            sizes = np.where(trace.kind == RowKind.MEM_LOAD, trace.input_bytes, trace.output_bytes)
            yield self.names.index(MEMORY), ranks.moves, sizes
        if any(rows.size for rows in ranks.streams):
            yield self.names.index(STREAMING), ranks.streams, trace.weight_bytes

    def _work_ns(self, trace: Trace, result: IterationResult, ranks: _Ranks) -> IntArray:
        """Return what each set of ranks works, ``[k, sets, classes]``."""
        if self._backend_decides:
            return (result.finish_ns - result.exposed_ns)[:, :, None]
        spent = trace.work.latency_ns.astype(np.float64) @ ranks.operators  # exact below 2^53
        return spent.astype(np.int64).reshape(trace.steps, len(result.rank_sets), len(_OPERATORS))


def _rows_of(trace: Trace, rank: int) -> NDArray[np.bool_]:
    """Return which rows a rank runs."""
    return np.isin(trace.rank_set, [place for place, ranks in enumerate(trace.rank_sets) if rank in ranks])


def chosen(values: IntArray, columns: IntArray) -> IntArray:
    """Return ``[k, m, ...]`` of ``[k, n, ...]``, by the ``[k, m]`` or ``[1, m]`` columns chosen at each step."""
    return values[:, columns[0]] if len(columns) == 1 else values[np.arange(len(values))[:, None], columns]
