"""The files a run leaves: a row a request (CSV), throughput and its own time (TSV), a summary (JSON).

All are written whole or not at all. `NAME.csv` brings `NAME-throughput.tsv`, `NAME-simulation-time.tsv` and
`NAME-summary.json` with it, and `NAME-report.html` and `NAME-trace.json`, which `orchestrator.report` writes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from foundation.files import atomic_write
from orchestrator.intervals import Interval
from orchestrator.metrics import Metrics

REQUEST_COLUMNS = (
    "request id", "model", "input", "output", "arrival", "queued", "scheduled", "first_token", "end_time",
    "latency", "queuing_delay", "TTFT", "TPOT", "ITL",
)  # fmt: skip
THROUGHPUT_COLUMNS = ("time_s", "prompt_tok_per_s", "generation_tok_per_s", "running", "waiting", "kv_used_percent")


def companions(output: Path) -> dict[str, Path]:
    """Return the files beside `output` by what they hold: `throughput`, `summary`, `report` and so on."""
    stem = output.with_suffix("") if output.suffix == ".csv" else output
    suffixes = {
        "throughput": "tsv",
        "simulation-time": "tsv",
        "summary": "json",
        "settings": "json",
        "report": "html",
        "trace": "json",
    }
    return {name: stem.with_name(f"{stem.name}-{name}.{suffix}") for name, suffix in suffixes.items()}


def write_requests(path: Path, model: str, metrics: Metrics, *, itl: bool) -> None:
    """Write a row a finished request, in completion order, ties by id; times in ns, TPOT with three decimals.

    `output` counts generated tokens. TPOT and ITL are empty where there is no second token; `itl`: write the ITL list.
    """
    with atomic_write(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(REQUEST_COLUMNS)
        writer.writerows(_request_rows(model, metrics, itl))


def write_throughput(path: Path, intervals: Iterable[Interval]) -> None:
    """Write one row an interval in which anything ran: its end in s, tokens/s in it, the state at its end."""
    with atomic_write(path) as stream:
        stream.write("\t".join(THROUGHPUT_COLUMNS) + "\n")
        for interval in intervals:
            stream.write(
                f"{interval.end_ns / 1e9:.3f}\t{interval.prompt_per_s:.3f}\t{interval.generation_per_s:.3f}\t"
                f"{interval.running}\t{interval.waiting}\t{100 * interval.kv_used:.3f}\n"
            )


def write_simulation_time(path: Path, milliseconds: dict[str, float]) -> None:
    """Write the wall-clock ms that each component of the simulator took."""
    with atomic_write(path) as stream:
        stream.write("component\tms\n")
        for component, spent in milliseconds.items():
            stream.write(f"{component}\t{spent:.3f}\n")


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the summary or the settings; they hold nothing that differs between two runs of the same input."""
    with atomic_write(path) as stream:
        json.dump(record, stream, indent=2)
        stream.write("\n")


def _request_rows(model: str, metrics: Metrics, itl: bool) -> Iterator[tuple[object, ...]]:
    columns = metrics.columns()
    lists = metrics.itl_lists() if itl else None
    rows = zip(*(columns[name].tolist() for name in columns), strict=True)
    for index, (identity, prompt, output, arrival, queued, scheduled, first, end) in enumerate(rows):
        tpot = f"{(end - first) / (output - 1):.3f}" if output > 1 else ""
        gaps = str(lists[index].tolist()) if lists is not None and output > 1 else ""
        yield (
            identity, model, prompt, output, arrival, queued, scheduled, first, end,
            end - arrival, scheduled - arrival, first - arrival, tpot, gaps,
        )  # fmt: skip
