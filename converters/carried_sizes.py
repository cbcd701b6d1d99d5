"""Sizes of collectives other than their trace's, with which a network takes for them what they take on another fabric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from converters.execution_graph import ABSENT, CollectiveType
from converters.graph_plan import RankPlan
from foundation.errors import InternalError

IntArray = NDArray[np.int64]
CollectiveSizes = Callable[[CollectiveType, int, IntArray], IntArray]
"""The `comm_size`s of collectives of a kind over so many ranks, for the bytes that a trace says they have."""


@dataclass(frozen=True, slots=True)
class CarriedSizes:
    """Gives the collectives of plans the sizes of `sizes_for`, by how many ranks their group or dimensions have."""

    sizes_for: CollectiveSizes
    groups: dict[int, tuple[int, ...]]
    dims: tuple[int, ...] | None

    def of(self, plan: RankPlan, comm_size: IntArray) -> IntArray:
        """Return `comm_size` ``[n]`` with those of collectives replaced."""
        names = ("comm_type", "comm_group", "involved_dims")
        kinds = np.stack([plan.columns[name].astype(np.int64) for name in names])
        at = np.flatnonzero(kinds[0] >= 0)
        result = comm_size.copy()
        distinct, which = np.unique(kinds[:, at], axis=1, return_inverse=True)
        for index, (kind, group, involved) in enumerate(distinct.T.tolist()):
            here = at[which.reshape(-1) == index]
            ranks = len(self.groups[group]) if group else self._across(involved)
            result[here] = self.sizes_for(CollectiveType(kind), ranks, comm_size[here])
        return result

    def _across(self, involved: int) -> int:
        """Return how many ranks meet over some dimensions."""
        if self.dims is None:
            raise InternalError("sizes of collectives are chosen for a network that is not known")
        return prod(count for dim, count in enumerate(self.dims) if involved == ABSENT or involved >> dim & 1)
