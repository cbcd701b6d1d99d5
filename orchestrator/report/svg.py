"""Small inline SVG charts: step lines, curves, and one stacked bar. Colours are CSS classes of the page.

    left margin |  title ............................
           max -|  ____      /\\
                |      \\____/  \\___
             0 -+-----|-----|-----|----  tick labels
                          x label
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
LEFT, RIGHT, TOP, BOTTOM = 62.0, 14.0, 34.0, 44.0


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its legend label, CSS class suffix (``1`` to ``4``), and points of shape ``[n]``."""

    label: str
    colour: int
    x: FloatArray
    y: FloatArray
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical dashed line at `x` with a short label."""

    label: str
    x: float


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart. Labels name their units; `y_max` None: from the data; `log_x`: decades along the x axis."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    width: int = 760
    height: int = 230
    y_max: float | None = None
    log_x: bool = False

    def to_svg(self) -> str:
        """Return the ``<svg>`` element."""
        x, y = self._axes()
        legend = len(self.series) > 1
        parts = [
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.title)}">',
            f'<text class="title" x="{LEFT:g}" y="16">{escape(self.title)}</text>',
            *(self._legend() if legend else ()),
            *self._grid(x, y),
            *(part for series in self.series for part in self._line(series, x, y)),
            *(part for index, mark in enumerate(self.marks) for part in self._mark(mark, index, x)),
            "</svg>",
        ]
        return "".join(parts)

    def _axes(self) -> tuple[Axis, Axis]:
        xs = np.concatenate([series.x for series in self.series])
        ys = np.concatenate([series.y for series in self.series])
        right = self.width - RIGHT
        bottom = self.height - BOTTOM
        least, most = float(xs.min()), float(xs.max())
        x_axis = log_axis(least, most, LEFT, right) if self.log_x else linear_axis(most, LEFT, right, exact=True)
        top = self.y_max if self.y_max is not None else float(ys.max())
        return x_axis, linear_axis(top, bottom, TOP)

    def _legend(self) -> list[str]:
        parts, right = [], self.width - RIGHT
        for series in reversed(self.series):
            right -= 6.6 * len(series.label)
            parts.append(f'<text class="small" x="{right:.1f}" y="16">{escape(series.label)}</text>')
            parts.append(
                f'<rect class="fill{series.colour}" x="{right - 15:.1f}" y="7" width="10" height="10" rx="2"/>'
            )
            right -= 32
        return parts

    def _grid(self, x: Axis, y: Axis) -> list[str]:
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        parts = []
        for value in y.ticks:
            at = y.place(value)
            parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{right:g}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text class="tick end" x="{LEFT - 7:g}" y="{at + 4:.1f}">{tick_text(value)}</text>')
        for value in x.ticks:
            at = x.place(value)
            parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom:g}" y2="{bottom + 4:g}"/>')
            parts.append(f'<text class="tick middle" x="{at:.1f}" y="{bottom + 17:g}">{tick_text(value)}</text>')
        middle = (LEFT + right) / 2
        turned = f"translate(13 {(TOP + bottom) / 2:g}) rotate(-90)"
        parts += [
            f'<line class="axis" x1="{LEFT:g}" x2="{right:g}" y1="{bottom:g}" y2="{bottom:g}"/>',
            f'<text class="small middle" x="{middle:g}" y="{self.height - 8}">{escape(self.x_label)}</text>',
            f'<text class="small middle" transform="{turned}">{escape(self.y_label)}</text>',
        ]
        return parts

    def _line(self, series: Series, x: Axis, y: Axis) -> list[str]:
        places = [
            f"{x.place(a):.1f},{y.place(b):.1f}" for a, b in zip(series.x.tolist(), series.y.tolist(), strict=True)
        ]
        points = " ".join(places)
        parts = []
        if series.filled:
            base = self.height - BOTTOM
            first, last = x.place(float(series.x[0])), x.place(float(series.x[-1]))
            area = f"{first:.1f},{base:.1f} {points} {last:.1f},{base:.1f}"
            parts.append(f'<polygon class="area fill{series.colour}" points="{area}"/>')
        parts.append(f'<polyline class="line stroke{series.colour}" points="{points}"/>')
        return parts

    def _mark(self, mark: Mark, index: int, x: Axis) -> list[str]:
        at, bottom = x.place(mark.x), self.height - BOTTOM
        y = bottom - 8 - 14 * index
        side = ("end", at - 4) if at > self.width * 0.6 else ("start", at + 4)
        return [
            f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP:g}" y2="{bottom:g}"/>',
            f'<text class="tick halo {side[0]}" x="{side[1]:.1f}" y="{y:g}">{escape(mark.label)}</text>',
        ]


@dataclass(frozen=True, slots=True)
class Axis:
    """Places values between two coordinates; `ticks` are the values that are labelled."""

    low: float
    high: float
    begin: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Return the coordinate of `value`."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        value = math.log10(max(value, self.low)) if self.log else value
        return self.begin + (self.end - self.begin) * (value - low) / (high - low)


def linear_axis(high: float, begin: float, end: float, *, exact: bool = False) -> Axis:
    """Return an axis from 0 to `high`, or (not `exact`) to the round number above it, with about five ticks."""
    step = _round_step(high / 5) if high > 0 else 1.0
    count = max(1, math.ceil(round(high / step, 9)))
    ticks = tuple(step * index for index in range(count + 1))
    if exact and high > 0:
        return Axis(0.0, high, begin, end, tuple(tick for tick in ticks if tick <= high))
    return Axis(0.0, ticks[-1], begin, end, ticks)


def log_axis(low: float, high: float, begin: float, end: float) -> Axis:
    """Return an axis from `low` to `high`, both positive, with ticks at 1, 2 and 5 of each decade or at its start."""
    decades = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    fine = [value for decade in decades for value in (decade, 2 * decade, 5 * decade) if low <= value <= high]
    coarse = [value for value in decades if low <= value <= high]
    return Axis(low, high, begin, end, tuple(fine if len(fine) <= 9 else coarse), log=True)


def stacked_bar(title: str, parts: Sequence[tuple[str, int, float]], *, width: int = 760) -> str:
    """Return one horizontal bar of parts (label, colour, amount); labels and shares stand in a legend below it."""
    total = sum(amount for _, _, amount in parts)
    elements = [
        f'<svg viewBox="0 0 {width} 76" role="img" aria-label="{escape(title)}">',
        f'<text class="title" x="2" y="16">{escape(title)}</text>',
    ]
    at, legend = 2.0, 2.0
    for label, colour, amount in parts:
        share = amount / total if total else 0.0
        length = (width - 4) * share
        text = f"{label} {100 * share:.1f} %"
        if length:
            elements.append(f'<rect class="fill{colour}" x="{at:.1f}" y="26" width="{length:.1f}" height="22"/>')
        elements.append(f'<rect class="fill{colour}" x="{legend:.1f}" y="58" width="10" height="10" rx="2"/>')
        elements.append(f'<text class="small" x="{legend + 15:.1f}" y="67">{escape(text)}</text>')
        at, legend = at + length, legend + 40 + 6.4 * len(text)
    return "".join([*elements, "</svg>"])


def tick_text(value: float) -> str:
    """Return a short label: 12000 as ``12k``, 0.25 as it is."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):g}{suffix}"
    return f"{round(value, 9):g}"


def _round_step(rough: float) -> float:
    scale: float = 10.0 ** math.floor(math.log10(rough))
    return next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= rough * (1 - 1e-9))
