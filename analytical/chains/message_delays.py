"""How long the messages of like ranks take."""

from __future__ import annotations

import numpy as np

from analytical.chains.stretches import SHORT_NS
from analytical.machine.network import DelayModel
from converters.execution_graph import IntArray
from foundation.errors import SimulationError

DELAYS_KEPT = 4096


class MessageDelays:
    """Delays of one machine's messages from the ranks of a set, kept by ranks, distance and bytes."""

    def __init__(self, delays: DelayModel) -> None:
        self._delays = delays
        self._kept: dict[tuple[tuple[int, ...], int, int], IntArray] = {}

    def get(self, ranks: tuple[int, ...], delta: int, size: int) -> IntArray:
        """Return the ns of each rank's message to the rank `delta` on, ``[1]`` where they are alike.

        Raises `SimulationError` if one takes too long for a sum of 64 bits.
        """
        key = (ranks, delta, size)
        found = self._kept.get(key)
        if found is None:
            delays = [self._delays.delay(rank, rank + delta, size) for rank in ranks]
            if max(delays) > SHORT_NS:
                raise SimulationError("a message takes longer than the fast ways count")
            if len(self._kept) > DELAYS_KEPT:
                self._kept.clear()
            alike = delays[:1] if min(delays) == max(delays) else delays
            found = self._kept[key] = np.array(alike, dtype=np.int64)
        return found
