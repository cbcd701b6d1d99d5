"""Quantiles of the gamma distribution of mean 1, by Newton's method on the logarithm of its distribution function.

Below the mean the lower tail is a power series, above it the upper tail is Legendre's continued fraction (Abramowitz
and Stegun, "Handbook of Mathematical Functions", 6.5.29 and 6.5.31). Logarithms of both tails are concave in the
logarithm of the value, so steps converge from wherever they begin. A value's steps end when it is found, whatever
others need.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from orchestrator.requests.generators.elementary import FloatArray, exp, log, log_gamma, normal_quantile

_MOST_STEPS = 60
_LONGEST_STEP = 2.0
_CLOSE = 1e-13
_NEGLIGIBLE = 2.0**-54
_Tail = Callable[[float, FloatArray], FloatArray]


def gamma_quantile(shape: float, upper: FloatArray) -> FloatArray:
    """Return the values, in means, that are exceeded with probability `upper` (between 0 and 1, both excluded).

    The coefficient of variation is ``shape ** -0.5``; shape 1 is the exponential distribution.
    """
    if shape == 1.0:
        return -log(upper)
    log_upper, log_lower = log(upper), log(1.0 - upper)
    whole = log_gamma(shape)
    place = _beginning(shape, whole + float(log(np.array([shape]))[0]), upper, log_lower)
    left = np.arange(len(upper))
    for _ in range(_MOST_STEPS):
        step = _step(shape, whole, place[left], log_lower[left], log_upper[left])
        place[left] += step
        left = left[np.abs(step) > _CLOSE * np.maximum(1.0, np.abs(place[left]))]
        if not len(left):
            break
    return exp(place) / shape


def _beginning(shape: float, whole: float, upper: FloatArray, log_lower: FloatArray) -> FloatArray:
    """Return logarithms to begin with: Wilson and Hilferty's cube, or the series' first term where it is small."""
    cube = 1.0 - 1.0 / (9.0 * shape) - normal_quantile(upper) / (3.0 * shape**0.5)
    small = (log_lower + whole) / shape
    near = cube > 0.3
    about = 3.0 * log(np.where(near, cube, 1.0)) + float(log(np.array([shape]))[0])
    return np.where(near & (small > -3.0), about, np.minimum(small, about + 1.0))


def _step(shape: float, whole: float, place: FloatArray, log_lower: FloatArray, log_upper: FloatArray) -> FloatArray:
    """Return how far the logarithms of values are from where they should be, by the tail that is the smaller one."""
    value = exp(place)
    density = shape * place - value - whole
    low = value < shape + 1.0
    result = np.empty_like(place)
    for tail, chosen, sign, wanted in ((_series, low, 1.0, log_lower), (_fraction, ~low, -1.0, log_upper)):
        if chosen.any():
            part = tail(shape, value[chosen])
            found = density[chosen] + log(part)
            result[chosen] = sign * (wanted[chosen] - found) * part
    return np.clip(result, -_LONGEST_STEP, _LONGEST_STEP) if shape > 0.1 else result


def _series(shape: float, value: FloatArray) -> FloatArray:
    """Return P(shape, value) over value times the density; each sum ends where terms change nothing."""
    term = total = np.full_like(value, 1.0 / shape)
    count = 1.0
    while bool((term > total * _NEGLIGIBLE).any()):
        term = term * (value / (shape + count))
        total = total + term
        count += 1.0
    return total


def _fraction(shape: float, value: FloatArray) -> FloatArray:
    """Return Q(shape, value) over value times the density, by Lentz's method; each stops where factors are 1."""
    below = value + 1.0 - shape
    ratio = np.full_like(value, 1e300)
    inverse = 1.0 / below
    result = inverse
    going: NDArray[np.bool_] = np.ones(len(value), dtype=np.bool_)
    count = 1.0
    while bool(going.any()):
        part = -count * (count - shape)
        below = below + 2.0
        inverse = 1.0 / (part * inverse + below)
        ratio = below + part / ratio
        factor = ratio * inverse
        result = np.where(going, result * factor, result)
        going = going & (np.abs(factor - 1.0) > 4.0 * _NEGLIGIBLE)
        count += 1.0
    return result
