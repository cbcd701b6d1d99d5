"""How many cases reach a test's comparison: a test that forgives some cases must not pass on nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy


class Reached:
    """Counts the cases of a test (`case`) and those whose figures were compared (calling it)."""

    def __init__(self) -> None:
        self.cases = 0
        self.compared = 0

    def case(self) -> None:
        """Begin a case."""
        self.cases += 1

    def __call__(self) -> None:
        """Say that the present case has reached its comparison."""
        self.compared += 1

    def check(self, share: float) -> None:
        """Fail unless at least `share` of the cases were compared."""
        assert self.cases, "the test saw no case"
        text = f"{self.compared} of {self.cases} cases reached the comparison, less than {share:.0%}"
        assert self.compared >= share * self.cases, text


def reaches(
    share: float, *, examples: int = 100, **strategies: SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Make a property of ``body(reached, **drawn)``, which calls `reached` where it compares; `share` of cases must.

    `examples` and `strategies` are Hypothesis's. Draws are the same again in the same process; Hypothesis mixes in
    constants of the modules that are loaded, so that they differ a little by which tests ran before: leave room.
    """

    def decorate(body: Callable[..., None]) -> Callable[[], None]:
        def test() -> None:
            reached = Reached()

            def case(**drawn: Any) -> None:
                reached.case()
                body(reached, **drawn)

            case.__name__ = body.__name__
            settings(deadline=None, derandomize=True, max_examples=examples)(given(**strategies)(case))()
            reached.check(share)

        test.__name__, test.__doc__ = body.__name__, body.__doc__
        return test

    return decorate
