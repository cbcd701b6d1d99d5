"""Axes: where values stand along a length, and which of them are labelled."""

from __future__ import annotations

import math

from foundation.records import dataclass

MOST_LOG_TICKS = 7
LINEAR_STEPS = 5


@dataclass(frozen=True, slots=True)
class Axis:
    """Places values from `low` (0) to `high` (1); `ticks` are the values that are labelled."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Return how far along the axis `value` stands, 0 to 1."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        value = math.log10(max(value, self.low)) if self.log else value
        return (value - low) / (high - low)


def linear_axis(high: float, *, exact: bool = False) -> Axis:
    """Return an axis from 0 to `high`, or (not `exact`) to the round number above it, with about five ticks."""
    step = _round_step(high / LINEAR_STEPS) if high > 0 else 1.0
    count = max(1, math.ceil(round(high / step, 9)))
    ticks = tuple(step * index for index in range(count + 1))
    if exact and high > 0:
        return Axis(0.0, high, tuple(tick for tick in ticks if tick <= high))
    return Axis(0.0, ticks[-1], ticks)


def log_axis(low: float, high: float) -> Axis:
    """Return an axis from `low` to `high`, both positive, with ticks at 1, 2 and 5 of each decade or at its start.

    Where that would be many, every second decade is labelled, or every third, and so on.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = [10.0**power for power in range(first, last + 1)]
    fine = [value for decade in decades for value in (decade, 2 * decade, 5 * decade) if low <= value <= high]
    coarse = [value for value in decades if low <= value <= high]
    stride = math.ceil(len(coarse) / MOST_LOG_TICKS)
    return Axis(low, high, tuple(fine if len(fine) <= MOST_LOG_TICKS else coarse[::stride]), log=True)


def tick_text(value: float) -> str:
    """Return a short label: 12000 as ``12k``, 0.25 as it is."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):g}{suffix}"
    return f"{round(value, 9):g}"


def _round_step(rough: float) -> float:
    scale: float = 10.0 ** math.floor(math.log10(rough))
    return next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= rough * (1 - 1e-9))
