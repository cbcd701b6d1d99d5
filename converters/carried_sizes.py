"""Sizes of collectives other than their trace's, with which a network takes for them what another one would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.execution_graph import ABSENT, CollectiveType
from converters.graph_plan import RankPlan
from foundation.errors import InternalError

IntArray = NDArray[np.int64]
CollectiveSizes = Callable[[CollectiveType, tuple[int, ...], IntArray], IntArray]
"""The `comm_size`s of collectives of a kind over dimensions of so many ranks each, innermost first, for the bytes that
a trace says they have."""


@dataclass(frozen=True, slots=True)
class CarriedSizes:
    """Gives collectives the sizes of `sizes_for`, by the dimensions of the network (`dims`) that they are over."""

    sizes_for: CollectiveSizes
    dims: tuple[int, ...]

    def of(self, plan: RankPlan, comm_size: IntArray) -> IntArray:
        """Return `comm_size` ``[n]`` of a plan's nodes with those of collectives replaced."""
        names = ("comm_type", "comm_group", "involved_dims")
        kinds = np.stack([plan.columns[name].astype(np.int64) for name in names])
        at = np.flatnonzero(kinds[0] >= 0)
        result = comm_size.copy()
        distinct, which = np.unique(kinds[:, at], axis=1, return_inverse=True)
        for index, (kind, group, involved) in enumerate(distinct.T.tolist()):
            if group:
                raise InternalError("a collective that follows a curve is over a group, not over dimensions")
            here = at[which.reshape(-1) == index]
            result[here] = self.sizes_for(CollectiveType(kind), self._over(involved), comm_size[here])
        return result

    def _over(self, involved: int) -> tuple[int, ...]:
        every = involved == ABSENT
        return tuple(count for dim, count in enumerate(self.dims) if count > 1 and (every or involved >> dim & 1))
