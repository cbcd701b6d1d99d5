"""Charts of the page: step lines, curves, and one stacked bar. Colours are CSS classes of the page.

    title   # one  # other                        text is HTML, so that it has its size on every screen;
    tokens/s                                      lines are an SVG that is stretched to whatever room there is
    10k |  ____      /\\
        |      \\____/  \\___
      0 +-----|-----|-----|----
        0    10    20    30
               time, s
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.report.axes import Axis, linear_axis, log_axis, tick_text
from orchestrator.report.markup import escape

FloatArray = NDArray[np.float64]
SIDE = 1000.0
"""Width and height of the drawing before it is stretched."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One line: its legend label, CSS class suffix (``1`` to ``4``), and points of shape ``[n]``."""

    label: str
    colour: int
    x: FloatArray
    y: FloatArray
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical dashed line at `x`; `label` stands in the list below the chart."""

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
    y_max: float | None = None
    log_x: bool = False

    def to_html(self) -> str:
        """Return the ``<figure>`` element."""
        x, y = self._axes()
        return (
            f'<figure class="chart" aria-label="{escape(self.title)}">'
            f"<figcaption><b>{escape(self.title)}</b>{self._legend()}</figcaption>"
            f'<div class="soft unit">{escape(self.y_label)}</div>'
            f'<div class="frame"><div class="ys">{_labels(y, "bottom")}</div>'
            f'<svg viewBox="0 0 {SIDE:g} {SIDE:g}" preserveAspectRatio="none" aria-hidden="true">{self._drawing(x, y)}'
            f'</svg><div class="xs">{_labels(x, "left")}</div></div>'
            f'<div class="soft unit middle">{escape(self.x_label)}</div>{self._marks_listed()}</figure>'
        )

    def _axes(self) -> tuple[Axis, Axis]:
        xs = np.concatenate([series.x for series in self.series])
        ys = np.concatenate([series.y for series in self.series])
        least, most = float(xs.min()), float(xs.max())
        x_axis = log_axis(least, most) if self.log_x else linear_axis(most, exact=True)
        return x_axis, linear_axis(self.y_max if self.y_max is not None else float(ys.max()))

    def _legend(self) -> str:
        if len(self.series) < 2:
            return ""
        return "".join(_key(series.colour, series.label) for series in self.series)

    def _drawing(self, x: Axis, y: Axis) -> str:
        heights = [_down(y, value) for value in y.ticks]
        grid = [f'<line class="grid" x1="0" x2="{SIDE:g}" y1="{at}" y2="{at}"/>' for at in heights]
        lines = [part for series in self.series for part in _line(series, x, y)]
        marks = [
            f'<line class="mark" x1="{at}" x2="{at}" y1="0" y2="{SIDE:g}"/>'
            for at in (_along(x, mark.x) for mark in self.marks)
        ]
        return "".join([*grid, *lines, *marks])

    def _marks_listed(self) -> str:
        if not self.marks:
            return ""
        listed = "".join(f"<span>{escape(mark.label)}</span>" for mark in self.marks)
        return f'<div class="soft marks">{listed}</div>'


def stacked_bar(title: str, parts: Sequence[tuple[str, int, float]]) -> str:
    """Return one horizontal bar of parts (label, colour, amount); labels and shares stand in a legend below it."""
    total = sum(amount for _, _, amount in parts)
    shares = [amount / total if total else 0.0 for _, _, amount in parts]
    pieces = "".join(
        f'<div class="fill{colour}" style="width:{100 * share:.3f}%"></div>'
        for (_, colour, _), share in zip(parts, shares, strict=True)
        if share
    )
    legend = "".join(
        _key(colour, f"{label} {100 * share:.1f} %") for (label, colour, _), share in zip(parts, shares, strict=True)
    )
    return (
        f'<figure class="chart" aria-label="{escape(title)}"><figcaption><b>{escape(title)}</b></figcaption>'
        f'<div class="bar">{pieces}</div><div class="legend">{legend}</div></figure>'
    )


def _key(colour: int, label: str) -> str:
    return f'<span class="key"><i class="fill{colour}"></i>{escape(label)}</span>'


def _labels(axis: Axis, side: str) -> str:
    return "".join(
        f'<span style="{side}:{100 * axis.share(value):.2f}%">{tick_text(value)}</span>' for value in axis.ticks
    )


def _along(axis: Axis, value: float) -> str:
    return f"{SIDE * axis.share(value):.1f}"


def _down(axis: Axis, value: float) -> str:
    return f"{SIDE * (1 - axis.share(value)):.1f}"


def _line(series: Series, x: Axis, y: Axis) -> list[str]:
    pairs = zip(series.x.tolist(), series.y.tolist(), strict=True)
    points = " ".join(f"{_along(x, a)},{_down(y, b)}" for a, b in pairs)
    line = f'<polyline class="line stroke{series.colour}" points="{points}"/>'
    if not series.filled:
        return [line]
    first, last = _along(x, float(series.x[0])), _along(x, float(series.x[-1]))
    area = f"{first},{SIDE:g} {points} {last},{SIDE:g}"
    return [f'<polygon class="area fill{series.colour}" points="{area}"/>', line]
