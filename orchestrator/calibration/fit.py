"""Least squares by Gauss-Newton steps, the derivatives by differences of whole runs, within bounds.

Everything is in shares of the terms' ranges (0 to 1). A step that makes things worse is shortened, by adding to the
diagonal as Levenberg and Marquardt do. Simulations are not smooth: what a small step changes is chance. So derivatives
are taken by steps that show, and the runs that they take count as attempts, too.

What is made small is the pseudo-Huber loss: squares of residuals up to about `OUTLYING` times their noise, and no more
than their size beyond, so that a few requests whose fate was another (preempted, or not) do not decide what all others
say. A step is that of least squares with each residual weighted by how far out it is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass

FloatArray = NDArray[np.float64]
Model = Callable[[FloatArray], FloatArray]
"""Shares ``[p]`` -> residuals ``[m]`` in units of their noise."""
Point = tuple[FloatArray, FloatArray]
"""Shares ``[p]``, and the residuals ``[m]`` there."""
_DAMPINGS = (0.0, 0.03, 0.3, 3.0)
_ENOUGH = 1e-3
"""A fit ends when the loss falls by a smaller share."""
OUTLYING = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Shares ``[p]``, the residuals ``[m]`` there, and their derivatives ``[m, p]``; how many steps it took.

    `weights` ``[m]``: how much each residual counts, 1 where it is small.
    """

    shares: FloatArray
    residuals: FloatArray
    jacobian: FloatArray
    iterations: int

    @property
    def weights(self) -> FloatArray:
        """See the class."""
        return weights(self.residuals)


def weights(residuals: FloatArray) -> FloatArray:
    """Return how much each residual counts ``[m]``."""
    found: FloatArray = 1 / np.sqrt(1 + (residuals / OUTLYING) ** 2)
    return found


def loss(residuals: FloatArray) -> float:
    """Return the pseudo-Huber loss of residuals."""
    return float((OUTLYING**2 * (np.sqrt(1 + (residuals / OUTLYING) ** 2) - 1)).sum())


def fit(model: Model, wide: FloatArray, least: FloatArray, start: FloatArray, *, most: int) -> Fit:
    """Return the best shares within 0 and 1 after at most `most` steps from `start`.

    Derivatives are by differences of `wide` ``[p]`` at first, wide enough to show beside chance. Where no step makes
    anything better they are taken to the other side and by half as much, down to `least` ``[p]``, and there it ends.
    """
    shares, residuals, factor, done = start, model(start), 1.0, 0
    while done < most and len(start):
        steps = np.sign(factor) * np.maximum(np.abs(factor) * wide, least)
        jacobian, probes = derivatives(model, steps, shares, residuals)
        better = _better(model, shares, residuals, jacobian, least)
        reached = min([better, *probes] if better else probes, key=lambda point: loss(point[1]))
        gain = loss(residuals) - loss(reached[1])
        done += 1
        if gain > 0:
            shares, residuals = reached
        if gain < _ENOUGH * loss(residuals):
            if (np.abs(factor) * wide <= least).all():
                break
            factor *= -0.5
    return Fit(shares, residuals, derivatives(model, wide, shares, residuals)[0], done)


def derivatives(
    model: Model, steps: FloatArray, shares: FloatArray, residuals: FloatArray
) -> tuple[FloatArray, list[Point]]:
    """Return the derivatives ``[m, p]`` of the residuals, by one more run a term, and what those runs were."""
    columns, probes = [], []
    for place, step in enumerate(steps.tolist()):
        there = shares.copy()
        there[place] += step if 0 <= there[place] + step <= 1 else -step
        there = np.clip(there, 0.0, 1.0)
        probes.append((there, model(there)))
        columns.append((probes[-1][1] - residuals) / (there[place] - shares[place]))
    return np.stack(columns, axis=1) if columns else np.zeros((len(residuals), 0)), probes


def _better(
    model: Model, shares: FloatArray, residuals: FloatArray, jacobian: FloatArray, least: FloatArray
) -> Point | None:
    """Return a point with a smaller loss; None where no step of least squares leads to any.

    Chance makes derivatives look steeper and so steps too short: one that is good is tried again twice as long.
    """
    before = loss(residuals)
    for damping in _DAMPINGS:
        step = _step(shares, residuals, jacobian, damping)
        found: Point | None = None
        while True:
            there = np.clip(shares + step, 0.0, 1.0)
            if (np.abs(there - shares) < least / 4).all():
                return found
            tried = model(there)
            if loss(tried) >= (loss(found[1]) if found else before):
                break
            found, step = (there, tried), 2 * step
        if found is not None:
            return found
    return None


def _step(shares: FloatArray, residuals: FloatArray, jacobian: FloatArray, damping: float) -> FloatArray:
    """Return the step of least squares; terms that it would take out of their range stay, and the others go alone."""
    free = np.ones(len(shares), dtype=np.bool_)
    counts = weights(residuals)
    step = np.zeros(len(shares))
    while free.any():
        part = jacobian[:, free]
        squares = part.T @ (counts[:, None] * part)
        damped = squares + damping * np.diag(np.diag(squares))
        step = np.zeros(len(shares))
        step[free] = -np.linalg.lstsq(damped, part.T @ (counts * residuals), rcond=1e-12)[0]
        out = free & (((shares <= 0) & (step < 0)) | ((shares >= 1) & (step > 0)))
        if not out.any():
            return step
        free &= ~out
    return np.zeros(len(shares))
