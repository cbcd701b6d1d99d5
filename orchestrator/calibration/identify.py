"""Which of the fitted terms a recording tells, and how well.

- A term without effect: in steps as wide as derivatives allow, residuals change by no more than their noise.
- Terms that cannot be told apart: the condition number of the derivatives, each column divided by its length, is beyond
  `MOST_CONDITION` (Belsley, Kuh and Welsch, "Regression Diagnostics", 1980, take 30 for strong); the singular vector
  of the least singular value names the terms that stand in for each other.
- A standard error beyond what the range says by itself: more than the standard deviation of "anywhere in the range".

Standard errors are the greater of two: what is left of the residuals, spread evenly (least squares' own), and what the
fit moves by when it is given disturbed runs in place of the recording, which knows how the requests of a run hang
together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.calibration.fit import Fit

FloatArray = NDArray[np.float64]
MOST_CONDITION = 30.0
ANYWHERE = 12**-0.5
"""The standard deviation of a share that may be anywhere from 0 to 1."""
NO_EFFECT = "it changes no more than noise does"
LEAST_PART = 0.3
"""A term has a part in a singular vector where its component is at least this."""


@dataclass(frozen=True, slots=True, eq=False)
class Precision:
    """Standard errors ``[p]`` in shares of the ranges, correlations ``[p, p]``, and the condition number."""

    errors: FloatArray
    correlations: FloatArray
    condition: float


@dataclass(frozen=True, slots=True)
class Unidentified:
    """The place of a term that the recording does not tell, and why, in few words."""

    place: int
    why: str


def precision(found: Fit, noise: Sequence[FloatArray]) -> Precision:
    """Return how well the terms of a fit are known; `noise`: residuals ``[m]`` of disturbed runs, less their mean."""
    counts = np.sqrt(found.weights)
    jacobian = counts[:, None] * found.jacobian
    inverse = np.linalg.pinv(jacobian, rcond=1e-9)
    left = float(((counts * found.residuals) ** 2).sum()) / max(1, len(counts) - jacobian.shape[1])
    own = left * (inverse @ inverse.T)
    gain = inverse * counts
    moved = np.stack([gain @ one for one in noise]) if len(noise) > 1 else np.zeros((2, jacobian.shape[1]))
    by_noise = 2 * (moved.T @ moved) / (len(moved) - 1)
    errors = np.sqrt(np.maximum(np.diag(own), np.diag(by_noise)))
    spread = np.sqrt(np.maximum(np.diag(own), 1e-300))
    return Precision(errors, own / np.outer(spread, spread), _singular(jacobian)[0])


def without_effect(found: Fit) -> NDArray[np.bool_]:
    """Return which terms have no effect ``[p]``: see the module's docstring."""
    reach: FloatArray = np.sqrt((found.jacobian**2).mean(axis=0))
    return reach < 1.0


def unidentified(found: Fit, known: Precision, names: Sequence[str]) -> Unidentified | None:
    """Return the term that is told least, None where the recording tells all."""
    idle = without_effect(found)
    if idle.any():
        return Unidentified(int(idle.argmax()), NO_EFFECT)
    condition, vector = _singular(np.sqrt(found.weights)[:, None] * found.jacobian)
    if condition > MOST_CONDITION:
        together = [place for place, part in enumerate(np.abs(vector)) if part >= LEAST_PART]
        worst = max(together, key=lambda place: known.errors[place])
        others = " and ".join(names[place] for place in together if place != worst)
        return Unidentified(worst, f"cannot be told apart from {others} (condition number {condition:.0f})")
    worst = int(known.errors.argmax())
    if known.errors[worst] > ANYWHERE:
        return Unidentified(worst, "its standard error says no more than its plausible range")
    return None


def _singular(jacobian: FloatArray) -> tuple[float, FloatArray]:
    """Return the condition number of the columns, each divided by its length, and the vector of the least value."""
    lengths = np.sqrt((jacobian**2).sum(axis=0))
    _, values, vectors = np.linalg.svd(jacobian / np.maximum(lengths, 1e-300), full_matrices=False)
    return float(values[0] / max(values[-1], 1e-300)), vectors[-1]
