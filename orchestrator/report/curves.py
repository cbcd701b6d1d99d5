"""From the columns of a run to the few hundred points that a chart can show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.observers.intervals import Interval

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
CURVE_POINTS = 240
BINS = 600


def cumulative(values: IntArray | FloatArray, weights: IntArray | None = None) -> tuple[FloatArray, FloatArray]:
    """Return points of the cumulative distribution of `values` ``[n]``, each counted `weights` times (default 1).

    x ascends through evenly spaced ranks, the least and the greatest included; y is the share (%) of values up to x.
    `values` must not be empty.
    """
    if weights is None:
        weights = np.ones(len(values), dtype=np.int64)
    order = np.argsort(values, kind="stable")
    ranked, ends = values[order], np.cumsum(weights[order])
    total = int(ends[-1])
    ranks = np.linspace(0, total - 1, min(total, CURVE_POINTS)).round().astype(np.int64)
    ranks = ranks[np.diff(ranks, prepend=-1) > 0]
    x = ranked[np.searchsorted(ends, ranks, side="right")].astype(np.float64)
    return np.concatenate((x[:1], x)), np.concatenate(([0.0], 100.0 * (ranks + 1) / total))


def over_time(intervals: Sequence[Interval], length_ns: int) -> tuple[FloatArray, dict[str, FloatArray], float]:
    """Return bin edges (s) ``[b + 1]``, one column ``[b]`` a quantity, and the seconds of a bin.

    Intervals without a row are idle: nothing flows and nothing is in use. Where there are more than `BINS` intervals,
    several make a bin, which shows their mean throughput and their greatest state.
    """
    index = np.array([interval.end_ns // length_ns - 1 for interval in intervals], dtype=np.int64)
    count = int(index[-1]) + 1
    merged = -(-count // BINS)
    bins = -(-count // merged)
    place = index // merged
    columns: dict[str, FloatArray] = {}
    for name in ("prompt_per_s", "generation_per_s"):
        values = np.array([getattr(interval, name) for interval in intervals], dtype=np.float64)
        columns[name] = np.bincount(place, weights=values, minlength=bins) / merged
    for name in ("running", "waiting", "kv_used"):
        columns[name] = np.zeros(bins)
        np.maximum.at(columns[name], place, np.array([getattr(interval, name) for interval in intervals], dtype=float))
    seconds = merged * length_ns / 1e9
    return np.arange(bins + 1, dtype=np.float64) * seconds, columns, seconds


def steps(edges: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the corners of the step line that is `values` ``[b]`` between `edges` ``[b + 1]``."""
    return np.repeat(edges, 2)[1:-1], np.repeat(values, 2)
