"""Draw the errors that `benchmarks.recorded_servers --json` kept.

    python -m benchmarks.recorded_errors OUT.svg LABEL=FILE ...

One group of bars a statistic, one bar a file, one row a server; the figure of docs/accuracy.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

Errors = Mapping[str, Mapping[str, float]]
METRICS = {"ttft": "TTFT", "tpot": "TPOT", "latency": "end-to-end"}
STATISTICS = {"mean": "mean", "p50": "P50", "p90": "P90", "p95": "P95", "p99": "P99"}
COLOURS = ("#2563eb", "#f59e0b", "#9ca3af", "#10b981")
WIDTH, ROW, LEFT, TOP, MOST = 960, 220, 60, 46, 10.0
"""Pixels of the figure, of a row, and around it; % at the ends of the scale."""


def draw(kept: Sequence[tuple[str, Mapping[str, Errors]]]) -> str:
    """Return the figure of labelled errors by server."""
    servers = [name for name, errors in kept[0][1].items() if errors]
    parts = [part for row, server in enumerate(servers) for part in _row(row, server, kept)]
    keys = [
        f'<rect x="{LEFT + 220 * at}" y="10" width="12" height="12" fill="{COLOURS[at]}"/>'
        f'<text x="{LEFT + 220 * at + 18}" y="20">{escape(label)}</text>'
        for at, (label, _) in enumerate(kept)
    ]
    height = TOP + ROW * len(servers)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        + "".join([*keys, *parts])
        + "</svg>\n"
    )


def _row(row: int, server: str, kept: Sequence[tuple[str, Mapping[str, Errors]]]) -> Iterator[str]:
    """Yield a server's axes and bars."""
    top, height = TOP + ROW * row + 20, ROW - 70
    middle, scale = top + height / 2, height / 2 / MOST
    yield f'<text x="{LEFT}" y="{top - 6}" font-weight="bold">{escape(server)}: simulated / measured - 1, %</text>'
    for value in (-10, -5, 0, 5, 10):
        y = middle - value * scale
        yield f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value}</text>'
    names = [(metric, statistic) for metric in METRICS for statistic in STATISTICS]
    room = (WIDTH - LEFT - 10) / len(names)
    for place, (metric, statistic) in enumerate(names):
        left = LEFT + room * place
        wide = room * 0.8 / len(kept)
        for at, (_, errors) in enumerate(kept):
            error = max(-MOST, min(MOST, errors[server][metric][statistic]))
            y, tall = (middle - error * scale, error * scale) if error > 0 else (middle, -error * scale)
            x = left + room * 0.1 + wide * at
            yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}" fill="{COLOURS[at]}"/>'
        text = METRICS[metric] if statistic == "mean" else ""
        below, centre = top + height + 14, left + room / 2
        yield f'<text x="{centre:.1f}" y="{below}" text-anchor="middle">{STATISTICS[statistic]}</text>'
        yield f'<text x="{left + 4:.1f}" y="{below + 16}" font-weight="bold">{text}</text>'


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(".")[0], allow_abbrev=False)
    parser.add_argument("output", type=Path)
    parser.add_argument("errors", nargs="+", help="LABEL=FILE")
    arguments = parser.parse_args()
    named = [one.partition("=") for one in arguments.errors]
    kept = [(label, json.loads(Path(path).read_text(encoding="utf-8"))) for label, _, path in named]
    arguments.output.write_text(draw(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
