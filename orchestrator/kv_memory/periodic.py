"""How many of a set of events happen at each step, where each event comes again every `period` steps.

first = 2, 2, 5, period 4            step    0  1  2  3  4  5  6  7  8  9 10
                                     events  .  .  2  .  .  1  2  .  .  1  2
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class PeriodicEvents:
    """Events that happen first at the steps `first` (0 or more), and from then on every `period` steps."""

    def __init__(self, first: Sequence[int], period: int) -> None:
        self._period = period
        self._begin = min(first, default=0)
        length = (max(first, default=0) - self._begin) // period * period + period
        # Events of each step from `_begin` on, those that came round again included: the last period goes on for ever.
        once = np.bincount(np.asarray(first, dtype=np.int64) - self._begin, minlength=length)
        self._counts: IntArray = once.reshape(-1, period).cumsum(axis=0).ravel()
        self._listed: list[int] = self._counts.tolist()

    def at(self, step: int) -> int:
        """Return how many events happen at `step`."""
        place = step - self._begin
        if place < 0:
            return 0
        beyond = place - len(self._listed)
        return self._listed[place if beyond < 0 else beyond % self._period - self._period]

    def between(self, begin: int, end: int) -> IntArray:
        """Return how many happen at each of the steps `begin` to `end` - 1."""
        places = np.arange(begin, end) - self._begin
        beyond = places - len(self._counts)
        counts = self._counts[np.where(beyond < 0, np.maximum(places, 0), beyond % self._period - self._period)]
        return np.where(places < 0, 0, counts)
