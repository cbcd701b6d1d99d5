"""How much longer attention takes where contexts are unequal: the tail of the longest.

A thread block works through the context of one request and head. Where the kernel does not split a context over
blocks, the last block of the longest request runs on alone when all others are done, as fast as one block can read:

    excess = tau (longest - mean)

`skew.csv` holds batches of contexts of two lengths beside equal ones of the same mean; tau is the straight line through
their excesses, for each number of decodes, alone and beside a prompt. It is near 0 where contexts are split (few
decodes alone), and else nearly the same for every model and number of decodes on a device: 12 to 15 ns a token on an
RTX PRO 6000. (The bundle's `skew_fit.csv` has a share of the way from the time at the mean to that at the longest, by
buckets of sizes; docs/accuracy.md compares the two on a recorded server.)

Longest contexts beyond 8,192 tokens are left out of the lines, as are batches whose caches are so large beside a prompt
that heads no longer find them in the device's cache: what those take is in `attention.csv`'s own times.
The times of `skew.csv` may be sums over iterations, where those of other tables are means: how many, the two tables'
times of equal contexts say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.measured.reading import read_rows

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BATCH = ("n", "pc")
CONTEXTS = ("kv_big", "kv_mean")
TIMES = ("t_mean_us", "t_skew_us")
LONGEST = 8192
CHUNKS = (128, 1024)
MOST_CACHED = 180_000
"""Tokens of all contexts beside a prompt up to which lines are fitted."""


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Tau (ns a token of context) by number of decodes: `taus` at `counts`, ``[c]``, of those with rows to fit."""

    counts: FloatArray
    taus: FloatArray

    def tau(self, count: int) -> float:
        """Return tau of `count` decodes; 0 where nothing was fitted."""
        return float(np.interp(count, self.counts, self.taus)) if len(self.counts) else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Skew:
    """The tails of decodes `alone`, and `beside` a prompt."""

    alone: Tail
    beside: Tail

    def excess_ns(self, count: int, mean: FloatArray, most: IntArray, *, prompts: bool) -> FloatArray:
        """Return what `count` unequal contexts take longer than equal ones at each step, ``[k]``."""
        return (self.beside if prompts else self.alone).tau(count) * (most - mean)


def read_skew(path: Path, alone_ns: Callable[[int, float], float]) -> Skew:
    """Return the lines of a ``skew.csv``; what is wrong is a `UserError`.

    `alone_ns`: the time of so many decodes on so much context each, alone, as measured elsewhere.
    """
    rows = read_rows(path, (*BATCH, *CONTEXTS, *TIMES))
    decodes, chunk = rows.sizes(BATCH[:1], least=1)[:, 0], rows.sizes(BATCH[1:])[:, 0]
    longest, mean = rows.amounts(CONTEXTS).T
    equal, unequal = rows.times(TIMES, "microseconds").T
    alone = chunk == 0
    known = [alone_ns(count, context) for count, context in zip(decodes[alone].tolist(), mean[alone], strict=True)]
    iterations = float(np.median(equal[alone] * 1e3 / known)) if alone.any() else 1.0
    fitted = longest <= LONGEST
    fitted &= alone | ((chunk >= CHUNKS[0]) & (chunk <= CHUNKS[1]) & (decodes * mean <= MOST_CACHED))
    longer, excess = longest - mean, (unequal - equal) * (1e3 / iterations)
    return Skew(*(_tail(decodes[own], longer[own], excess[own]) for own in (fitted & alone, fitted & ~alone)))


def _tail(decodes: IntArray, longer: FloatArray, excess: FloatArray) -> Tail:
    counts = np.unique(decodes)
    taus = [_slope(longer[own], excess[own]) for own in (decodes == count for count in counts)]
    return Tail(counts.astype(np.float64), np.array(taus))


def _slope(longer: FloatArray, excess: FloatArray) -> float:
    """Return the slope of the line through the origin that is nearest to the excesses, never below 0."""
    squares = float((longer**2).sum())
    return max(0.0, float((longer * excess).sum()) / squares) if squares else 0.0
