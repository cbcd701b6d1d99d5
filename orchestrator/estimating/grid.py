"""Many batches in one table: each prompt length with each batch size, the phases and, if simulated, their errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TextIO

from orchestrator.estimating.comparison import Comparison
from orchestrator.estimating.estimate import Estimate
from orchestrator.observers.tables import Row, print_table

PHASES = ("prompt phase", "token phase", "total")
HEADER = ("prompt", "batch", *(f"{phase}, ms" for phase in PHASES))
ERRORS = ("prompt", "batch", *(f"{phase}, ms" for phase in PHASES), *(f"{phase}: error, %" for phase in PHASES))


def print_grid(title: str, batches: Sequence[Estimate] | Sequence[Comparison], stream: TextIO) -> None:
    """Print a row a batch: the formulas' phases, then their errors where they were compared."""
    header = ERRORS if isinstance(batches[0], Comparison) else HEADER
    print_table(title, header, [grid_row(one) for one in batches], stream)


def grid_row(one: Estimate | Comparison) -> Row:
    """Return the row of a batch; where requests waited for others, and so were no batch, errors have a star."""
    found = one.estimate if isinstance(one, Comparison) else one
    figures = (found.prompt_phase, found.token_phase, found.total)
    begun = (str(found.asked.prompt_length), str(found.asked.batch_size), *(f"{1e3 * value:.3f}" for value in figures))
    if not isinstance(one, Comparison):
        return begun
    star = "*" if one.simulated.late else ""
    return (*begun, *(f"{100 * error:+.1f}{star}" for error in phase_errors(one)))


def phase_errors(one: Comparison) -> Iterable[float]:
    """Return the errors of the whole phases: prompt phase, token phase (0 where there is none), total."""
    if not one.estimate.asked.response_length:
        prompt = float(one.prompt.error[0])
        return (prompt, 0.0, prompt)
    curves = one.curves
    return tuple(float(curve.error[-1]) for curve in (one.prompt, curves["token_phase"], curves["total"]))
