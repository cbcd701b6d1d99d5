"""How long the messages of like ranks take."""

from __future__ import annotations

from analytical.chains.stretches import SHORT_NS
from analytical.machine.network import DelayModel
from foundation.errors import SimulationError
from foundation.recent import Recent

DELAYS_KEPT = 4096


class MessageDelays:
    """Delays of one machine's messages, kept by distance and bytes.

    The messages of like ranks take equally long, each to the rank `delta` on: all cross the first dimension whose
    stride does not divide `delta`, by the same way round, for their coordinates differ by the same number modulo its
    ranks.
    """

    def __init__(self, delays: DelayModel) -> None:
        self._delays = delays
        self._kept: Recent[int] = Recent(DELAYS_KEPT)

    def get(self, rank: int, delta: int, size: int) -> int:
        """Return the ns of a message from `rank` to the rank `delta` on.

        Raises `SimulationError` if it takes too long for a sum of 64 bits.
        """
        return self._kept.get((delta, size), lambda: self._delay(rank, rank + delta, size))

    def _delay(self, sender: int, receiver: int, size: int) -> int:
        delay = self._delays.delay(sender, receiver, size)
        if delay > SHORT_NS:
            raise SimulationError("a message takes longer than the fast ways count")
        return delay
