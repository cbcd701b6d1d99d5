"""The contract of a predictor: it is fitted to rows of a table, and what it has learned are arrays.

Arrays, not objects of the library that fitted them: a cache can keep them without running foreign code when they are
read, and the same few lines of ours evaluate them whether they come from the cache or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError

FloatArray = NDArray[np.float64]
Fitted = Mapping[str, NDArray[np.generic]]
"""What was learned, by name."""
LIBRARY = "scikit-learn"


class Predictor(Protocol):
    """Learns times from rows."""

    @property
    def identity(self) -> str:
        """Its name and settings: with the rows, what decides what is learned."""

    def fit(self, sizes: FloatArray, times: FloatArray) -> Fitted:
        """Return what is learned of `times` ``[n]`` (ns, above 0) at `sizes` ``[n, axes]``.

        The same rows give the same arrays, whatever the number of processors. A `UserError` says that the library
        it needs is missing.
        """

    def at(self, fitted: Fitted, sizes: FloatArray) -> FloatArray:
        """Return the times (ns) at `sizes` ``[q, axes]``."""


def missing_library(error: ImportError) -> UserError:
    """Return the error for a predictor without its library."""
    what = f"learned times need {LIBRARY}, which cannot be loaded ({error})"
    return UserError(what, field="--profile_predictor", fix="pip install 'orrery-sim[learned]', or use lookup")
