"""The report of a comparison as one HTML page: errors, distributions of both sides, both sides over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.report.charts import Chart, Series
from orchestrator.report.curves import BINS, cumulative
from orchestrator.report.markup import card, document, escape, paragraph, section, table, tiles
from orchestrator.validation.comparison import (
    OVER_TIME_HEADER,
    Comparison,
    error_header,
    error_rows,
    over_time_rows,
    title_of,
    verdict,
)
from orchestrator.validation.errors import METRICS, worst
from orchestrator.validation.over_time import LABELS, UNITS, OverTime

FloatArray = NDArray[np.float64]
SIMULATED, MEASURED = ("simulated", 1), ("measured", 2)
LONG_TAIL = 8
_TERMS = (
    "TTFT: from when a request is counted to its first output token. TPOT: time a further output token, (end - first "
    "token) / (output tokens - 1). ITL: every time between two tokens that a client got. End-to-end: to the last "
    "token. "
    "Percentiles interpolate linearly. An error is simulated / measured - 1.",
    "Noise: the same run simulated several times with arrivals and steps that differ a little at random. Both sides "
    "are a single run, so an error within two standard deviations of a difference (2.8 of one run) may be chance.",
)


def render(comparison: Comparison) -> str:
    """Return the page."""
    title = f"{comparison.simulated.path.name} against {comparison.recorded.path.name}"
    facts = ", ".join(f"{name} {value}" for name, value in comparison.recorded.facts.items())
    parts = [
        f"<header><h1>{escape(title)}</h1>",
        paragraph(f"A simulation against a recording in {comparison.recorded.kind}. {facts}", soft=True),
        _tiles(comparison),
        "</header>",
        section(
            "errors",
            "Errors",
            card(table("error-table", error_header(comparison), error_rows(comparison))),
            paragraph(f"{title_of(comparison)}.", soft=True),
            *(paragraph(line, soft=True) for line in verdict(comparison)),
            *(paragraph(f"Note: {note}", soft=True) for note in comparison.notes),
        ),
        section("distributions", "Distributions", _distributions(comparison)),
        section("over-time", "Over time", *_over_time(comparison.over_time)),
        section("terms", "Terms", *map(paragraph, _TERMS)),
    ]
    return document(title, "\n".join(parts))


def _tiles(comparison: Comparison) -> str:
    found, mean = worst(list(comparison.figures)), {one.name: one.error for one in comparison.figures}
    shown = [(f"{len(comparison.pairs.simulated)}", "requests compared")]
    if found is not None:
        shown.append((f"{found.error:+.2f} %", f"worst: {found.label}"))
    for metric in ("ttft", "tpot", "latency"):
        error = mean.get((metric, "mean"))
        if error is not None:
            shown.append((f"{error:+.2f} %", f"{METRICS[metric]}, mean"))
    return tiles(shown)


def _distributions(comparison: Comparison) -> str:
    ours = comparison.simulated.latencies(comparison.origin, comparison.pairs.simulated)
    theirs = comparison.recorded.latencies(comparison.origin, comparison.pairs.recorded)
    gaps = (
        comparison.simulated.all_gaps(comparison.pairs.simulated),
        comparison.recorded.all_gaps(comparison.pairs.recorded),
    )
    if gaps[0] is not None and gaps[1] is not None:
        ours["itl"], theirs["itl"] = gaps[0].astype(np.float64), gaps[1].astype(np.float64)
    shown = [
        card(_cdf(METRICS[name], ours[name], theirs[name]))
        for name in METRICS
        if name in ours and len(ours[name]) and len(theirs[name])
    ]
    return f'<div class="two">{"".join(shown)}</div>'


def _cdf(title: str, ours: FloatArray, theirs: FloatArray) -> str:
    sides = [(name, colour, cumulative(values)) for (name, colour), values in ((SIMULATED, ours), (MEASURED, theirs))]
    least = min(float(x[0]) for _, _, (x, _) in sides)
    most = max(float(x[-1]) for _, _, (x, _) in sides)
    log = least > 0 and most > LONG_TAIL * float(np.median(theirs))
    return Chart(
        f"{title}: cumulative distribution",
        f"ms{' (logarithmic)' if log else ''}",
        "% of gaps" if title == METRICS["itl"] else "% of requests",
        tuple(Series(name, colour, x / 1e6, y) for name, colour, (x, y) in sides),
        log_x=log,
    ).to_html()


def _over_time(found: OverTime | None) -> list[str]:
    if found is None:
        return [paragraph("One of the two has no time series, so nothing is compared over time.", soft=True)]
    charts = [card(_chart(found, name)) for name in found.recorded]
    return [card(table("over-time-table", OVER_TIME_HEADER, over_time_rows(found))), *charts]


def _chart(found: OverTime, name: str) -> str:
    merged = -(-len(found.ends_ns) // BINS)
    seconds = found.ends_ns[::merged] / 1e9
    sides = ((SIMULATED, found.simulated), (MEASURED, found.recorded))
    lines = tuple(Series(label, colour, seconds, columns[name][::merged]) for (label, colour), columns in sides)
    label = LABELS[name]
    return Chart(label[:1].upper() + label[1:], "s", UNITS[name], lines).to_html()
