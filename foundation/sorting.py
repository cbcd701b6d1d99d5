"""Sorting that compiles and keeps the order of what is equal, without any memory of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.compiling import inner

RUN = 16
"""Places that are put in order one by one before runs are merged."""


@inner
def sort_falling(sizes: NDArray[np.float64], count: int, order: NDArray[np.int64], space: NDArray[np.int64]) -> None:
    """Put the first `count` of `order`, which are places of `sizes`, in order of size, the largest first.

    `space` is as long, and what it holds is lost.
    """
    for begin in range(0, count, RUN):
        for place in range(begin + 1, min(begin + RUN, count)):
            own, at = order[place], place
            while at > begin and sizes[order[at - 1]] < sizes[own]:
                order[at] = order[at - 1]
                at -= 1
            order[at] = own
    width = RUN
    while width < count:
        for begin in range(0, count - width, 2 * width):
            _merge(sizes, order, space, begin, begin + width, min(begin + 2 * width, count))
        width *= 2


@inner
def _merge(
    sizes: NDArray[np.float64], order: NDArray[np.int64], space: NDArray[np.int64], first: int, second: int, end: int
) -> None:
    """Make one run of two that follow each other."""
    if sizes[order[second - 1]] >= sizes[order[second]]:
        return
    for at in range(first, second):
        space[at] = order[at]
    left, right, to = first, second, first
    while left < second and right < end:
        if sizes[space[left]] < sizes[order[right]]:
            order[to] = order[right]
            right += 1
        else:
            order[to] = space[left]
            left += 1
        to += 1
    while left < second:
        order[to] = space[left]
        left, to = left + 1, to + 1
