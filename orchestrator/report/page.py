"""The report of a run as one HTML page: figures, distributions, the run over time, where time went, the settings.

Everything on it follows from the settings and the workload; wall-clock time stands in `-simulation-time.tsv` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.observers.history import DECODE, MIXED, PREFILL, History
from orchestrator.observers.intervals import Interval
from orchestrator.observers.tables import latency_rows, rate, time_rows, traffic_rows
from orchestrator.report.charts import Chart, Mark, Series, stacked_bar
from orchestrator.report.curves import cumulative, over_time, steps
from orchestrator.report.markup import card, document, escape, paragraph, section, table, tiles
from orchestrator.result import RunResult, latencies
from orchestrator.settings.record import ShownSetting
from orchestrator.statistics import SHARES, STATISTICS
from orchestrator.summary import Summary

IntArray = NDArray[np.int64]
NOTHING = "no iteration"
COLOURS = {DECODE: 1, PREFILL: 2, MIXED: 3, NOTHING: 4, "waiting": 4}
PART_COLOURS = (1, 2, 3, 5, 6)
LONG_TAIL = 8
"""A distribution whose greatest value is this many times its median is drawn over decades."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page says beside measurements: the run in a few words, notes, settings.

    `deployment` are tables of what was deployed: a title, and rows of a name and a value with its unit.
    """

    title: str
    workload: str
    deployment: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    notes: Sequence[str]
    settings: Sequence[ShownSetting]
    interval_ns: int


def render(facts: Facts, result: RunResult, history: History) -> str:
    """Return the page. The summary's figures are shown, not worked out again."""
    summary = result.summary
    parts = [
        f"<header><h1>{escape(facts.title)}</h1>",
        paragraph(f"Simulated serving of {facts.workload}", soft=True),
        _incomplete(summary),
        _tiles(summary),
        "</header>",
        section(
            "latency",
            "Latency",
            card(table("latency-table", ("ms", *STATISTICS.values()), latency_rows(summary), unit="ms")),
            _distributions(result),
        ),
        section("over-time", "Over time", *_over_time(facts, result.intervals)),
        section("simulated-time", "Where simulated time went", *_simulated_time(result, history)),
        section("run", "The whole run", card(_run_table(summary))),
        section("configuration", "Configuration", *_configuration(facts)),
        section("terms", "Terms", *map(paragraph, _TERMS)),
    ]
    return document(facts.title, "\n".join(part for part in parts if part))


_TERMS = (
    "TTFT: from a request's arrival to its first output token. TPOT: time a further output token of a request, "
    "(end - first token) / (output tokens - 1). ITL: every time between two consecutive tokens of a request, over all "
    "requests. End-to-end: from arrival to the last token. Queuing delay: from arrival to the start of the first "
    "iteration that computes the request. Percentiles interpolate linearly. All times are simulated.",
    "The engine's time is divided by what its iterations computed; with several batches in a pipeline, time counts for "
    "the one that ends next. A request that was evicted or preempted goes on counting as in prefill or decode until it "
    "ends.",
    "How long the simulator itself took differs from machine to machine, and is therefore not on this page but in "
    "the file whose name ends in -simulation-time.tsv.",
)


def _incomplete(summary: Summary) -> str:
    if summary.complete:
        return ""
    reason = escape(str(summary.error))
    return (
        '<div class="incomplete" role="alert"><b>Incomplete.</b> The run ended early; what had finished until then is '
        f"shown. {reason}</div>"
    )


def _tiles(summary: Summary) -> str:
    def percentile(name: str) -> str:
        figures = summary.latency(name)
        return f"{figures['p99']:.3f} ms" if figures else "-"

    return tiles(
        (
            (f"{summary.finished_requests}", "finished requests"),
            (f"{summary.makespan_s:.3f} s", "makespan"),
            (rate(summary.generated_tokens_per_s, "tokens/s"), "generation throughput"),
            (percentile("ttft_ms"), "TTFT, P99"),
            (percentile("tpot_ms"), "TPOT, P99"),
            (_kv_share(summary), "peak KV use"),
        )
    )


def _distributions(result: RunResult) -> str:
    found = latencies(result.columns)
    tpot = found["tpot"][result.columns["output"] > 1]
    gaps, times = result.itl_ns
    charts = (
        _cdf("TTFT", "ttft_ms", result.summary, found["ttft"], "requests"),
        _cdf("TPOT", "tpot_ms", result.summary, tpot, "requests"),
        _cdf("ITL", "itl_ms", result.summary, gaps, "gaps", times),
        _cdf("End-to-end latency", "latency_ms", result.summary, found["latency"], "requests"),
    )
    shown = [card(chart) for chart in charts if chart]
    return f'<div class="two">{"".join(shown)}</div>'


def _cdf(
    title: str,
    name: str,
    summary: Summary,
    values: IntArray | NDArray[np.float64],
    counted: str,
    weights: IntArray | None = None,
) -> str:
    """Return the chart of a cumulative distribution (`values` in ns), or nothing where there are no values."""
    figures = summary.latency(name)
    if not figures:
        return ""
    x, y = cumulative(values, weights)
    x = x / 1e6
    log = bool(x[0] > 0 and x[-1] > LONG_TAIL * figures["p50"])
    chart = Chart(
        f"{title}: cumulative distribution",
        f"ms{' (logarithmic)' if log else ''}",
        f"% of {counted}",
        (Series(title, 1, x, y),),
        tuple(Mark(f"{STATISTICS[key]} {figures[key]:.1f} ms", figures[key]) for key in SHARES),
        log_x=log,
    )
    return chart.to_html()


def _over_time(facts: Facts, intervals: Sequence[Interval]) -> list[str]:
    if not intervals:
        return [paragraph("Nothing ran.", soft=True)]
    edges, columns, seconds = over_time(intervals, facts.interval_ns)

    def lines(*named: tuple[str, str, int], factor: float = 1.0) -> tuple[Series, ...]:
        return tuple(
            Series(label, colour, *steps(edges, factor * columns[name]), filled=True) for name, label, colour in named
        )

    time = "simulated time, s"
    charts = (
        Chart(
            "Throughput", time, "tokens/s",
            lines(("prompt_per_s", "prompt tokens/s", 2), ("generation_per_s", "generated tokens/s", 1)),
        ),
        Chart("Requests", time, "requests", lines(("running", "running", 1), ("waiting", "waiting", 2))),
        Chart("KV cache in use", time, "% of KV blocks", lines(("kv_used", "in use", 3), factor=100.0), y_max=100),
    )  # fmt: skip
    merged = round(seconds * 1e9 / facts.interval_ns)
    state = "at each interval's end" if merged == 1 else f"the greatest of {merged} intervals of --log_interval"
    note = f"Intervals of {seconds:g} s. Requests and KV cache: {state}."
    return [*(card(chart.to_html()) for chart in charts), paragraph(note, soft=True)]


def _simulated_time(result: RunResult, history: History) -> list[str]:
    blocks = [_work(result), _iterations(result, history)]
    if result.summary.finished_requests:
        blocks.append(_request_time(result.columns))
    return blocks


def _work(result: RunResult) -> str:
    """Return what the engines spent their time on, by class of work."""
    rows = time_rows(result.summary)
    colours = dict.fromkeys(("waiting", "idle", "asleep"), 4)
    work = [name for name, *_ in rows if name not in colours]
    colours |= {name: PART_COLOURS[place % len(PART_COLOURS)] for place, name in enumerate(work)}
    parts = [(name, colours[name], result.summary.simulated_time_s[name]) for name, *_ in rows]
    several = f", {result.summary.engines} engines together" if result.summary.engines > 1 else ""
    title = f"By class of work{several}"
    return card(stacked_bar(title, parts), table("work-time", ("class of work", "time, s", "%"), rows))


def _iterations(result: RunResult, history: History) -> str:
    """Return what the engines' iterations were for."""
    whole = result.time.makespan_ns * result.time.engines
    kinds = history.kinds
    nothing = whole - sum(totals.elapsed_ns for totals in kinds.values())
    parts = [(kind, COLOURS[kind], float(totals.elapsed_ns)) for kind, totals in kinds.items()]
    parts.append((NOTHING, COLOURS[NOTHING], float(nothing)))
    rows = [
        (
            kind, f"{totals.elapsed_ns / 1e9:.3f}", _percent(totals.elapsed_ns, whole), str(totals.iterations),
            f"{totals.elapsed_ns / totals.iterations / 1e6:.3f}" if totals.iterations else "-",
            str(totals.prompt_tokens), str(totals.generated_tokens),
        )
        for kind, totals in kinds.items()
    ]  # fmt: skip
    rows.append((NOTHING, f"{nothing / 1e9:.3f}", _percent(nothing, whole), "-", "-", "-", "-"))
    header = (
        "engine, by kind of iteration", "time, s", "% of makespan", "iterations", "ms an iteration",
        "prompt tokens", "generated tokens",
    )  # fmt: skip
    return card(stacked_bar("The engine's time", parts), table("engine-time", header, rows))


def _request_time(columns: dict[str, IntArray]) -> str:
    """Return how long the finished requests waited, were prefilled and decoded, on average."""
    moments = [columns[name] for name in ("arrival", "scheduled", "first_token", "end")]
    means = [int((after - before).sum()) / len(before) for before, after in pairwise(moments)]
    labels = ("waiting", PREFILL, DECODE)
    rows = [(label, f"{mean / 1e6:.3f}", _percent(mean, sum(means))) for label, mean in zip(labels, means, strict=True)]
    bar = stacked_bar(
        "A request's time", [(label, COLOURS[label], mean) for label, mean in zip(labels, means, strict=True)]
    )
    header = ("a request, on average", "time, ms", "% of end-to-end")
    return card(bar, table("request-time", header, rows))


def _run_table(summary: Summary) -> str:
    rows = [
        ("finished requests", f"{summary.finished_requests} requests"),
        ("rejected", f"{summary.rejected_requests} requests"),
        ("given up by clients", f"{summary.aborted_requests} requests"),
        ("skipped (can never fit)", f"{summary.skipped} requests"),
        ("makespan", f"{summary.makespan_s:.3f} s"),
        ("iterations", f"{summary.iterations} iterations"),
        ("prompt tokens", f"{summary.prompt_tokens} tokens"),
        ("generated tokens", f"{summary.generated_tokens} tokens"),
        ("request throughput", rate(summary.requests_per_s, "requests/s")),
        ("prompt throughput", rate(summary.prompt_tokens_per_s, "tokens/s")),
        ("generation throughput", rate(summary.generated_tokens_per_s, "tokens/s")),
        ("peak KV use", f"{summary.peak_kv_blocks} of {summary.kv_blocks} blocks ({_kv_share(summary)})"),
        ("preemptions", f"{summary.preemptions} requests"),
        ("evicted to host memory", f"{summary.evictions} requests, {summary.evicted_bytes / 1e9:.3f} GB"),
        ("reloaded from host memory", f"{summary.reloaded_bytes / 1e9:.3f} GB"),
        *traffic_rows(summary.traffic),
    ]
    return table("run-table", ("", "over the whole run"), rows)


def _configuration(facts: Facts) -> list[str]:
    given = [setting for setting in facts.settings if setting.given]
    others = [setting for setting in facts.settings if not setting.given]
    header = ("flag", "value", "meaning")

    def rows(chosen: Sequence[ShownSetting]) -> list[tuple[str, str, str]]:
        return [(setting.name, setting.value, setting.meaning) for setting in chosen]

    blocks = [
        card(table(f"deployment-{number}", (title, ""), deployed, text=True))
        for number, (title, deployed) in enumerate(facts.deployment)
    ]
    if given:
        title = "<p><b>Settings that differ from the defaults</b></p>"
        blocks.append(card(title, table("given", header, rows(given), text=True)))
    defaults = table("defaults", header, rows(others), text=True)
    blocks.append(card("<details><summary>Settings at their defaults</summary>", defaults, "</details>"))
    return [*blocks, *(paragraph(f"Note: {note}", soft=True) for note in facts.notes)]


def _kv_share(summary: Summary) -> str:
    return _percent(summary.peak_kv_blocks, summary.kv_blocks) + " %" if summary.kv_blocks else "-"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"
