"""The network.yml of an engine that stands in nodes of some kind: within pairs, within the node, between nodes.

An engine of `n` ranks on `m` nodes has `n / m` of them in each, on the node's innermost dimensions, of which it uses
what it needs; the outermost dimension is the one between nodes. There an NPU has a link of its own where the node has
as many as the engine uses NPUs, else its share of them. A dimension is cut in two where a stage or a tensor-parallel
group ends inside it, so that collectives find theirs: over a switch, or among NPUs that are all connected, that changes
no path. A ring is left whole, and so is a dimension that such a group does not divide (collectives over groups of
ranks then go by the links that lie between them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from operator import mul

from astra_files.network import NetworkConfig
from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.cluster.nodes import Dimension, NodeKind

MOST_DIMENSIONS = 4
"""ASTRA-sim's collectives name no more."""
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an engine's ranks stand: `nodes`, and so many `part` ranks in each."""

    nodes: int
    part: int


def node_network(node: NodeKind, axes: Sequence[int], nodes: int | None = None) -> NetworkConfig:
    """Return the network of an engine whose mesh has `axes`, innermost first, on `nodes` (None: as few as hold it).

    Ranks that do not divide over the nodes, or over a node's inner dimensions, are a `UserError` with what does.
    """
    placed = place(node, math.prod(axes), nodes)
    levels = _levels(node, placed.part)
    if placed.nodes > 1:
        link = node.between
        levels.append(Dimension("Switch", placed.nodes, link.share(placed.part), link.latency_ns))
    dims = _cut(levels, axes) or [replace(node.dims[0], npus=1)]
    return NetworkConfig(
        topology=tuple(one.topology for one in dims),
        npus_count=tuple(one.npus for one in dims),
        bandwidth=tuple(one.bandwidth / GIB for one in dims),
        latency=tuple(float(one.latency_ns) for one in dims),
    )


def place(node: NodeKind, ranks: int, nodes: int | None) -> Placed:
    """Return over how many nodes `ranks` are spread; see `node_network`."""
    count = nodes or math.ceil(ranks / node.npus)
    if ranks % count == 0 and _fits(node, ranks // count):
        return Placed(count, ranks // count)
    legal = [one for one in range(1, ranks + 1) if ranks % one == 0 and _fits(node, ranks // one)]
    shape = " x ".join(str(one.npus) for one in node.dims)
    what = f"{ranks} NPUs do not divide over {count} x {node.name} of {shape} NPUs"
    raise UserError(what, field="--nodes", fix=f"give {_listed(legal)}, or another number of NPUs")


def _fits(node: NodeKind, part: int) -> bool:
    """Whether a part of a node's NPUs can be taken: whole inner dimensions, and some of the next.

    Some of a ring are a ring only where they are two.
    """
    for one in node.dims:
        if part <= one.npus:
            return one.topology != "Ring" or part in (1, 2, one.npus)
        if part % one.npus:
            return False
        part //= one.npus
    return False


def _levels(node: NodeKind, part: int) -> list[Dimension]:
    """Return the dimensions of `part` NPUs of a node, those of one NPU left out."""
    levels = []
    for one in node.dims:
        size = min(part, one.npus)
        if size > 1:
            levels.append(replace(one, npus=size))
        part //= size
    return levels


def _cut(levels: Sequence[Dimension], axes: Sequence[int]) -> list[Dimension]:
    """Return `levels`, each cut where an axis of the mesh ends inside it, as far as dimensions last."""
    ends = list(accumulate(axes, mul))
    spare = MOST_DIMENSIONS - len(levels)
    dims: list[Dimension] = []
    begin = 1
    for level in levels:
        end = begin * level.npus
        cuts = _cuts(begin, end, ends if level.topology != "Ring" else ())[:spare]
        spare -= len(cuts)
        for inner, outer in zip((begin, *cuts), (*cuts, end), strict=True):
            dims.append(replace(level, npus=outer // inner))
        begin = end
    return dims


def _cuts(begin: int, end: int, ends: Sequence[int]) -> list[int]:
    """Return those of `ends` that lie between `begin` and `end`, each a multiple of the one before, dividing `end`."""
    found: list[int] = []
    for cut in sorted(set(ends)):
        if begin < cut < end and cut % (found[-1] if found else begin) == 0 and end % cut == 0:
            found.append(cut)
    return found


def _listed(counts: Sequence[int]) -> str:
    shown = [str(count) for count in counts[:6]]
    return ", ".join(shown) if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
