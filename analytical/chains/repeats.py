"""Stops that come again and again, as those of like layers do, and what is left out of them once times only move on.

When sets leave a collective depends on when they enter it relative to each other, so stops that move all their sets'
times by the same do so each time from then on, as long as they are of the same bytes and as far from each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from analytical.chains.stops import CollectiveStop, SoloRun, Stop
from converters.execution_graph import IntArray
from foundation.records import dataclass

LONGEST = 12
"""So many stops may lie between two that are alike."""
FEWEST = 4
"""Repeats for which it is worth looking."""


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """From stop number `first` of a plan on, `period` stops come `times` times.

    `sets`: (set, number of its first stop there, how many of its stops are in a period).
    """

    first: int
    period: int
    times: int
    sets: tuple[tuple[int, int, int], ...]

    def same(self, sizes: Sequence[Sequence[int]], segments: Sequence[IntArray]) -> bool:
        """Whether the stops are of the same bytes each time, and stretches of the same length follow each.

        `sizes` by set and stop; `segments` by set ``[k, stretches]``, of which stretch i + 1 follows stop i. What
        follows the last stop of all is something else.
        """
        for index, first, stops in self.sets:
            end = first + stops * self.times
            own = sizes[index]
            if own[first : end - stops] != own[first + stops : end]:
                return False
            behind = segments[index][:, first + 1 : end]
            if (behind[:, :-stops] != behind[:, stops:]).any():
                return False
        return True


def find_repeats(stops: Sequence[Stop]) -> list[Repeat]:
    """Return what repeats among the stops of a plan, in order and without overlaps."""
    kinds = [_kind(stop) for stop in stops]
    found: list[Repeat] = []
    at = 0
    while at < len(stops):
        best = max((_times(kinds, at, period) * period, -period) for period in range(1, LONGEST + 1))
        period = -best[1]
        times = best[0] // period
        if times < FEWEST:
            at += 1
            continue
        found.append(Repeat(at, period, times, _sets(stops[at : at + period])))
        at += period * times
    return found


def _times(kinds: Sequence[object], at: int, period: int) -> int:
    """Return how many times the `period` stops from `at` on come; 1 where one of them is no collective."""
    if None in kinds[at : at + period]:
        return 1
    end = at + period
    while end < len(kinds) and kinds[end] == kinds[end - period]:
        end += 1
    return max((end - at) // period, 1)


def _kind(stop: Stop) -> object:
    """Return what is the same of stops that are alike; None of a message."""
    if isinstance(stop, CollectiveStop):
        return id(stop.meeting), *(index for index, _ in stop.members)
    if isinstance(stop, SoloRun):
        return stop.index, *((id(meeting), count) for meeting, count in stop.alike)
    return None


def _sets(stops: Sequence[Stop]) -> tuple[tuple[int, int, int], ...]:
    first: dict[int, int] = {}
    counts: dict[int, int] = {}
    for stop in stops:
        if isinstance(stop, CollectiveStop):
            own = [(index, at, 1) for index, at in stop.members]
        else:
            assert isinstance(stop, SoloRun)
            own = [(stop.index, stop.first, sum(count for _, count in stop.alike))]
        for index, at, count in own:
            first.setdefault(index, at)
            counts[index] = counts.get(index, 0) + count
    return tuple((index, first[index], counts[index]) for index in first)
