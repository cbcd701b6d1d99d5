"""A fabric: how long its collectives take, as curves over bytes for numbers of ranks.

Bytes are what NVIDIA's nccl-tests call a collective's size, of which a trace's `comm_bytes` differ for one kind::

    all_reduce        the vector that every rank has
    all_gather        all parts together, as every rank has them in the end    ranks x comm_bytes
    reduce_scatter    all parts together, as every rank has them before
    all_to_all        what a rank sends, the part that stays with it included

Between two points a curve is a straight line, below the first it is level, and above the last it goes on as it went
between the last two. (Leaving out one row after another of 101 measured curves, the line misses it by 1.9% in the
median and by 5.1% in the mean; a line between logarithms by 2.8% and 5.8%.) Between two numbers of ranks the logarithm
of the time is a straight line over the logarithm of the number: 4 ranks, from 2 and 8, are missed by 6.7% in the median
and by 10.9% in the mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass

IntArray = NDArray[np.int64]
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
LONGEST_NS = 10**15
"""Eleven days: a line that goes on without end stops there."""
SHARE = 2 / 3
"""What another collective takes of an all-reduce of as many bytes, where a fabric has no curve of its own for it: the
median over 1260 rows of NCCL on seven machines (all-gather 0.68, reduce-scatter 0.66, all-to-all 0.68)."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What one collective takes over one number of ranks: `ns` for each of `sizes` (bytes, increasing)."""

    sizes: tuple[int, ...]
    ns: tuple[float, ...]
    source: str

    def times(self, sizes: IntArray) -> NDArray[np.float64]:
        """Return the ns for each of `sizes`."""
        known = np.array(self.sizes, dtype=np.float64)
        found: NDArray[np.float64] = np.interp(sizes, known, self.ns)
        beyond = np.maximum(sizes - known[-1], 0.0)
        result: NDArray[np.float64] = found + beyond * self._last_slope()
        return result

    def _last_slope(self) -> float:
        """Return ns a byte above the last point; of a lone point what it took a byte."""
        if len(self.sizes) == 1:
            return self.ns[0] / self.sizes[0]
        return max(0.0, (self.ns[-1] - self.ns[-2]) / (self.sizes[-1] - self.sizes[-2]))


@dataclass(frozen=True, slots=True, eq=False)
class Fabric:
    """One fabric: `curves` by collective and number of ranks; `origin`: who measured, in short, `sources`: exactly."""

    name: str
    device: str
    origin: str
    curves: Mapping[str, Mapping[int, Curve]]
    sources: Mapping[str, str]

    def lacks(self, collective: str, ranks: int) -> str:
        """Return why the fabric has no time for `collective` over `ranks`, "" where it has."""
        name = self._taken_from(collective)
        if name is None:
            return f"{self.name} has no curve for {collective}"
        known = self.curves[name]
        if not min(known) <= ranks <= max(known):
            numbers = f"{min(known)} to {max(known)} ranks" if len(known) > 1 else f"{min(known)} ranks"
            return f"{self.name} has {name} over {numbers}, not over {ranks}"
        return ""

    def derives(self, collective: str) -> bool:
        """Whether `collective` has no curve of its own, and takes its share of the all-reduce's."""
        return self._taken_from(collective) != collective

    def times_ns(self, collective: str, ranks: int, sizes: IntArray) -> IntArray:
        """Return the ns, from 1 to `LONGEST_NS`, of `collective` over `ranks` for each of `sizes`; see `lacks`."""
        known = self.curves[self._taken_from(collective) or collective]
        share = SHARE if self.derives(collective) else 1.0
        times = share * _between(known, ranks, sizes)
        result: IntArray = np.clip(np.rint(times), 1, LONGEST_NS).astype(np.int64)
        return result

    def least_ns(self, collective: str, ranks: int) -> int:
        """Return the shortest time that `times_ns` has for any size."""
        known = self.curves[self._taken_from(collective) or collective]
        sizes = {size for curve in known.values() for size in curve.sizes}
        return int(self.times_ns(collective, ranks, np.array(sorted(sizes), dtype=np.int64)).min())

    def _taken_from(self, collective: str) -> str | None:
        return next((name for name in (collective, COLLECTIVES[0]) if name in self.curves), None)


def _between(known: Mapping[int, Curve], ranks: int, sizes: IntArray) -> NDArray[np.float64]:
    if ranks in known:
        return known[ranks].times(sizes)
    below, above = max(n for n in known if n < ranks), min(n for n in known if n > ranks)
    part = math.log(ranks / below) / math.log(above / below)
    low, high = np.log(known[below].times(sizes)), np.log(known[above].times(sizes))
    result: NDArray[np.float64] = np.exp(low + part * (high - low))
    return result


def whole(points: Sequence[tuple[int, float]], source: str) -> Curve:
    """Return the curve through `points` (bytes, ns)."""
    return Curve(tuple(size for size, _ in points), tuple(ns for _, ns in points), source)
