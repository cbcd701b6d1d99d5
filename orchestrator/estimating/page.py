"""The report of a comparison as one HTML page: both curves, their errors, the table, where time went."""

from __future__ import annotations

import numpy as np

from orchestrator.estimating.comparison import (
    HEADER,
    QUANTITIES,
    Comparison,
    Curve,
    FloatArray,
    curve_rows,
    efficiency_line,
    prompt_row,
    time_rows,
)
from orchestrator.report.charts import Chart, Series
from orchestrator.report.curves import BINS
from orchestrator.report.markup import card, document, escape, paragraph, section, table, tiles

FORMULA, FULL = ("formula", 1), ("full simulation", 2)
_TERMS = (
    "Formula: prompt phase = batch x prompt length / PTPS; the i-th token = (weights + (prompt length + i) x batch x "
    "KV bytes a token) / memory bandwidth. Full simulation: the same requests, all at once, served by the engine named "
    "above; a time is over when all requests have the token. An error is formula / full simulation - 1.",
)


def render(comparison: Comparison) -> str:
    """Return the page."""
    estimate = comparison.estimate
    title = f"{estimate.model} on {estimate.gpu}: formula and full simulation"
    parts = [
        f"<header><h1>{escape(title)}</h1>",
        paragraph(f"{estimate.asked}; {comparison.engine}; PTPS from {estimate.source}", soft=True),
        tiles(_figures(comparison)),
        "</header>",
        section("curves", "After each token", *_curves(comparison)),
        section("table", "Figures", *_tables(comparison)),
        section("terms", "Terms", *map(paragraph, _TERMS), *(paragraph(f"Note: {one}") for one in comparison.notes)),
    ]
    return document(title, "\n".join(parts))


def _figures(comparison: Comparison) -> list[tuple[str, str]]:
    shown = [("prompt phase", comparison.prompt)]
    if comparison.estimate.asked.response_length:
        curves = comparison.curves
        shown += [("token phase", curves["token_phase"]), ("total", curves["total"])]
    return [(f"{100 * curve.error[-1]:+.2f} %", f"error of the {name}") for name, curve in shown]


def _curves(comparison: Comparison) -> list[str]:
    if not comparison.estimate.asked.response_length:
        return [paragraph("No token phase was asked for.", soft=True)]
    curves = comparison.curves
    prompt = comparison.prompt
    begin = {"token_phase": (0.0, 0.0), "total": (float(prompt.formula[0]), float(prompt.simulated[0]))}
    charts = [card(_both(QUANTITIES[name], curve, begin.get(name))) for name, curve in curves.items()]
    return [f'<div class="two">{"".join([*charts, card(_errors(curves))])}</div>']


def _both(title: str, curve: Curve, begin: tuple[float, float] | None) -> str:
    """Return the chart of both sides; `begin`: their values before the first token, where there are any."""
    sides = (curve.formula, curve.simulated)
    lines = tuple(
        Series(name, colour, *_line(1e3 * values, None if begin is None else 1e3 * begin[place]))
        for place, ((name, colour), values) in enumerate(zip((FORMULA, FULL), sides, strict=True))
    )
    return Chart(title[:1].upper() + title[1:], "token", "ms", lines).to_html()


def _errors(curves: dict[str, Curve]) -> str:
    lines = tuple(
        Series(QUANTITIES[name], colour, *_line(100 * np.abs(curve.error), None))
        for colour, (name, curve) in enumerate(curves.items(), start=1)
    )
    return Chart("Error of the formula, either way", "token", "% of the full simulation", lines).to_html()


def _line(values: FloatArray, begin: float | None) -> tuple[FloatArray, FloatArray]:
    """Return the points of `values` ``[n_t]`` over tokens, from 0 on; what begins nowhere is level."""
    at = np.unique(np.linspace(0, len(values) - 1, min(len(values), BINS)).round().astype(np.int64))
    first = float(values[0]) if begin is None else begin
    return np.concatenate(([0.0], at + 1.0)), np.concatenate(([first], values[at]))


def _tables(comparison: Comparison) -> list[str]:
    prompt = table("prompt", ("", "formula, ms", "full, ms", "error, %"), [prompt_row(comparison)])
    spent = table("time", ("where the full simulation's time went", "ms", "%"), time_rows(comparison))
    header = [f"{name}, ms" if name.endswith(("formula", "full")) else name for name in HEADER]
    curves = table("figures", header, curve_rows(comparison))
    if not comparison.estimate.asked.response_length:
        return [card(prompt), card(spent)]
    return [card(prompt), card(curves, paragraph(efficiency_line(comparison), soft=True)), card(spent)]
