"""The summary of a run: as a record for the JSON file, and as text for the console."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TextIO

from orchestrator.metrics import Metrics
from orchestrator.statistics import STATISTICS, Distribution, distribution


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the summary says of a run besides its measurements. `error`: why it ended early, if it did."""

    model: str
    hardware: str
    npus: int
    tensor: int
    pipeline: int
    expert: int = 1
    skipped: int = 0
    error: str | None = None


def summarise(metrics: Metrics, facts: RunFacts) -> dict[str, Any]:
    """Return the summary; times of requests in ms, the makespan in s, throughput over the makespan."""
    columns = metrics.columns()
    totals = metrics.totals
    seconds = totals.end_ns / 1e9
    several = columns["output"] > 1
    tpot = (columns["end"] - columns["first_token"])[several] / (columns["output"] - 1)[several]
    latencies = {
        "ttft_ms": distribution(columns["first_token"] - columns["arrival"]),
        "tpot_ms": distribution(tpot),
        "itl_ms": metrics.itl.distribution(),
        "latency_ms": distribution(columns["end"] - columns["arrival"]),
        "queuing_delay_ms": distribution(columns["scheduled"] - columns["arrival"]),
    }
    finished = len(columns["id"])

    def per_second(amount: int) -> float | None:
        return amount / seconds if seconds else None

    return {
        **{name: value for name, value in asdict(facts).items() if name != "error"},
        "complete": facts.error is None,
        "error": facts.error,
        "finished_requests": finished,
        "makespan_s": seconds,
        **{name: _milliseconds(values) for name, values in latencies.items()},
        "requests_per_s": per_second(finished),
        "prompt_tokens": totals.prompt_tokens,
        "generated_tokens": totals.generated_tokens,
        "prompt_tokens_per_s": per_second(totals.prompt_tokens),
        "generated_tokens_per_s": per_second(totals.generated_tokens),
        "iterations": totals.iterations,
        "kv_blocks": totals.kv_blocks,
        "peak_kv_blocks": totals.peak_kv_blocks,
        "preemptions": totals.preemptions,
        "evictions": totals.evictions,
        "evicted_bytes": totals.evicted_bytes,
        "reloaded_bytes": totals.reloaded_bytes,
    }


def print_summary(summary: dict[str, Any], milliseconds: dict[str, float], stream: TextIO) -> None:
    """Print the latency table, the figures of the whole run and the simulator's own time."""
    spent: list[tuple[str, ...]] = [(component, f"{value:.1f}") for component, value in milliseconds.items()]
    tables = (
        ("Latency", ("ms", *STATISTICS.values()), _latency_rows(summary)),
        ("Run", ("", ""), _run_rows(summary)),
        ("Time of the simulator itself", ("component", "ms"), spent),
    )
    print_table = _print_rich if stream.isatty() else _print_plain
    for title, header, rows in tables:
        print_table(title, header, rows, stream)


def _milliseconds(values: Distribution | None) -> dict[str, float] | None:
    return values.scaled(1e-6) if values is not None else None


def _latency_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    labels = {
        "ttft_ms": "TTFT",
        "tpot_ms": "TPOT",
        "itl_ms": "ITL",
        "latency_ms": "end-to-end",
        "queuing_delay_ms": "queuing delay",
    }
    rows = []
    for name, label in labels.items():
        figures = summary[name]
        shown = [f"{figures[statistic]:.3f}" for statistic in STATISTICS] if figures else ["-"] * len(STATISTICS)
        rows.append((label, *shown))
    return rows


def _run_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    def rate(name: str, unit: str) -> str:
        value = summary[name]
        return "-" if value is None else f"{value:.2f} {unit}"

    used, total = summary["peak_kv_blocks"], summary["kv_blocks"]
    layout = f"TP {summary['tensor']} x PP {summary['pipeline']}"
    layout += f" x EP {summary['expert']}" if summary["expert"] > 1 else ""
    share = f" ({100 * used / total:.1f} %)" if total else ""
    rows: list[tuple[str, ...]] = [
        ("model", str(summary["model"])),
        ("NPUs", f"{summary['npus']} x {summary['hardware']} ({layout})"),
        ("finished requests", str(summary["finished_requests"])),
        ("makespan", f"{summary['makespan_s']:.3f} s"),
        ("iterations", str(summary["iterations"])),
        ("request throughput", rate("requests_per_s", "requests/s")),
        ("prompt throughput", rate("prompt_tokens_per_s", "tokens/s")),
        ("generation throughput", rate("generated_tokens_per_s", "tokens/s")),
        ("peak KV use", f"{used} of {total} blocks{share}"),
        ("preemptions", str(summary["preemptions"])),
        ("evictions", f"{summary['evictions']} ({summary['evicted_bytes'] / 1e9:.3f} GB to host memory)"),
    ]
    if summary["skipped"]:
        rows.append(("skipped (never fit)", str(summary["skipped"])))
    if summary["error"]:
        rows.append(("ended early", "yes, by an error"))
    return rows


def _print_plain(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]], stream: TextIO) -> None:
    """Print a table in plain columns: the first to the left, the others to the right."""
    lines = [row for row in (header, *rows) if any(row)]
    widths = [max(len(row[column]) for row in lines) for column in range(len(header))]
    print(f"\n{title}", file=stream)
    for row in lines:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join(["", row[0].ljust(widths[0]), *rest]).rstrip(), file=stream)


def _print_rich(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]], stream: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=any(header))
    for position, name in enumerate(header):
        table.add_column(name, justify="right" if position else "left")
    for row in rows:
        table.add_row(*row)
    Console(file=stream).print(table)
