"""The points of the charts against the values they stand for."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.observers.intervals import Interval
from orchestrator.report.axes import MOST_LOG_TICKS, linear_axis, log_axis, tick_text
from orchestrator.report.charts import SIDE, Chart, Mark, Series, stacked_bar
from orchestrator.report.curves import BINS, CURVE_POINTS, cumulative, over_time, steps

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
    for axis in (linear_axis(high), linear_axis(high, exact=True), log_axis(low, high)):
        shares = [axis.share(value) for value in (low, (low + high) / 2, high)]
        assert shares == sorted(shares) and all(-1e-9 <= share <= 1 + 1e-9 for share in shares)
        assert 1 <= len(axis.ticks) <= MOST_LOG_TICKS and all(
            -1e-9 <= axis.share(tick) <= 1 + 1e-9 for tick in axis.ticks
        )
        assert list(axis.ticks) == sorted(set(axis.ticks))


def test_ticks_are_round_and_as_many_as_have_room() -> None:
    assert linear_axis(100.0).ticks == (0, 20, 40, 60, 80, 100)
    assert linear_axis(101.0).ticks == (0, 25, 50, 75, 100, 125)
    assert linear_axis(101.0, exact=True).ticks == (0, 25, 50, 75, 100) and linear_axis(101.0, exact=True).high == 101.0
    assert log_axis(1.5, 60.0).ticks == (2, 5, 10, 20, 50)
    assert log_axis(1.0, 100.0).ticks == (1, 2, 5, 10, 20, 50, 100)
    assert log_axis(1.0, 300.0).ticks == (1, 10, 100)
    assert log_axis(1.0, 1e9).ticks == (1, 100, 1e4, 1e6, 1e8)


def test_an_axis_of_nothing_has_room() -> None:
    assert linear_axis(0.0).share(0.0) == 0
    assert linear_axis(0.0, exact=True).ticks == (0.0, 1.0)


def parsed(html: str) -> ET.Element:
    return ET.fromstring(html)


def test_a_chart_is_well_formed_and_escapes() -> None:
    series = Series("a < b", 1, np.array([0.0, 1.0, 2.0]), np.array([0.0, 5.0, 2.0]), filled=True)
    root = parsed(Chart("T & U", "time, s", "tokens/s", (series, series), (Mark("P50 <1 ms", 1.0),)).to_html())
    assert root.get("aria-label") == "T & U"
    text = "".join(root.itertext())
    for words in ("T & U", "a < b", "time, s", "tokens/s", "P50 <1 ms"):
        assert words in text
    drawn = {tag: [element for element in root.iter() if element.tag == tag] for tag in ("polyline", "polygon", "line")}
    points = [tuple(map(float, pair.split(","))) for pair in str(drawn["polyline"][0].get("points")).split()]
    assert points == [(0, SIDE), (SIDE / 2, 0), (SIDE, 0.6 * SIDE)], "greater values stand higher"
    area = [tuple(map(float, pair.split(","))) for pair in str(drawn["polygon"][0].get("points")).split()]
    assert area == [(0, SIDE), *points, (SIDE, SIDE)], "filled down to zero"
    marks = [line for line in drawn["line"] if line.get("class") == "mark"]
    assert [line.get("x1") for line in marks] == [f"{SIDE / 2:.1f}"]
    assert len(drawn["line"]) - len(marks) == 6, "a grid line a tick: 0 to 5"


def test_a_single_line_needs_no_legend_and_marks_stand_below() -> None:
    line = Series("alone", 1, np.array([1.0, 100.0]), np.array([0.0, 100.0]))
    chart = Chart("T", "ms", "%", (line,), (Mark("P50 2 ms", 2.0), Mark("P99 2.1 ms", 2.1)), y_max=100, log_x=True)
    root = parsed(chart.to_html())
    assert "alone" not in "".join(root.itertext())
    assert [element.text for element in root[-1]] == ["P50 2 ms", "P99 2.1 ms"], "labels cannot touch in a list"
    ticks = [element.text for element in root.iter() if "left:" in str(element.get("style"))]
    assert ticks == ["1", "2", "5", "10", "20", "50", "100"]


def test_a_bars_parts_have_the_length_of_their_shares() -> None:
    root = parsed(stacked_bar("B", [("x", 1, 30.0), ("nothing", 4, 0.0), ("y", 2, 10.0)]))
    bar, legend = root[1], root[2]
    assert [part.get("style") for part in bar] == ["width:75.000%", "width:25.000%"]
    assert ["".join(part.itertext()) for part in legend] == ["x 75.0 %", "nothing 0.0 %", "y 25.0 %"]
    assert "0.0 %" in stacked_bar("B", [("x", 1, 0.0)])


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.25, "0.25"), (5000.0, "5000"), (10000.0, "10k"), (2.5e6, "2.5M"), (3e9, "3G")]
)
def test_tick_labels_are_short(value: float, text: str) -> None:
    assert tick_text(value) == text
