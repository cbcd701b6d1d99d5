"""How long collectives, and messages between stages, take: asked of the backend once for each size.

The backend gets an iteration of one operator of 1 ns a stage:

    stage 0: 1 ns, collective of so many bytes -> message of so many bytes -> stage 1: 1 ns, collective ...

Each alone on an idle network, as in the whole iteration, where a rank does one thing at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trace_gen.trace import CommType, IntArray, RowWork, Trace

SMALL = 1
"""Bytes of messages while collectives are timed."""


class Communication:
    """Times what `trace`, one of one step, communicates; `finish_ns` says when each stage of a trace is done, ``[s]``.

    `kinds`: the collectives that there are, a type and one group a stage each; `kind_of` ``[rows]``: which of them a
    row ends with (-1: none).
    """

    def __init__(self, trace: Trace, finish_ns: Callable[[Trace], IntArray]) -> None:
        self._finish_ns = finish_ns
        self._stages = trace.stages
        self.kinds: list[tuple[CommType, dict[int, int]]] = []
        self.kind_of: IntArray = np.full(trace.rows, -1, dtype=np.int64)
        for row in np.flatnonzero(trace.comm_type != CommType.NONE).tolist():
            self.kind_of[row] = self._kind(
                CommType(int(trace.comm_type[row])), int(trace.stage[row]), int(trace.comm_group[row])
            )
        self._skeletons: dict[int, Trace] = {}
        self._one_a_stage = _one_a_stage(trace)
        self._known: dict[tuple[int, int], IntArray] = {}
        self._sent: dict[tuple[int, ...], IntArray] = {}
        self._silent: IntArray | None = None

    def _kind(self, comm: CommType, stage: int, group: int) -> int:
        for place, (known, groups) in enumerate(self.kinds):
            if known is comm and groups.setdefault(stage, group) == group:
                return place
        self.kinds.append((comm, {stage: group}))
        return len(self.kinds) - 1

    def collective_ns(self, kind: int, size: int) -> IntArray:
        """Return the time of a collective of `size` bytes on each stage, ``[s]``; 0 where the kind is not on it."""
        found = self._known.get((kind, size))
        if found is None:
            found = self._known[kind, size] = self._time(self._skeleton(kind), size) - self._silence()
        return found

    def message_ns(self, sizes: tuple[int, ...]) -> IntArray:
        """Return the time of the messages of so many bytes that each stage sends on, ``[s]``; the last sends none."""
        found = self._sent.get(sizes)
        if found is None:
            trace = replace(self._one_a_stage, output_bytes=np.array(sizes, dtype=np.int64))
            found = self._sent[sizes] = _own(self._finish_ns(trace)) - 1
        return found

    def _silence(self) -> IntArray:
        if self._silent is None:
            self._silent = _own(self._finish_ns(self._one_a_stage))
        return self._silent

    def _time(self, skeleton: Trace, size: int) -> IntArray:
        sizes = np.where(skeleton.comm_type != CommType.NONE, size, 0)
        return _own(self._finish_ns(replace(skeleton, comm_bytes=sizes)))

    def _skeleton(self, kind: int) -> Trace:
        found = self._skeletons.get(kind)
        if found is None:
            comm, groups = self.kinds[kind]
            group = np.array([groups.get(stage, -1) for stage in range(self._stages)], dtype=np.int32)
            types = np.where(group >= 0, comm, CommType.NONE).astype(np.int8)
            found = self._skeletons[kind] = replace(self._one_a_stage, comm_type=types, comm_group=group)
        return found


def _own(finish_ns: IntArray) -> IntArray:
    """Return the time of each stage alone."""
    return np.diff(finish_ns, prepend=0)


def _one_a_stage(trace: Trace) -> Trace:
    """Return the trace of one operator of 1 ns on each stage of `trace`, which communicates nothing but messages."""
    rows: NDArray[np.intp] = np.array([np.flatnonzero(trace.stage == stage)[0] for stage in range(trace.stages)])
    count = len(rows)
    columns = {
        name: getattr(trace, name)[rows]
        for name in (
            *("op", "operator_class", "kind", "device", "layer", "stage", "rank_set", "request", "sub_batch"),
            *("input_loc", "input_node", "input_bytes", "weight_loc", "weight_node", "weight_bytes"),
            *("output_loc", "output_node"),
        )
    }
    ones = np.ones((1, count), dtype=np.int64)
    return replace(
        trace,
        **columns,
        work=RowWork.by_row(ones, ones, ones),
        output_bytes=np.full(count, SMALL, dtype=np.int64),
        comm_type=np.full(count, CommType.NONE, dtype=np.int8),
        comm_bytes=np.zeros(count, dtype=np.int64),
        comm_group=np.full(count, -1, dtype=np.int32),
        dep_offsets=np.zeros(count + 1, dtype=np.int64),
        dep_rows=np.zeros(0, dtype=np.int64),
    )
