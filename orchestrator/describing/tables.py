"""A description as tables for people: on a terminal, and in the page."""

from __future__ import annotations

from typing import TextIO

from foundation.printable import printable
from orchestrator.describing.figures import Description, Values
from orchestrator.describing.sharing import BLOCK_SIZES
from orchestrator.observers.tables import print_table

Row = tuple[str, ...]
LENGTH_HEADER = ("tokens", "mean", "CV", "min", "P50", "P90", "P99", "max")
_BAR = 40
_NONE = "-"


def print_description(name: str, found: Description, stream: TextIO) -> None:
    """Print the description of the workload `name`."""
    print(printable(name), file=stream)
    print_table("Arrivals", ("", ""), arrival_rows(found), stream)
    print_table("Lengths", LENGTH_HEADER, length_rows(found), stream)
    for what in ("prompt", "output"):
        print_table(
            f"Tokens of a{'n' if what == 'output' else ''} {what}",
            ("from", "requests", ""),
            _bars(found.histograms[what]),
            stream,
        )
    if found.dispersion:
        print_table(
            "Index of dispersion of arrivals",
            ("window, s", "windows", "variance / mean"),
            dispersion_rows(found),
            stream,
        )
    if found.rate is not None:
        print_table("Arrivals over time", ("from, s", "per s", ""), _rate_rows(found), stream)
    print_table("Prefix sharing", ("tokens in a block", "prompt tokens found, %"), sharing_rows(found), stream)


def arrival_rows(found: Description) -> list[Row]:
    """Return what is said of requests, sessions and arrivals: a name, and a value with its unit."""
    rows: list[Row] = [("requests", str(found.requests))]
    if found.sessions is not None:
        turns = found.sessions.turns
        rows.append(("sessions", str(found.sessions.sessions)))
        rows.append(("turns of a session", f"mean {_short(turns.distribution.mean)}, most {turns.most:.0f}"))
        if found.sessions.pauses_s is not None:
            rows.append(("pause between turns", f"mean {_short(found.sessions.pauses_s.distribution.mean)} s"))
    rows.append(("arrivals from outside", str(found.arrivals)))
    rows.append(("from first to last", f"{_short(found.span_s)} s"))
    rows.append(("rate", _NONE if found.rate_per_s is None else f"{_short(found.rate_per_s)} /s"))
    if found.gaps_s is not None:
        gaps = found.gaps_s.distribution
        parts = (("mean", gaps.mean), ("P50", gaps.p50), ("P99", gaps.p99), ("max", found.gaps_s.most))
        rows.append(("gap between arrivals", ", ".join(f"{name} {_short(value)}" for name, value in parts) + " s"))
        rows.append(("CV of gaps", _NONE if found.gaps_s.cv is None else _short(found.gaps_s.cv)))
        rows.append(("burstiness, 1 / CV^2", _NONE if found.burstiness is None else _short(found.burstiness)))
    if found.priorities:
        shown = ", ".join(f"{level}: {count}" for level, count in found.priorities.items())
        rows.append(("requests by priority", shown))
    if found.adapters:
        rows.append(("LoRA adapters", str(found.adapters)))
    return rows


def length_rows(found: Description) -> list[Row]:
    """Return the figures of prompts and answers."""
    return [_lengths("prompt", found.prompts), _lengths("output", found.outputs)]


def dispersion_rows(found: Description) -> list[Row]:
    """Return a row a window."""
    return [(f"{one.window_s:g}", str(one.windows), _short(one.index)) for one in found.dispersion]


def sharing_rows(found: Description) -> list[Row]:
    """Return a row a block size, or why there are none."""
    if found.sharing is None:
        return [("token ids are not known", _NONE)]
    rows: list[Row] = [(str(size), f"{100 * found.sharing.share(size):.2f}") for size in BLOCK_SIZES]
    if found.sharing.requests < found.requests:
        rows.append((f"of the first {found.sharing.requests} requests", ""))
    return rows


def _lengths(name: str, values: Values) -> Row:
    shown = values.distribution
    cells = (shown.mean, values.cv or 0.0, values.least, shown.p50, shown.p90, shown.p99, values.most)
    return (name, *(_short(cell) for cell in cells))


def _bars(histogram: dict[int, int]) -> list[Row]:
    most = max(histogram.values())
    return [(str(low), str(count), _bar(count / most)) for low, count in histogram.items()]


def _rate_rows(found: Description) -> list[Row]:
    assert found.rate is not None
    edges, rates = found.rate
    joined = max(1, -(-len(rates) // 20))
    rows: list[Row] = []
    means = [float(rates[at : at + joined].mean()) for at in range(0, len(rates), joined)]
    for place, rate in enumerate(means):
        rows.append((_short(float(edges[place * joined])), _short(rate), _bar(rate / max(means))))
    return rows


def _bar(share: float) -> str:
    return ("#" * round(_BAR * share)).ljust(_BAR)


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
