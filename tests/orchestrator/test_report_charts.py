"""The points of the charts against the values they stand for."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.intervals import Interval
from orchestrator.report.curves import BINS, CURVE_POINTS, cumulative, over_time, steps
from orchestrator.report.svg import Chart, Mark, Series, linear_axis, log_axis, stacked_bar, tick_text

values = st.lists(st.tuples(st.integers(0, 10**12), st.integers(1, 9)), min_size=1, max_size=300)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(values)
def test_a_curve_is_on_the_distribution_and_reaches_both_ends(pairs: list[tuple[int, int]]) -> None:
    numbers, weights = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    x, y = cumulative(numbers, weights)
    flat = np.sort(np.repeat(numbers, weights))
    assert len(x) <= CURVE_POINTS + 1 and (np.diff(x) >= 0).all() and (np.diff(y) > 0).all()
    assert (x[0], x[-1], y[0], y[-1]) == (flat[0], flat[-1], 0, 100)
    for value, share in zip(x[1:], y[1:], strict=True):
        below, up_to = (100 * np.searchsorted(flat, value, side=side) / len(flat) for side in ("left", "right"))
        assert below < share <= up_to + 1e-9


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sets(st.integers(0, 3000), min_size=1, max_size=50), st.integers(1, 10**9))
def test_over_time_loses_no_tokens_and_no_peak(present: set[int], length: int) -> None:
    rows = [Interval((i + 1) * length, 3.0 * i, 7.0, i % 11, i % 5, i % 3 / 3) for i in sorted(present)]
    edges, columns, seconds = over_time(rows, length)
    assert len(edges) <= BINS + 1 and edges[-1] * 1e9 >= rows[-1].end_ns * (1 - 1e-12)
    assert sum(columns["prompt_per_s"]) * seconds == pytest.approx(sum(r.prompt_per_s for r in rows) * length / 1e9)
    assert sum(columns["generation_per_s"]) * seconds == pytest.approx(7.0 * len(rows) * length / 1e9)
    for name in ("running", "waiting", "kv_used"):
        assert columns[name].max() == max(getattr(row, name) for row in rows)
    x, y = steps(edges, columns["running"])
    assert x.shape == y.shape and (x[0], x[-1]) == (edges[0], edges[-1])


def test_idle_stretches_are_drawn_as_nothing() -> None:
    busy = Interval(1_000, 1.0, 2.0, 3, 4, 0.5), Interval(4_000, 1.0, 2.0, 3, 4, 0.5)
    _, columns, _ = over_time(busy, 1_000)
    assert columns["running"].tolist() == [3, 0, 0, 3] and columns["generation_per_s"].tolist() == [2, 0, 0, 2]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(1e-6, 1e12), st.floats(8.0, 1e6))
def test_axes_hold_their_values_and_label_a_few(low: float, ratio: float) -> None:
    high = low * ratio
    for axis in (linear_axis(high, 0, 100), linear_axis(high, 0, 100, exact=True), log_axis(low, high, 0, 100)):
        places = [axis.place(value) for value in (low, (low + high) / 2, high)]
        assert places == sorted(places) and all(-1e-6 <= place <= 100 + 1e-6 for place in places)
        assert 1 <= len(axis.ticks) <= 10 and all(-1e-6 <= axis.place(tick) <= 100 + 1e-6 for tick in axis.ticks)


def test_an_axis_of_nothing_has_room() -> None:
    assert linear_axis(0.0, 0, 10).place(0.0) == 0
    assert linear_axis(0.0, 0, 10, exact=True).ticks == (0.0, 1.0)


def test_a_chart_is_well_formed_and_escapes() -> None:
    series = Series("a < b", 1, np.array([0.0, 1.0, 2.0]), np.array([0.0, 5.0, 2.0]), filled=True)
    chart = Chart("T & U", "time, s", "tokens/s", (series, series), (Mark("P50 <1 ms", 1.0),))
    root = ET.fromstring(chart.to_svg())
    assert root.get("aria-label") == "T & U"
    line = next(element for element in root if element.tag == "polyline")
    points = [tuple(map(float, pair.split(","))) for pair in str(line.get("points")).split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[1][1] < points[2][1] < points[0][1], "greater values stand higher"


def test_a_bars_parts_have_the_length_of_their_shares() -> None:
    root = ET.fromstring(stacked_bar("B", [("x", 1, 30.0), ("nothing", 4, 0.0), ("y", 2, 10.0)], width=404))
    lengths = [float(str(part.get("width"))) for part in root if part.tag == "rect" and part.get("y") == "26"]
    assert lengths == [300, 100]
    shares = [str(part.text) for part in root if part.get("class") == "small"]
    assert shares == ["x 75.0 %", "nothing 0.0 %", "y 25.0 %"]
    assert "0.0 %" in stacked_bar("B", [("x", 1, 0.0)])


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.25, "0.25"), (5000.0, "5000"), (10000.0, "10k"), (2.5e6, "2.5M"), (3e9, "3G")]
)
def test_tick_labels_are_short(value: float, text: str) -> None:
    assert tick_text(value) == text
