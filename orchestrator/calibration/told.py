"""A calibration for people: its tables, and the lines of a run file that hold its values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from orchestrator.calibration.calibrating import Calibration, FittedTerm
from orchestrator.observers.tables import print_table

_SHOWN_CORRELATION = 0.5


def print_calibration(found: Calibration, stream: TextIO) -> None:
    """Print terms, correlations that matter, and errors before and after."""
    header = ("term", "start", "value", "standard error", "", "plausible")
    print_table("Terms", header, [_row(one) for one in found.terms], stream)
    if pairs := [*_correlated(found)]:
        print_table("Correlations", ("terms", "", ""), pairs, stream)
    rows = [
        (before.label, *(f"{one.error:+.2f}" if one.error is not None else "-" for one in (before, after)))
        for before, after in zip(found.before, found.after, strict=True)
    ]
    print_table(f"Errors %, counted from {found.origin}", ("", "before", "after"), rows, stream)
    print(file=stream)
    for line in lines(found):
        print(line, file=stream)


def lines(found: Calibration) -> list[str]:
    """Return what cannot be identified and why, what is at its bound, and what it took."""
    said = [f"note: {note}" for note in found.notes]
    for one in found.terms:
        if one.why:
            said.append(f"{one.term.name} cannot be identified from this recording: {one.why}; it keeps {one.value:g}")
        elif one.at_bound:
            said.append(f"{one.term.name} is at its bound, {one.value:g}: what it stands for may be something else")
    return [*said, f"{found.runs} simulations, {found.jitter.runs} of them disturbed"]


def run_file_lines(found: Calibration) -> Iterator[str]:
    """Yield the lines of a run file (YAML) that set the terms that the recording tells."""
    yield f"# Fitted to {found.recorded.path.name} ({len(found.recorded)} requests) by orrery calibrate.\n"
    yield "# Standard errors are of this recording; they say nothing of another device, model or load.\n"
    for one in found.told:
        unit = f" {one.term.unit}" if one.term.unit else ""
        yield f"{one.term.name}: {one.value!r}  # +- {one.error:.3g}{unit}\n"


def _row(one: FittedTerm) -> tuple[str, ...]:
    error = "not identified" if one.error is None else f"{one.error:.3g}"
    plausible = f"{one.term.low:g} to {one.term.high:g}"
    return one.term.name, f"{one.term.start:g}", f"{one.value:g}", error, one.term.unit, plausible


def _correlated(found: Calibration) -> Iterator[tuple[str, ...]]:
    told = found.told
    for row, one in enumerate(told):
        for column in range(row):
            value = float(found.correlations[row, column])
            if abs(value) >= _SHOWN_CORRELATION:
                yield told[column].term.name, one.term.name, f"{value:+.2f}"
