"""Draws: a function of what they are of, the same on every machine."""

from __future__ import annotations

from foundation.draws import below, draw, uniform


def test_a_draw_is_a_function_of_all_that_it_is_of() -> None:
    assert draw(1, "route", 2) == draw(1, "route", 2)
    others = [draw(2, "route", 2), draw(1, "other", 2), draw(1, "route", 3), draw(1, "route", 2, 0), draw(1, "route")]
    assert len({draw(1, "route", 2), *others}) == 6


def test_draws_are_spread_evenly_within_their_bounds() -> None:
    numbers = [below(5, 0, "some", place) for place in range(5000)]
    assert set(numbers) == set(range(5))
    assert all(900 < numbers.count(value) < 1100 for value in range(5))
    shares = [uniform(0, "some", place) for place in range(2000)]
    assert 0 <= min(shares) < 0.01 and 0.99 < max(shares) < 1
    assert abs(sum(shares) / 2000 - 0.5) < 0.02
