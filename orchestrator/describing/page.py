"""A description as one HTML file with charts."""

from __future__ import annotations

import numpy as np

from orchestrator.describing.figures import Description
from orchestrator.describing.tables import LENGTH_HEADER, arrival_rows, dispersion_rows, length_rows, sharing_rows
from orchestrator.report.charts import Chart, Series
from orchestrator.report.curves import cumulative, steps
from orchestrator.report.markup import card, document, escape, paragraph, section, table
from orchestrator.request_table import RequestTable

_TERMS = (
    "Rates and gaps are of arrivals from outside: first turns of sessions, and requests by themselves. Burstiness is "
    "the shape of the gamma distribution whose coefficient of variation is that of the gaps: 1 is Poisson, less is "
    "burstier. The index of dispersion is the variance of the arrivals in a window over their mean; 1 at all windows "
    "is Poisson.",
    "Prefix sharing is the share of prompt tokens in whole blocks that begin as a prompt, or a prompt and its answer, "
    "before it: what a prefix cache without limits would find.",
)


def render(name: str, found: Description, requests: RequestTable) -> str:
    """Return the page."""
    shared = table("sharing-table", ("tokens in a block", "prompt tokens found, %"), sharing_rows(found))
    dispersed = table("dispersion-table", ("window, s", "windows", "variance / mean"), dispersion_rows(found))
    lengths = table("lengths-table", LENGTH_HEADER, length_rows(found))
    parts = [
        f"<header><h1>{escape(name)}</h1>",
        paragraph(f"A workload of {found.requests} requests", soft=True),
        "</header>",
        section("arrivals", "Arrivals", card(table("arrivals-table", ("", ""), arrival_rows(found), text=True)),
                *_arrival_charts(found, requests), *([card(dispersed)] if found.dispersion else [])),
        section("lengths", "Lengths", card(lengths), _length_charts(requests)),
        section("sharing", "Prefix sharing", card(shared)),
        section("terms", "Terms", *map(paragraph, _TERMS)),
    ]  # fmt: skip
    return document(name, "\n".join(parts))


def _arrival_charts(found: Description, requests: RequestTable) -> list[str]:
    charts = []
    if found.rate is not None:
        x, y = steps(*found.rate)
        charts.append(Chart("Rate", "time, s", "arrivals/s", (Series("arrivals", 1, x, y, filled=True),)))
    gaps = np.diff(np.sort(requests.openings().arrival_ns)).astype(np.float64) / 1e9
    if len(gaps) and gaps.max() > 0.0:
        positive = gaps[gaps > 0.0]
        x, y = cumulative(positive)
        charts.append(Chart("Gaps between arrivals", "s", "arrivals, %", (Series("gaps", 1, x, y),), log_x=_wide(x)))
    return [card(one.to_html()) for one in charts]


def _length_charts(requests: RequestTable) -> str:
    series = []
    for number, (label, tokens) in enumerate(
        (("prompts", requests.prompt_tokens), ("outputs", requests.output_tokens)), 1
    ):
        x, y = cumulative(tokens)
        series.append(Series(label, number, x, y))
    wide = _wide(np.concatenate([one.x for one in series]))
    return card(Chart("Tokens", "tokens", "requests, %", tuple(series), y_max=100.0, log_x=wide).to_html())


def _wide(values: np.typing.NDArray[np.float64]) -> bool:
    """Whether values are spread over decades."""
    return float(values.min()) > 0.0 and float(values.max()) > 8.0 * float(values.min())
