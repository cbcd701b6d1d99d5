"""The contract of pricing: how long the batches of one iteration take on each pipeline stage, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.engine.batch import Batch

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """The cost of the batches of a wave, each of its `k` steps alone, on idle hardware.

    `finish_ns` ``[members, k, stages]``: when each stage is done with each step, from the step's start; a row never
    decreases. `busy_ns` ``[members, k, classes]``: time by class of work, summed over the stages.
    """

    finish_ns: IntArray
    busy_ns: IntArray


class Pricing(Protocol):
    """Says what batches cost on one deployment."""

    stages: int
    """Pipeline stages."""

    max_steps: int
    """The most like iterations of one batch that `price` takes at once."""

    classes: tuple[str, ...]
    """The classes of work that `Cost.busy_ns` tells apart."""

    def price(self, wave: Sequence[Batch]) -> Cost:
        """Return the cost of batches that run in lock step, one a member; one batch is the plain case.

        All have as many steps. Raises `foundation.errors.SimulationError`, naming the batch.
        """
