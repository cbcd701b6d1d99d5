"""A polynomial of all sizes, with their products: least squares of relative errors.

Of the degrees up to the highest that is allowed, and that has no more terms than two thirds of the rows, the one with
the least mean relative error in cross-validation is taken, as in Vidur (github.com/microsoft/vidur,
execution_time_predictor), which does so with absolute errors.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np

from foundation.records import dataclass
from trace_gen.perf_models.profile.learning.interface import Fitted, FloatArray, missing_library

FOLDS = 5
SEED = 0
ROWS_A_TERM = 1.5
MOST_TERMS = 80
DIGITS = 12
"""Of coefficients: fewer than least squares have in common on different processors' libraries."""


@dataclass(frozen=True, slots=True)
class Polynomial:
    """A `Predictor` of degrees up to `most_degree`.

    Fitted: ``exponents`` ``[terms, axes]``, ``coefficients`` ``[terms]`` of sizes divided by ``scale`` ``[axes]``, and
    ``least``, the shortest time that was measured, below which it never goes.
    """

    most_degree: int

    @property
    def identity(self) -> str:
        """See `Predictor.identity`."""
        return f"polynomial {self.most_degree} {FOLDS} {ROWS_A_TERM} {MOST_TERMS} {DIGITS} {SEED}"

    def fit(self, sizes: FloatArray, times: FloatArray) -> Fitted:
        """See `Predictor.fit`."""
        scale = np.maximum(sizes.max(axis=0), 1.0)
        scaled, most = sizes / scale, min(MOST_TERMS, len(times) / ROWS_A_TERM)
        candidates = [_exponents(sizes.shape[1], degree) for degree in range(1, self.most_degree + 1)]
        candidates = [one for one in candidates if len(one) <= most] or [np.zeros((1, sizes.shape[1]), dtype=np.int64)]
        if len(candidates) > 1:
            errors = [_cross_validated(_terms(scaled, one), times) for one in candidates]
            candidates = [candidates[int(np.argmin(errors))]]
        found = _least_squares(_terms(scaled, candidates[0]), times)
        rounded = np.array([float(f"{value:.{DIGITS - 1}e}") for value in found])
        return {"exponents": candidates[0], "coefficients": rounded, "scale": scale, "least": times.min()}

    def at(self, fitted: Fitted, sizes: FloatArray) -> FloatArray:
        """See `Predictor.at`."""
        scale, coefficients = (np.asarray(fitted[name], dtype=np.float64) for name in ("scale", "coefficients"))
        terms = _terms(sizes / scale, np.asarray(fitted["exponents"], dtype=np.int64))
        result: FloatArray = np.maximum((terms * coefficients).sum(axis=1), np.float64(fitted["least"]))
        return result


def _exponents(axes: int, degree: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the exponents of every product of at most `degree` sizes, ``[terms, axes]``."""
    chosen = [one for count in range(degree + 1) for one in combinations_with_replacement(range(axes), count)]
    return np.array([[one.count(axis) for axis in range(axes)] for one in chosen], dtype=np.int64)


def _terms(scaled: FloatArray, exponents: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> FloatArray:
    """Return each product of sizes as a column, ``[n, terms]``; powers by multiplication, for `**` is slow."""
    columns = []
    for powers in exponents.tolist():
        column = np.ones(len(scaled))
        for axis, power in enumerate(powers):
            for _ in range(power):
                column = column * scaled[:, axis]
        columns.append(column)
    return np.stack(columns, axis=1)


def _least_squares(terms: FloatArray, times: FloatArray) -> FloatArray:
    try:
        from sklearn.linear_model import LinearRegression
    except ImportError as error:
        raise missing_library(error) from error
    made = LinearRegression(fit_intercept=False).fit(terms / times[:, None], np.ones(len(times)))
    return np.asarray(made.coef_, dtype=np.float64)


def _cross_validated(terms: FloatArray, times: FloatArray) -> float:
    """Return the mean relative error at rows that were left out, `FOLDS` parts one after another."""
    part = np.random.default_rng(SEED).permutation(len(times)) % FOLDS
    errors = np.empty(len(times))
    for fold in range(FOLDS):
        out = part == fold
        found = terms[out] @ _least_squares(terms[~out], times[~out])
        errors[out] = np.abs(np.maximum(found, times[~out].min()) / times[out] - 1)
    return float(errors.mean())
