"""Rows of finished requests, in order of (end, id) over the whole run.

Engines tell of their iterations in order of their ends, but not in order among each other; so a row is held back until
nothing that ended before it can come any more.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from orchestrator.observers.interface import FinishedRows

IntArray = NDArray[np.int64]
COLUMNS = ("id", "input", "output", "arrival", "queued", "scheduled", "first_token", "end", "engine")
"""What is known of a finished request; times in ns (see `orchestrator.observers.requests`)."""
ID, END = COLUMNS.index("id"), COLUMNS.index("end")
_MOST_HELD = 256
_LONGEST_HELD_S = 0.5
"""Wall-clock time after which finished rows are handed on though they are few: they belong on disk."""


class FinishedInOrder:
    """Holds rows back and keeps those that were handed on; `keep_itl`: with the times between each one's tokens."""

    def __init__(self, *, keep_itl: bool) -> None:
        self._keep_itl = keep_itl
        self._single: list[tuple[int, ...]] = []
        self._tables: list[IntArray] = []
        self._itl: list[IntArray] = []
        """Of the rows in `_tables`, then of those in `_single`, which only come later."""
        self._held = 0
        self._handed_on = monotonic()
        self._columns = {name: array("q") for name in COLUMNS}

    def add(self, row: tuple[int, ...], itl: IntArray | None) -> None:
        """Take the row of one request; `itl` (ns) where lists are kept."""
        self._single.append(row)
        if itl is not None:
            self._itl.append(itl)
        self._held += 1

    def add_table(self, rows: IntArray, itl: Sequence[IntArray] | None) -> None:
        """Take rows ``[n, columns]``."""
        self._gather()
        self._tables.append(rows)
        if itl is not None:
            self._itl.extend(itl)
        self._held += len(rows)

    def due(self) -> bool:
        """Whether rows should be handed on."""
        waiting = self._held
        return waiting >= _MOST_HELD or (waiting > 0 and monotonic() - self._handed_on >= _LONGEST_HELD_S)

    def hand_on(self, until_ns: int | None = None) -> FinishedRows | None:
        """Return the rows of requests that ended before `until_ns` (None: all) and have not been handed on yet."""
        self._handed_on = monotonic()
        if not self._held:
            return None
        self._gather()
        table = np.concatenate(self._tables)
        order = np.lexsort((table[:, ID], table[:, END]))
        ends = table[order, END]
        over = len(ends) if until_ns is None else int(np.searchsorted(ends, until_ns, side="left"))
        if not over:
            self._tables = [table]
            return None
        self._tables, self._held = [table[order[over:]]], len(table) - over
        lists, self._itl = self._lists(order[:over]), self._lists(order[over:]) or []
        columns = {name: table[order[:over], place] for place, name in enumerate(COLUMNS)}
        for name, values in columns.items():
            self._columns[name].frombytes(values.tobytes())
        return FinishedRows(columns, lists)

    def columns(self) -> dict[str, IntArray]:
        """Return `COLUMNS` of the rows that were handed on."""
        return {name: np.array(values, dtype=np.int64) for name, values in self._columns.items()}

    def _gather(self) -> None:
        """Make a table of the rows that came one by one."""
        if self._single:
            self._tables.append(np.array(self._single, dtype=np.int64))
            self._single = []

    def _lists(self, places: IntArray) -> list[IntArray] | None:
        return [self._itl[place] for place in places.tolist()] if self._keep_itl else None
