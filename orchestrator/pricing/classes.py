"""What the time of a batch goes to: operators by class, and what no operator explains: communication, moved KV blocks.

A stage is done when its slowest rank is, so that rank's operators are counted, and the time between the finish of the
stage before and its own that they leave over::

    stage before is done      operators of the slowest rank, by class       its finish
    |------------------------|=============================================|--left over--|

Left over is exposed communication, or the moves of KV blocks where there is no communication; where there are both,
moves get what they cost alone, as far as it goes. (A backend says only how much was not computation.) Where the backend
itself decides how long operators take, they are one class, `COMPUTE`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.execution_graph import IterationResult
from foundation.recent import RecentByIdentity
from trace_gen.trace import CommType, OperatorClass, RowKind, Trace

IntArray = NDArray[np.int64]
COMPUTE, COMMUNICATION, MEMORY = "computation", "exposed communication", "moved KV blocks"
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


@dataclass(frozen=True, slots=True)
class _Rank:
    """What of a trace is one rank's: ``[rows, classes]`` 1 where a row is its and of a class, else 0; its moves."""

    of_class: NDArray[np.float64]
    moves: NDArray[np.intp]
    communicates: bool


class WorkClasses:
    """Tells the classes of a trace's time apart; `names` are theirs.

    `moved_ns` says what it costs to move bytes between a rank and host memory with nothing else going on;
    `backend_decides`: latencies of the trace are not what the backend takes.
    """

    def __init__(self, moved_ns: Callable[[IntArray], IntArray], *, backend_decides: bool) -> None:
        self._moved_ns = moved_ns
        self._backend_decides = backend_decides
        self.names = ((COMPUTE,) if backend_decides else _OPERATORS) + (COMMUNICATION, MEMORY)
        self._ranks: RecentByIdentity[_Rank] = RecentByIdentity(_KEPT)

    def of_stage(self, trace: Trace, result: IterationResult, columns: list[int], own_ns: IntArray) -> IntArray:
        """Return ``[steps, classes]`` ns of a stage whose ranks are `columns` of `result`, and that took `own_ns`."""
        if len(columns) == 1:
            return self._of_rank(trace, result, columns[0], own_ns)
        slowest = result.finish_ns[:, columns].argmax(axis=1)
        parts = np.zeros((len(own_ns), len(self.names)), dtype=np.int64)
        for place, column in enumerate(columns):
            steps = slowest == place
            if steps.any():
                parts[steps] = self._of_rank(trace, result, column, own_ns)[steps]
        return parts

    def _of_rank(self, trace: Trace, result: IterationResult, column: int, own_ns: IntArray) -> IntArray:
        rank = self._rank(trace, result.rank_sets[column][0])
        parts = np.zeros((len(own_ns), len(self.names)), dtype=np.int64)
        if self._backend_decides:
            parts[:, 0] = result.finish_ns[:, column] - result.exposed_ns[:, column]
        else:
            parts[:, :-2] = trace.latency_ns.astype(np.float64) @ rank.of_class  # exact below 2^53
        left = np.maximum(own_ns - parts.sum(axis=1), 0)
        parts[:, -2] = left
        if len(rank.moves):
            moved = np.minimum(left, self._alone(trace, rank.moves)) if rank.communicates else left
            parts[:, -2:] = np.column_stack((left - moved, moved))
        return parts

    def _alone(self, trace: Trace, moves: NDArray[np.intp]) -> IntArray:
        """Return what the moves cost one after another, ``[steps]`` or a single number for all steps."""
        sizes = np.where(trace.kind == RowKind.MEM_LOAD, trace.input_bytes, trace.output_bytes)
        spent: IntArray = self._moved_ns(sizes[..., moves]).sum(axis=-1)
        return spent

    def _rank(self, trace: Trace, number: int) -> _Rank:
        objects = (trace.rank_set, trace.operator_class, trace.kind, trace.comm_type)
        return self._ranks.get(objects, lambda: _rank(trace, number), key=(number, trace.rank_sets))


def _rank(trace: Trace, number: int) -> _Rank:
    sets = [place for place, ranks in enumerate(trace.rank_sets) if number in ranks]
    mine = np.isin(trace.rank_set, sets)
    of_class = np.zeros((trace.rows, len(_OPERATORS)))
    for operator_class, name in _NAMES.items():
        of_class[mine & (trace.operator_class == operator_class), _OPERATORS.index(name)] = 1
    moves = mine & np.isin(trace.kind, (RowKind.MEM_LOAD, RowKind.MEM_STORE))
    communicates = bool((mine & (trace.comm_type != CommType.NONE)).any()) or len(set(trace.stage.tolist())) > 1
    return _Rank(of_class, np.flatnonzero(moves), communicates)
