"""What one count of a batch (its tokens, its samples ...) adds to the time of each stage, as a table that fills up."""

from __future__ import annotations

import numpy as np

from orchestrator.pricing.classes import WorkClasses
from orchestrator.pricing.compiled.communication import SMALL, Communication
from trace_gen.sized_columns import CountedSizes, SizedColumns
from trace_gen.trace import IntArray, Trace

UNKNOWN = -1
BLOCK = 64
"""Values that are worked out side by side: a prompt more or less in a batch is soon one of the neighbours."""


class CountTable:
    """`ns` ``[values, stages]``, `UNKNOWN` where not worked out yet, and `busy` ``[values, classes]``, over all stages.

    Of the rows of `trace` in `columns`. 0 of a count costs nothing.
    """

    def __init__(
        self, columns: SizedColumns, trace: Trace, communication: Communication, classes: WorkClasses, most: int
    ) -> None:
        self._columns = columns
        self._rows = _RowsOf(trace, columns, communication)
        self._communication = communication
        self._block = BLOCK if columns.alike else 1
        self._blocks: dict[int, CountedSizes] = {}
        self._classes = np.zeros((len(columns.kinds), len(classes.names)), dtype=np.int64)
        self._classes[np.arange(len(columns.kinds)), [classes.place(kind) for kind in columns.kinds]] = 1
        self._talking = classes.communication
        self.ns: IntArray = np.full((most + 1, trace.stages), UNKNOWN, dtype=np.int64)
        self.busy: IntArray = np.zeros((most + 1, len(classes.names)), dtype=np.int64)
        self.ns[0] = 0

    def knows(self, value: int) -> bool:
        """Whether what `value` adds has been worked out."""
        return value < len(self.ns) and bool(self.ns[value, 0] != UNKNOWN)

    def fill(self, value: int) -> None:
        """Work out what `value` adds; where nothing is communicated its neighbours, too."""
        self._grow(value)
        block = (value - self._columns.least) // self._block
        first = self._columns.least + block * self._block
        sizes = self._blocks.get(block)
        if sizes is None:
            sizes = self._blocks[block] = self._columns.sizes(range(first, first + self._block))
            self._rows.expect(sizes, self._communication)
        if not self._rows.communicates:
            del self._blocks[block]
            room = min(self._block, len(self.ns) - first)
            self._set(
                slice(first, first + room), sizes.among(slice(room)), np.zeros((room, self.ns.shape[1]), np.int64)
            )
            return
        at = slice(value - first, value - first + 1)
        own = sizes.among(at)
        self._set(slice(value, value + 1), own, self._rows.communication_ns(own, self._communication)[None, :])

    def _set(self, values: slice, sizes: CountedSizes, talking_ns: IntArray) -> None:
        counts = self._rows.counts
        self.busy[values] = (sizes.latency_ns * counts.sum(axis=0)) @ self._classes
        self.busy[values, self._talking] += talking_ns.sum(axis=1)
        self.ns[values] = sizes.latency_ns @ counts.T + talking_ns

    def _grow(self, value: int) -> None:
        """Make room for `value`."""
        if value < len(self.ns):
            return
        more = max(value + 1, 2 * len(self.ns)) - len(self.ns)
        self.ns = np.concatenate((self.ns, np.full((more, self.ns.shape[1]), UNKNOWN, dtype=np.int64)))
        self.busy = np.concatenate((self.busy, np.zeros((more, self.busy.shape[1]), dtype=np.int64)))


class _RowsOf:
    """The rows of `trace` in some `columns` of its table: `counts` ``[stages, columns]``, and which communicate."""

    def __init__(self, trace: Trace, columns: SizedColumns, communication: Communication) -> None:
        stages, column = trace.stages, trace.work.column
        own = [np.flatnonzero(column == one) for one in columns.columns]
        self.counts: IntArray = np.zeros((stages, len(own)), dtype=np.int64)
        self._collectives: list[tuple[int, int, IntArray]] = []
        for place, rows in enumerate(own):
            self.counts[:, place] = np.bincount(trace.stage[rows], minlength=stages)
            kinds = communication.kind_of[rows]
            for kind in set(kinds[kinds >= 0].tolist()) if columns.carries[place] else ():
                times = np.bincount(trace.stage[rows[kinds == kind]], minlength=stages)
                self._collectives.append((place, kind, times))
        last = [int(np.flatnonzero(trace.stage == stage)[-1]) for stage in range(stages - 1)]
        places = {int(one): place for place, one in enumerate(columns.columns)}
        sends = [places.get(int(column[row]), -1) for row in last]
        self._sends = [at if at >= 0 and columns.puts_out[at] else -1 for at in (*sends, -1)]

    @property
    def communicates(self) -> bool:
        """Whether there is a collective or a message whose size is that of the columns."""
        return bool(self._collectives) or any(at >= 0 for at in self._sends)

    def expect(self, sizes: CountedSizes, communication: Communication) -> None:
        """Prepare for the collectives of many values."""
        for place, kind, _ in self._collectives:
            communication.expect(kind, sizes.comm_bytes[:, place])

    def communication_ns(self, sizes: CountedSizes, communication: Communication) -> IntArray:
        """Return the time of all collectives and messages on each stage, ``[s]``; `sizes` are those of one value."""
        spent = np.zeros(len(self.counts), dtype=np.int64)
        for place, kind, times in self._collectives:
            spent += times * communication.collective_ns(kind, int(sizes.comm_bytes[0, place]))
        if any(at >= 0 for at in self._sends):
            sent = tuple(int(sizes.output_bytes[0, at]) if at >= 0 else SMALL for at in self._sends)
            spent += communication.message_ns(sent) * np.array([at >= 0 for at in self._sends])
        return spent
