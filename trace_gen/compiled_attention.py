"""Attention's time as functions that compile: what performance models tell of a batch's attention, in numbers only.

The numbers of a model's attention of one shape are a `CompiledAttention`; which model they are of says `kind`. The
functions give what the model's own NumPy code gives, to the nanosecond.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROOFLINE, PROFILE = 0, 1


class CompiledAttention(NamedTuple):
    """One rank's attention of one shape. What the arrays hold is up to the module of the model (`kind`)."""

    kind: int
    ints: NDArray[np.int64]
    floats: NDArray[np.float64]
    places: NDArray[np.int64]
    table: NDArray[np.float64]
