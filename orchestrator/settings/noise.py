"""How a run is disturbed: by as little as nobody can say of a real one, to show which differences mean anything."""

from __future__ import annotations

from collections.abc import Iterator

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem

MOST_JITTER_PERCENT = 50.0
MOST_RUNS = 1000
ARRIVALS_MS, STEPS_PERCENT = 3.0, 0.5
"""What two runs of one server differ by at least: a client's clock and event loop, and a GPU's clocks."""


@dataclass(frozen=True)
class NoiseSettings:
    """Arrivals moved and steps stretched at random. Without either a run is what it was."""

    jitter_arrivals_ms: float | None = setting(
        None,
        "standard deviation by which arrivals are moved at random, sooner or later",
        unit="ms",
        least=0,
        most=1e9,
        shown_default="0",
    )
    jitter_steps: float | None = setting(
        None,
        "standard deviation by which every step takes longer or shorter at random",
        unit="% of the step",
        least=0,
        most=MOST_JITTER_PERCENT,
        shown_default="0",
    )
    jitter_seed: int | None = setting(None, "seed of both", shown_default="0")

    @property
    def given(self) -> bool:
        """Whether anything is disturbed."""
        return bool(self.jitter_arrivals_ms or self.jitter_steps)

    @property
    def seed(self) -> int:
        """The seed of all draws."""
        return self.jitter_seed or 0

    def problems(self) -> Iterator[Problem]:
        """A seed is of something."""
        if self.jitter_seed is not None and self.jitter_arrivals_ms is None and self.jitter_steps is None:
            yield Problem("jitter_seed", "nothing is disturbed", "give --jitter_arrivals_ms or --jitter_steps too")
