"""When the stages of a pipeline begin and end batches: each when the stage before is done with the batch, and it
itself with the batch before.

    stage 0   |A0 |B0 |   |A1 ...
    stage 1       |A0 |B0 |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Passage(NamedTuple):
    """When each stage began and ended one batch (ns)."""

    begins: list[int]
    ends: list[int]


class StageClock:
    """When each stage is free (ns)."""

    def __init__(self, stages: int) -> None:
        self.free = [0] * stages

    def passage(self, ready: int, finishes: Sequence[int]) -> Passage:
        """Return when each stage begins and ends a batch that may start at `ready`.

        `finishes` are the stages' ends on an idle pipeline, from the start; what lies between two is a stage's time.
        """
        begins, ends, end, previous = [], [], ready, 0
        for finish, free in zip(finishes, self.free, strict=True):
            begin = max(end, free)
            end = begin + finish - previous
            previous = finish
            begins.append(begin)
            ends.append(end)
        return Passage(begins, ends)
