"""The noise floor: how much figures change where arrivals move by milliseconds and steps by half a percent.

A real run does not repeat itself either. What two simulations differ by in such runs no comparison can call an error,
and small changes grow where requests wait, are preempted, or share batches by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from foundation.records import dataclass
from orchestrator.validation.errors import Name, figures
from orchestrator.validation.matching import match
from orchestrator.validation.recording import Recording
from orchestrator.validation.reruns import Rerun

STANDARD_DEVIATIONS = 2 * 2**0.5
"""An error of at most so many standard deviations of the noise means nothing: two of them, of a difference between two
single runs, each with the noise of one."""
FEWEST = 2


@dataclass(frozen=True, slots=True)
class Jitter:
    """How runs are disturbed: `runs` of them, arrivals by `arrivals_ms`, steps by `steps` %, from `seed` on."""

    runs: int
    arrivals_ms: float
    steps: float
    seed: int = 0

    def values(self, run: int) -> dict[str, object]:
        """Return the settings of a run, counted from 0."""
        return {
            "jitter_arrivals_ms": float(self.arrivals_ms),
            "jitter_steps": float(self.steps),
            "jitter_seed": self.seed + run,
        }


@dataclass(frozen=True, slots=True)
class Spread:
    """The errors of one figure over the disturbed runs, %: standard deviation, least and greatest."""

    deviation: float
    least: float
    greatest: float

    def explains(self, error: float | None) -> bool:
        """Whether an error may be nothing but noise."""
        return error is not None and abs(error) <= STANDARD_DEVIATIONS * self.deviation


def disturbed(
    rerun: Rerun, jitter: Jitter, tell: Callable[[int], None] = lambda done: None, *, gaps: bool = False
) -> list[Recording]:
    """Simulate the disturbed runs; `tell` is told how many are done, `gaps` keeps the times between tokens."""
    found = []
    for run in range(jitter.runs):
        found.append(rerun.simulate(jitter.values(run), gaps=gaps))
        tell(run + 1)
    return found


def noise_floor(runs: Sequence[Recording], recorded: Recording, origin: str) -> Mapping[Name, Spread]:
    """Return how each figure spreads over disturbed runs; empty where there are fewer than two of them."""
    errors: dict[Name, list[float]] = {}
    for run in runs:
        for figure in figures(run, recorded, match(run, recorded), origin):
            if figure.error is not None:
                errors.setdefault(figure.name, []).append(figure.error)
    return {name: _spread(found) for name, found in errors.items() if len(found) >= FEWEST}


def _spread(errors: Sequence[float]) -> Spread:
    return Spread(float(np.std(errors, ddof=1)), min(errors), max(errors))
