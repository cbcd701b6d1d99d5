"""How a collective names the ranks that take part: all of them, network dimensions, or a communicator group.

Dimensions are preferred where the user's network has them, because ASTRA-sim then runs that dimension's own
algorithm; a communicator group smaller than the system is always one logical ring with a fixed 10 ns endpoint delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

from converters.execution_graph import ABSENT
from foundation.errors import UserError
from foundation.records import dataclass
from trace_gen.mesh import lines

MAX_DIMS = 4
"""ASTRA-sim's `involved_dim` is safe up to four dimensions."""


@dataclass(frozen=True, slots=True)
class Participants:
    """What a COMM_COLL node says: `comm_group` (0: all ranks) and `involved_dims` (bit mask, `ABSENT`: all)."""

    comm_group: int
    involved_dims: int = ABSENT


@dataclass(frozen=True, slots=True)
class GroupTable:
    """`participants[i]` for group i of the trace (None: one rank, nothing to do), and the communicator groups."""

    participants: tuple[Participants | None, ...]
    communicators: dict[int, tuple[int, ...]]


def name_groups(groups: Sequence[tuple[int, ...]], num_ranks: int, network_dims: Sequence[int] | None) -> GroupTable:
    """Decide for each of `groups` (ranks in ring order) how its collectives name it.

    `network_dims` is the network's ``npus_count``, dimension 0 first (its coordinate varies fastest with the rank); its
    product must be `num_ranks`.
    """
    masks = _masks(num_ranks, tuple(network_dims)) if network_dims is not None else {}
    named: list[Participants | None] = []
    ids: dict[tuple[int, ...], int] = {}
    for ranks in groups:
        if len(ranks) <= 1:
            named.append(None)
        elif len(ranks) == num_ranks:
            named.append(Participants(0))
        elif ranks in masks:
            named.append(Participants(0, masks[ranks]))
        else:
            named.append(Participants(ids.setdefault(ranks, len(ids) + 1)))
    return GroupTable(tuple(named), {number: ranks for ranks, number in ids.items()})


@lru_cache(maxsize=16)
def _masks(num_ranks: int, network_dims: tuple[int, ...]) -> dict[tuple[int, ...], int]:
    """Return, for every set of dimensions, the rank groups that it spans: ``{ranks ascending: bit mask}``."""
    size = prod(network_dims)
    if size != num_ranks:
        shape = " x ".join(map(str, network_dims))
        raise UserError(
            f"the network has {shape} = {size} NPUs but the trace has {num_ranks} ranks",
            field="npus_count",
            fix="make the product of npus_count equal the number of ranks",
        )
    if len(network_dims) > MAX_DIMS:
        return {}
    found: dict[tuple[int, ...], int] = {}
    for mask in range(1, (1 << len(network_dims)) - 1):
        for ranks in spanned(network_dims, mask):
            found.setdefault(ranks, mask)
    return found


def spanned(network_dims: Sequence[int], mask: int) -> tuple[tuple[int, ...], ...]:
    """Return the groups of ranks that meet over the dimensions of `mask`, each ascending, by lowest rank."""
    return lines(network_dims, [dim for dim in range(len(network_dims)) if mask >> dim & 1])
