"""The summary as tables for people: framed on a terminal, in plain columns elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

from foundation.printable import printable
from orchestrator.statistics import STATISTICS
from orchestrator.summary import CLIENT_LATENCIES, LATENCIES, Summary, TrafficFigures

Row = tuple[str, ...]
_LONGEST = 60


def print_summary(summary: Summary, milliseconds: Mapping[str, float], stream: TextIO) -> None:
    """Print latencies, the figures of the whole run, where simulated time went, and the simulator's own time."""
    spent: list[Row] = [(component, f"{value:.1f}") for component, value in milliseconds.items()]
    tables = (
        ("Latency", ("ms", *STATISTICS.values()), latency_rows(summary)),
        ("Run", ("", ""), _run_rows(summary)),
        ("Where simulated time went", ("", "s", "%"), time_rows(summary)),
        ("Time of the simulator itself", ("component", "ms"), spent),
    )
    for title, header, rows in tables:
        if rows:
            print_table(title, header, rows, stream)


def print_table(title: str, header: Row, rows: list[Row], stream: TextIO) -> None:
    """Print a table: framed on a terminal, in plain columns elsewhere."""
    (_print_rich if stream.isatty() else _print_plain)(title, header, rows, stream)


def time_rows(summary: Summary) -> list[Row]:
    """Return each part of the engines' time with its seconds and its share (%), the longest first."""
    parts = sorted(summary.simulated_time_s.items(), key=lambda part: -part[1])
    total = sum(spent for _, spent in parts)
    return [(name, f"{spent:.3f}", f"{100 * spent / total:.1f}") for name, spent in parts if spent]


def latency_rows(summary: Summary) -> list[Row]:
    """Return each latency's label with its mean and percentiles in ms, dashes where there are none."""
    rows = []
    seen = {name: label for name, label in CLIENT_LATENCIES.items() if summary.latency(name) is not None}
    for name, label in {**LATENCIES, **seen}.items():
        figures = summary.latency(name)
        rows.append((label, *(f"{figures[statistic]:.3f}" if figures else "-" for statistic in STATISTICS)))
    return rows


def _run_rows(summary: Summary) -> list[Row]:
    used, total = summary.peak_kv_blocks, summary.kv_blocks
    share = f" ({100 * used / total:.1f} %)" if total else ""
    rows: list[Row] = [
        *(("model", printable(name)) for name in summary.model.split(", ")),
        *(("NPUs", printable(text)) for text in summary.deployed),
        *_limits(summary),
        ("finished requests", str(summary.finished_requests)),
        ("makespan", f"{summary.makespan_s:.3f} s"),
        ("iterations", str(summary.iterations)),
        ("request throughput", rate(summary.requests_per_s, "requests/s")),
        ("prompt throughput", rate(summary.prompt_tokens_per_s, "tokens/s")),
        ("generation throughput", rate(summary.generated_tokens_per_s, "tokens/s")),
        ("peak KV use", f"{used} of {total} blocks{share}"),
        ("preemptions", str(summary.preemptions)),
        ("evictions", f"{summary.evictions} ({summary.evicted_bytes / 1e9:.3f} GB to {_where(summary)})"),
    ]
    seldom = {
        "rejected": summary.rejected_requests,
        "given up by clients": summary.aborted_requests,
        "skipped (never fit)": summary.skipped,
    }
    rows += [(label, str(count)) for label, count in seldom.items() if count]
    rows += traffic_rows(summary.traffic)
    if (drafts := summary.drafts) is not None:
        right = f"{drafts.accepted_tokens} of {drafts.drafted_tokens} ({100 * drafts.acceptance_rate:.1f} %)"
        rows += [("guessed tokens right", right), ("tokens a step", f"{drafts.tokens_a_step:.2f} a request")]
    if (moved := summary.transfers) is not None:
        times = f"mean {moved.mean_ms:.3f} ms, of which {moved.mean_waiting_ms:.3f} ms in line"
        rows.append(("KV transfers", f"{moved.transfers}, {moved.bytes / 1e9:.3f} GB; {times}"))
    rows += [*_tiers(summary), *_lookups(summary)]
    if summary.error:
        rows.append(("ended early", printable(summary.error)[:_LONGEST]))
    return rows


def traffic_rows(traffic: TrafficFigures | None) -> list[Row]:
    """Return what became of requests beside the engines, and of instances that come and go."""
    if traffic is None:
        return []
    rows: list[Row] = [("never released", str(traffic.unreleased))] if traffic.unreleased else []
    if (spent := traffic.retrieval_ms) is not None:
        rows.append(("retrieval", f"{spent['mean']:.3f} ms (P99 {spent['p99']:.3f} ms)"))
    if (scaling := traffic.scaling) is not None:
        states = [event["state"] for event in scaling.events]
        started, dropped = states.count("starting") or states.count("active"), states.count("asleep")
        rows.append(("instances", f"{started} started, {dropped} dropped, {scaling.npu_seconds:.3f} NPU-seconds"))
    return rows


def _where(summary: Summary) -> str:
    """Return where evicted KV cache went."""
    return "host memory" if summary.kv_tiers is None else "the KV tier"


def _tiers(summary: Summary) -> list[Row]:
    """Return what went to KV tiers and came from there."""
    tier = summary.kv_tiers
    if tier is None:
        return []
    moved = f"{tier.written_bytes / 1e9:.3f} GB written, {tier.loaded_bytes / 1e9:.3f} GB loaded"
    held = f"{tier.peak_bytes / 1e9:.3f} GB at most, {tier.evicted_blocks} blocks evicted"
    return [("KV tier", moved), ("KV tier holds", held), ("tokens found in the KV tier", str(tier.hit_tokens))]


def _lookups(summary: Summary) -> list[Row]:
    """Return where in measured tables times were looked up."""
    found = summary.lookups
    if found is None:
        return []
    parts = {"measured": found.measured, "interpolated": found.interpolated, "extrapolated": found.extrapolated}
    if found.roofline:
        parts["the roofline's"] = found.roofline
    total = max(1, sum(parts.values()))
    shares = ", ".join(f"{100 * count / total:.1f} % {what}" for what, count in parts.items())
    rows: list[Row] = [("times looked up", shares)]
    if found.off_percent:
        name, off = max(found.off_percent.items(), key=lambda item: item[1]["mean"])
        rows.append(("off between sizes", f"{off['mean']:.2f} % in the mean, {off['most']:.1f} % at most ({name})"))
    return rows


def _limits(summary: Summary) -> list[Row]:
    text = ", ".join(f"{most} {counted}" for counted, most in summary.step_limits.items())
    return [("limits of a step", text)] if text else []


def rate(value: float | None, unit: str) -> str:
    """Return a throughput with its unit, or a dash where there is none."""
    return "-" if value is None else f"{value:.2f} {unit}"


def _print_plain(title: str, header: Row, rows: list[Row], stream: TextIO) -> None:
    """Print a table in plain columns: the first to the left, the others to the right."""
    lines = [row for row in (header, *rows) if any(row)]
    widths = [max(len(row[column]) for row in lines) for column in range(len(header))]
    print(f"\n{title}", file=stream)
    for row in lines:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join(["", row[0].ljust(widths[0]), *rest]).rstrip(), file=stream)


def _print_rich(title: str, header: Row, rows: list[Row], stream: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream)
    table = Table(title=title, title_justify="left", show_header=any(header))
    if _framed_width(header, rows) > console.width:  # figures are never cut: rather without a frame
        table.box, table.padding = None, (0, 1, 0, 0)
    for position, name in enumerate(header):
        table.add_column(name, justify="right" if position else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _framed_width(header: Row, rows: list[Row]) -> int:
    """Return the columns of a terminal that a framed table takes: a rule and two blanks a column, and a last rule."""
    return sum(3 + max(map(len, column)) for column in zip(header, *rows, strict=True)) + 1
