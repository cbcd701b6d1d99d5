"""Sizes of collectives other than their trace's, with which a network takes for them what another one would."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from converters.execution_graph import ABSENT, CollectiveType
from converters.graph_plan import RankPlan
from foundation.errors import InternalError
from foundation.records import dataclass

IntArray = NDArray[np.int64]
CollectiveSizes = Callable[[CollectiveType, tuple[int, ...], IntArray], IntArray]
"""The `comm_size`s of collectives of a kind over dimensions of so many ranks each, innermost first, for the bytes that
a trace says they have."""


@dataclass(frozen=True, slots=True, eq=False)
class CarriedCollectives:
    """The collectives of a plan: kind, dimensions that they are over, and positions among its nodes."""

    alike: tuple[tuple[CollectiveType, tuple[int, ...], NDArray[np.intp]], ...]

    @classmethod
    def of(cls, plan: RankPlan, dims: tuple[int, ...]) -> CarriedCollectives:
        """Find the collectives of `plan` on a network of `dims`."""
        names = ("comm_type", "comm_group", "involved_dims")
        kinds = np.stack([plan.columns[name].astype(np.int64) for name in names])
        at = np.flatnonzero(kinds[0] >= 0)
        distinct, which = np.unique(kinds[:, at], axis=1, return_inverse=True)
        if distinct[1].any():
            raise InternalError("a collective that follows a curve is over a group, not over dimensions")
        rows = enumerate(zip(*distinct[[0, 2]].tolist(), strict=True))
        return cls(
            tuple(
                (CollectiveType(kind), _over(involved, dims), at[which.reshape(-1) == index])
                for index, (kind, involved) in rows
            )
        )

    def replaced(self, comm_size: IntArray, sizes_for: CollectiveSizes) -> IntArray:
        """Return `comm_size` ``[n]`` of the plan's nodes with those of collectives by `sizes_for`."""
        result = comm_size.copy()
        for kind, over, here in self.alike:
            sizes, which = np.unique(comm_size[here], return_inverse=True)
            result[here] = sizes_for(kind, over, sizes)[which]
        return result


def _over(involved: int, dims: tuple[int, ...]) -> tuple[int, ...]:
    every = involved == ABSENT
    return tuple(count for dim, count in enumerate(dims) if count > 1 and (every or involved >> dim & 1))
