"""The time of a mixture of experts, router included, from a table over tokens and experts whose weights are read.

The rows of one number of tokens are a straight line over the experts, nearly: each costs the reading of its weights.
That line goes on where a row lacks (few tokens cannot activate many experts, fractions of one are no rows). Over tokens
times are interpolated linearly; below the first they are the first's, above the last the slope goes on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trace_gen.measured.curve import Curve
from trace_gen.measured.reading import MeasuredTable

FloatArray = NDArray[np.float64]
AXES = ("tokens", "activated_experts")


class ExpertTable:
    """Looks up one rank's experts; see the module's docstring."""

    def __init__(self, table: MeasuredTable) -> None:
        self.tokens = np.unique(table.sizes[:, 0])
        self.most = table.sizes.max(axis=0)
        self._lines: list[Curve] = []
        for tokens in self.tokens:
            own = table.sizes[:, 0] == tokens
            points = dict(zip(table.sizes[own, 1].tolist(), table.times[own].tolist(), strict=True))
            self._lines.append(Curve(points))
        self._borrow_slopes()

    def _borrow_slopes(self) -> None:
        """Let a line of one point go on as the next line does."""
        for line, more in zip(reversed(self._lines[:-1]), reversed(self._lines[1:]), strict=True):
            if len(line.sizes) == 1:
                line.slope = more.slope

    def at(self, tokens: float, active: float) -> float:
        """Return the time (ns) of `tokens` tokens with all their experts on the rank, of which `active` are read."""
        values = np.array([float(line.at(np.array([active]))[0]) for line in self._lines])
        return float(Curve(dict(zip(self.tokens.tolist(), values.tolist(), strict=True))).at(np.array([tokens]))[0])
