"""Where the ranks of chains wait for others: collectives, sends and receives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analytical.chains.meetings import Meeting
from foundation.records import dataclass


@dataclass(slots=True)
class CollectiveStop:
    """Sets that enter a collective together. `members`: (set, number of the stop within the set)."""

    meeting: Meeting
    members: list[tuple[int, int]]


@dataclass(slots=True)
class SoloRun:
    """Collectives in a row that one set has to itself; the first is stop number `first` of the set.

    `alike`: so many of one kind follow each other.
    """

    index: int
    first: int
    alike: list[tuple[Meeting, int]]

    @property
    def meetings(self) -> list[Meeting]:
        """The kind of each."""
        return [meeting for meeting, count in self.alike for _ in range(count)]

    def add(self, meeting: Meeting) -> None:
        """Add one at the end."""
        last, count = self.alike[-1]
        if last is meeting:
            self.alike[-1] = (meeting, count + 1)
        else:
            self.alike.append((meeting, 1))


@dataclass(slots=True)
class MessageStop:
    """A SEND of a set, `sender`: (set, number of the stop within the set). Its arrival is kept in `slot`."""

    sender: tuple[int, int]
    delta: int
    slot: int


@dataclass(slots=True, eq=False)
class ReceiveStop:
    """The RECV of `send`'s message. ``places[i]``: the sender's column for the receiver's column i."""

    receiver: tuple[int, int]
    send: MessageStop
    places: NDArray[np.int64]


Stop = CollectiveStop | SoloRun | MessageStop | ReceiveStop
