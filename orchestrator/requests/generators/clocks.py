"""Arrival times out of draws: gaps one after another, and the clock of a rate that changes.

Times are summed as whole numbers, so they do not depend on how draws are cut into blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError
from orchestrator.requests.generators.arrivals import ArrivalPlace
from orchestrator.requests.generators.elementary import FloatArray, log
from orchestrator.workload import LATEST_ARRIVAL_NS

IntArray = NDArray[np.int64]
_FIRST_BLOCK, _LARGEST_BLOCK = 64, 4096
_PARTS = 2**30
"""Units of a sum of draws whose mean is 1: 2^33 of them fit into 64 bits."""


def block_sizes() -> Iterator[int]:
    """Yield sizes of blocks: small ones first, for clients that send little."""
    size = _FIRST_BLOCK
    while True:
        yield size
        size = min(2 * size, _LARGEST_BLOCK)


def renewal(place: ArrivalPlace, gaps: Callable[[FloatArray], FloatArray]) -> Iterator[IntArray]:
    """Yield times whose gaps are independent: `gaps` makes them, in means, of draws."""
    stream, rate = place.stream("arrival"), place.mean_rate

    def drawn(size: int) -> IntArray:
        return nanoseconds(gaps(stream.uniforms(size)) / rate)

    return summed(drawn, at_zero=place.at_zero)


def nanoseconds(seconds: FloatArray) -> IntArray:
    """Return times in whole ns; those that no clock holds are the latest that one does."""
    return np.minimum(np.rint(seconds * 1e9), float(LATEST_ARRIVAL_NS)).astype(np.int64)


def summed(drawn: Callable[[int], IntArray], *, at_zero: bool) -> Iterator[IntArray]:
    """Yield the running sums of what `drawn` returns block by block, from 0 itself on where `at_zero`."""
    now = 0
    for size in block_sizes():
        gaps = drawn(size)
        if now + float(gaps.sum(dtype=np.float64)) > LATEST_ARRIVAL_NS:
            raise UserError(
                "arrivals are spread over more than 146 years", field="--request_rate", fix="give a higher rate"
            )
        ends = now + np.cumsum(gaps)
        yield np.concatenate(([now], ends[:-1])) if at_zero else ends
        now = int(ends[-1])


def poisson_clock(place: ArrivalPlace) -> Iterator[FloatArray]:
    """Yield the arrivals of a Poisson process of rate 1: what a rate that changes is then stretched by."""
    stream = place.stream("arrival")

    def drawn(size: int) -> IntArray:
        return np.rint(-log(stream.uniforms(size)) * _PARTS).astype(np.int64)

    for block in summed(drawn, at_zero=place.at_zero):
        yield block.astype(np.float64) / _PARTS
