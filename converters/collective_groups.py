"""How a collective names the ranks that take part: all of them, network dimensions, or a communicator group.

Dimensions are preferred where the user's network has them, because ASTRA-sim then runs that dimension's own
algorithm; a communicator group smaller than the system is always one logical ring with a fixed 10 ns endpoint delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from converters.execution_graph import ABSENT
from foundation.errors import UserError

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
    lines = _lines(num_ranks, tuple(network_dims)) if network_dims is not None else {}
    named: list[Participants | None] = []
    ids: dict[tuple[int, ...], int] = {}
    for ranks in groups:
        if len(ranks) <= 1:
            named.append(None)
        elif len(ranks) == num_ranks:
            named.append(Participants(0))
        elif ranks in lines:
            named.append(Participants(0, lines[ranks]))
        else:
            named.append(Participants(ids.setdefault(ranks, len(ids) + 1)))
    return GroupTable(tuple(named), {number: ranks for ranks, number in ids.items()})


@lru_cache(maxsize=16)
def _lines(num_ranks: int, network_dims: tuple[int, ...]) -> dict[tuple[int, ...], int]:
    """Return, for every set of dimensions, the rank groups that it spans: ``{ranks ascending: bit mask}``."""
    size = 1
    for count in network_dims:
        size *= count
    if size != num_ranks:
        shape = " x ".join(map(str, network_dims))
        raise UserError(
            f"the network has {shape} = {size} NPUs but the trace has {num_ranks} ranks",
            field="npus_count",
            fix="make the product of npus_count equal the number of ranks",
        )
    if len(network_dims) > MAX_DIMS:
        return {}
    lines: dict[tuple[int, ...], int] = {}
    for mask in range(1, (1 << len(network_dims)) - 1):
        for ranks in spanned(num_ranks, network_dims, mask):
            lines.setdefault(ranks, mask)
    return lines


def spanned(num_ranks: int, network_dims: Sequence[int], mask: int) -> list[tuple[int, ...]]:
    """Return the groups of ranks that meet over the dimensions of `mask`, each ascending, by lowest rank."""
    groups: dict[int, list[int]] = {}
    for rank in range(num_ranks):
        groups.setdefault(_outside(rank, mask, network_dims), []).append(rank)
    return [tuple(ranks) for ranks in groups.values()]


def _outside(rank: int, mask: int, network_dims: Sequence[int]) -> int:
    """Return the part of `rank` that the dimensions outside `mask` decide (mixed radix, dimension 0 fastest)."""
    fixed, stride = 0, 1
    for dim, count in enumerate(network_dims):
        if not mask >> dim & 1:
            fixed += rank // stride % count * stride
        stride *= count
    return fixed
