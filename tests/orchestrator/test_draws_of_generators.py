"""What generators draw with: elementary functions against the C library's, quantiles against distribution functions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from random import Random
from statistics import NormalDist

import numpy as np
import pytest
from golden.generated import HELD, digests
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.requests.generators.elementary import (
    FloatArray,
    exp,
    log,
    log_gamma,
    normal_quantile,
    power,
    sine_of_turn,
)
from orchestrator.requests.generators.gamma import gamma_quantile
from orchestrator.requests.generators.streams import Stream

TAILS = np.array([2.0**-54, 2.0**-40, 1e-9, 0.075, 0.425, 0.5, 0.925, 1 - 1e-9, 1 - 2.0**-53])
UNIFORMS = np.concatenate([Stream("1", "test").uniforms(20_000), TAILS])


def worst_ulps(ours: FloatArray, theirs: list[float]) -> float:
    return max(abs(a - b) / math.ulp(b) for a, b in zip(ours.tolist(), theirs, strict=True))


@pytest.mark.parametrize(
    ("ours", "theirs", "values", "ulps"),
    [
        (log, math.log, UNIFORMS, 3),
        (log, math.log, np.array([5e-324, 1e-300, 0.7071, 0.7072, 1.0000001, 2.0, 1e300]), 3),
        (exp, math.exp, UNIFORMS * 1400 - 700, 3),
        (exp, math.exp, UNIFORMS * 10 - 5, 3),
        (normal_quantile, NormalDist().inv_cdf, UNIFORMS[UNIFORMS != 0.5], 8),
    ],
)
def test_functions_agree_with_the_c_librarys(
    ours: Callable[[FloatArray], FloatArray], theirs: Callable[[float], float], values: FloatArray, ulps: float
) -> None:
    assert worst_ulps(ours(values), [theirs(value) for value in values.tolist()]) <= ulps


def test_where_functions_end() -> None:
    assert log(np.array([1.0])).tolist() == exp(np.array([-800.0])).tolist() == [0.0]
    assert exp(np.array([0.0])).tolist() == power(np.array([7.0]), 0.0).tolist() == [1.0]
    assert normal_quantile(np.array([0.5])).tolist() == [0.0]
    assert [sine_of_turn(turn) for turn in (0.0, 0.25, 0.75)] == [0.0, pytest.approx(1.0), pytest.approx(-1.0)]
    assert all(
        sine_of_turn(step / 97) == pytest.approx(math.sin(2 * math.pi * step / 97), abs=1e-14) for step in range(97)
    )


@given(st.floats(1e-4, 1e6))
def test_the_gamma_functions_logarithm(value: float) -> None:
    assert log_gamma(value) == pytest.approx(math.lgamma(value), rel=1e-13, abs=1e-13)


@given(st.floats(1e-3, 1e4), st.lists(st.floats(2.0**-50, 1 - 2.0**-50), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_gamma_quantiles_ascend_and_do_not_depend_on_their_neighbours(shape: float, uppers: list[float]) -> None:
    upper = np.array(sorted(uppers, reverse=True))
    found = gamma_quantile(shape, upper)
    assert (np.diff(found) >= 0).all() and (found >= 0).all()
    assert found.tolist() == [float(gamma_quantile(shape, np.array([one]))[0]) for one in upper.tolist()]


@pytest.mark.parametrize("shape", [1, 2, 3, 7, 30])
def test_gamma_quantiles_of_whole_shapes_fit_erlangs_sum(shape: int) -> None:
    """Of a whole shape k the upper tail is that of a Poisson process: exp(-x) times the sum of x^i / i! for i < k."""
    for upper, value in zip(UNIFORMS[-300:].tolist(), gamma_quantile(shape, UNIFORMS[-300:]).tolist(), strict=True):
        x = value * shape
        tail = math.exp(-x) * math.fsum(x**i / math.factorial(i) for i in range(shape))
        assert tail == pytest.approx(upper, rel=1e-11, abs=1e-15)


def test_gamma_quantiles_of_shape_a_half_are_squares_of_normal_deviates() -> None:
    values = gamma_quantile(0.5, UNIFORMS[:2000])
    assert values == pytest.approx(normal_quantile(UNIFORMS[:2000] / 2) ** 2, rel=1e-10)


@pytest.mark.parametrize("shape", [0.001, 0.02, 0.3, 0.9, 1.5, 40.0, 1e4])
def test_gamma_gaps_have_mean_1_and_the_shapes_variance(shape: float) -> None:
    """The mean of the quantile function over a fine grid is the distribution's, but for what the ends hold."""
    grid = (np.arange(200_000) + 0.5) / 200_000
    values = gamma_quantile(shape, grid)
    lost = {0.001: 0.25, 0.02: 0.02}.get(shape, 2e-4)
    assert values.mean() == pytest.approx(1.0, abs=lost)
    if shape >= 0.3:
        assert values.var() * shape == pytest.approx(1.0, abs=0.01)


def test_streams_are_pythons_and_blocks_do_not_matter() -> None:
    stream, python = Stream("5/2", "arrival"), Random("5/2/arrival")
    drawn = [one for size in (1, 700, 3, 64) for one in stream.uniforms(size).tolist()]
    assert drawn == [python.random() for _ in drawn]
    assert Stream("5/2", "prompt").uniforms(4).tolist() != drawn[:4]


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Held for every Python and NumPy; `python tests/golden/generated.py` says so with any pair of them."""
    assert digests() == json.loads(HELD.read_text())
