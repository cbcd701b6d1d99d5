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

    def passage(self, ready: int, takes: Sequence[int]) -> Passage:
        """Return when each stage, which takes so long, begins and ends a batch that may start at `ready`."""
        begins, ends, end = [], [], ready
        for take, free in zip(takes, self.free, strict=True):
            begin = end if end > free else free
            end = begin + take
            begins.append(begin)
            ends.append(end)
        return Passage(begins, ends)
