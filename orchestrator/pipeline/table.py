"""The results of a pipeline as one table: a row an engine, task and rate, as TSV, as JSON, and printed."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foundation.files import atomic_write
from orchestrator.observers.tables import print_table
from orchestrator.summary import Summary

LATENCIES = {"TTFT": "ttft_ms", "TPOT": "tpot_ms", "E2E": "latency_ms"}
STATISTICS = ("mean", "p50", "p90", "p99")
COLUMNS = (
    "engine",
    "task",
    "rate",
    "requests",
    "makespan_s",
    *(f"{name}_{statistic}_ms" for name in LATENCIES for statistic in STATISTICS),
    "requests_per_s",
    "tokens_per_s",
    "lookups_measured",
    "lookups_interpolated",
    "lookups_extrapolated",
)
SHOWN = ("engine", "task", "rate", "TTFT_mean_ms", "TTFT_p99_ms", "TPOT_mean_ms", "E2E_mean_ms", "tokens_per_s")


def figures(summary: Summary) -> dict[str, Any]:
    """Return a run's figures by the names of columns: ms, s and per second; lookups are counted."""
    found: dict[str, Any] = {"requests": summary.finished_requests, "makespan_s": summary.makespan_s}
    for name, latency in LATENCIES.items():
        of = summary.latency(latency)
        found |= {f"{name}_{statistic}_ms": of[statistic] if of else None for statistic in STATISTICS}
    found |= {"requests_per_s": summary.requests_per_s, "tokens_per_s": summary.generated_tokens_per_s}
    lookups = summary.lookups
    for what in ("measured", "interpolated", "extrapolated"):
        found[f"lookups_{what}"] = None if lookups is None else getattr(lookups, what)
    return found


def write_results(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Path]:
    """Write `results.tsv` and `results.json`; return their paths."""
    paths = [folder / "results.tsv", folder / "results.json"]
    with atomic_write(paths[0]) as stream:
        cells = ([_cell(row.get(name)) for name in COLUMNS] for row in rows)
        csv.writer(stream, delimiter="\t", lineterminator="\n").writerows([COLUMNS, *cells])
    with atomic_write(paths[1]) as stream:
        json.dump([{name: row.get(name) for name in COLUMNS} for row in rows], stream, indent=2)
        stream.write("\n")
    return paths


def print_results(rows: Sequence[dict[str, Any]]) -> None:
    """Print the main columns."""
    print_table("Results", SHOWN, [tuple(_cell(row.get(name)) or "-" for name in SHOWN) for row in rows], sys.stdout)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
