"""The tests' own helpers: one that counts must fail where nothing was counted."""

from __future__ import annotations

import pytest
from helpers.reached import Reached, reaches
from hypothesis import strategies as st


def test_a_property_that_compares_too_little_fails() -> None:
    seen = []

    @reaches(0.9, examples=40, number=st.integers(0, 10**6))
    def compares_half(reached: Reached, number: int) -> None:
        """Half."""
        seen.append(number)
        if number % 2:
            reached()

    with pytest.raises(AssertionError, match=r"\d+ of 40 cases reached the comparison, less than 90%"):
        compares_half()
    assert len(seen) == 40
    assert (compares_half.__name__, compares_half.__doc__) == ("compares_half", "Half.")


def test_a_property_that_compares_enough_passes_and_one_that_is_wrong_fails() -> None:
    @reaches(1.0, examples=20, number=st.integers(0, 9))
    def right(reached: Reached, number: int) -> None:
        reached()
        assert number >= 0

    @reaches(0.5, examples=20, number=st.integers(0, 9))
    def wrong(reached: Reached, number: int) -> None:
        reached()
        assert number < 5

    right()
    with pytest.raises(AssertionError):
        wrong()


def test_no_case_at_all_fails() -> None:
    with pytest.raises(AssertionError, match="saw no case"):
        Reached().check(0.0)
