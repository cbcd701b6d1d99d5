"""Logarithm, exponential, and quantiles of distributions, the same to the last bit on every machine.

C libraries round `log` and `exp` differently, and NumPy has vector forms of its own that change between releases and
processors. Here everything is made of additions, multiplications, divisions and square roots of 64-bit floats, each an
array operation by itself, which IEEE 754 rounds in one way only; the answers are within a few units in the last place.
Every value depends on its own argument alone, never on what stands beside it in the array.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62E42FEFA38p-1"), float.fromhex("0x1.EF35793C7673p-45")
"""ln 2 in two parts: the first has so few digits that its product with an exponent is exact."""
_HALF_ROOT = math.sqrt(0.5)
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
_HALF_LN_2PI = 0.9189385332046727418

# Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", Applied Statistics 37 (1988), PPND16:
# numerators and denominators, highest power first.
_MIDDLE = (
    (2.50908_09287_30122_6727e3, 3.34305_75583_58812_8105e4, 6.72657_70927_00870_0853e4, 4.59219_53931_54987_1457e4,
     1.37316_93765_50946_1125e4, 1.97159_09503_06551_4427e3, 1.33141_66789_17843_7745e2, 3.38713_28727_96366_6080e0),
    (5.22649_52788_52854_5610e3, 2.87290_85735_72194_2674e4, 3.93078_95800_09271_0610e4, 2.12137_94301_58659_5867e4,
     5.39419_60214_24751_1077e3, 6.87187_00749_20579_0830e2, 4.23133_30701_60091_1252e1, 1.0),
)  # fmt: skip
_NEAR = (
    (7.74545_01427_83414_07640e-4, 2.27238_44989_26918_45833e-2, 2.41780_72517_74506_11770e-1,
     1.27045_82524_52368_38258e0, 3.64784_83247_63204_60504e0, 5.76949_72214_60691_40550e0,
     4.63033_78461_56545_29590e0, 1.42343_71107_49683_57734e0),
    (1.05075_00716_44416_84324e-9, 5.47593_80849_95344_94600e-4, 1.51986_66563_61645_71966e-2,
     1.48103_97642_74800_74590e-1, 6.89767_33498_51000_04550e-1, 1.67638_48301_83803_84940e0,
     2.05319_16266_37758_82187e0, 1.0),
)  # fmt: skip
_FAR = (
    (2.01033_43992_92288_13265e-7, 2.71155_55687_43487_57815e-5, 1.24266_09473_88078_43860e-3,
     2.65321_89526_57612_30930e-2, 2.96560_57182_85048_91230e-1, 1.78482_65399_17291_33580e0,
     5.46378_49111_64114_36990e0, 6.65790_46435_01103_77720e0),
    (2.04426_31033_89939_78564e-15, 1.42151_17583_16445_88870e-7, 1.84631_83175_10054_68180e-5,
     7.86869_13114_56132_59100e-4, 1.48753_61290_85061_48525e-2, 1.36929_88092_27358_05310e-1,
     5.99832_20655_58879_37690e-1, 1.0),
)  # fmt: skip


def log(values: FloatArray) -> FloatArray:
    """Return the natural logarithms of positive values."""
    mantissa, exponent = np.frexp(values)
    small = mantissa < _HALF_ROOT
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    power = (exponent - small).astype(np.float64)
    # ln m = 2 artanh(s), s = (m - 1) / (m + 1): |s| < 0.172, so that thirteen terms are more than enough.
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = np.full_like(s, 1 / 27)
    for odd in range(25, 1, -2):
        series = series * square + 1 / odd
    return power * _LN2_HIGH + (2.0 * s + (2.0 * s * (square * series) + power * _LN2_LOW))


def exp(values: FloatArray) -> FloatArray:
    """Return e to the power of values below 709; what is below -745 gives 0."""
    values = np.maximum(values, -745.5)
    power = np.rint(values * 1.4426950408889634)
    rest = (values - power * _LN2_HIGH) - power * _LN2_LOW
    series = np.full_like(rest, 1.0 / 18)
    for factor in range(17, 1, -1):
        series = (1.0 + rest * series) * (1.0 / factor)
    return np.ldexp(1.0 + rest * (1.0 + rest * series), power.astype(np.int32))


def power(base: FloatArray, exponent: float) -> FloatArray:
    """Return positive values raised to `exponent`; below the smallest float it is 0."""
    return exp(log(base) * exponent)


def one(function: object, value: float) -> float:
    """Return what a function of arrays makes of a single value."""
    return float(function(np.array([value]))[0])  # type: ignore[operator]


def log_gamma(value: float) -> float:
    """Return the logarithm of the gamma function of a positive value, by Stirling's series above 16."""
    shift = 1.0
    lowered = 0.0
    while value < 16.0:
        shift *= value
        value += 1.0
    if shift != 1.0:
        lowered = one(log, shift)
    inverse = 1.0 / value
    square, series = inverse * inverse, 0.0
    for coefficient in reversed(_STIRLING):
        series = series * square + coefficient
    return (value - 0.5) * one(log, value) - value + _HALF_LN_2PI + series * inverse - lowered


def sine_of_turn(turn: float) -> float:
    """Return sin(2 pi turn) for a turn from 0 to 1, by its Taylor series in the first quarter."""
    half = turn >= 0.5
    within = turn - 0.5 if half else turn
    within = min(within, 0.5 - within)
    angle = within * 6.283185307179586
    term = result = angle
    for factor in range(2, 24, 2):
        term = -term * angle * angle / (factor * (factor + 1))
        result += term
    return -result if half else result


def normal_quantile(uniforms: FloatArray) -> FloatArray:
    """Return the standard normal deviates at quantiles between 0 and 1, both excluded (Wichura's PPND16)."""
    offset = uniforms - 0.5
    middle = np.abs(offset) <= 0.425
    tail = np.where(middle, 0.25, np.where(offset < 0.0, uniforms, 1.0 - uniforms))
    far = np.sqrt(-log(tail))
    near = far <= 5.0
    within = 0.180625 - offset * offset
    result = np.where(
        middle,
        offset * _ratio(_MIDDLE, np.where(middle, within, 0.0)),
        np.where(near, _ratio(_NEAR, np.where(near, far - 1.6, 0.0)), _ratio(_FAR, np.where(near, 0.0, far - 5.0))),
    )
    return np.where(middle | (offset >= 0.0), result, -result)


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], at: FloatArray) -> FloatArray:
    above, below = (_polynomial(one, at) for one in polynomials)
    return above / below


def _polynomial(coefficients: tuple[float, ...], at: FloatArray) -> FloatArray:
    result = np.full_like(at, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * at + coefficient
    return result
