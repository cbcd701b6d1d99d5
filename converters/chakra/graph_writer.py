"""`ExecutionGraph` -> ``PREFIX.<rank>.et`` files, fast: an external backend writes a graph every iteration.

The nodes of a `RankGraph` are encoded once for all its ranks, column by column, straight to the wire format (tests
compare with protobuf's own bytes); only SEND and RECV, whose peers are absolute in the file, are encoded per rank.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.chakra import wire
from converters.chakra.framing import encode_varint
from converters.chakra.graph_reader import GROUPS_SUFFIX
from converters.chakra.nodes import SCHEMA_VERSION
from converters.execution_graph import ABSENT, ExecutionGraph, RankGraph
from foundation.files import atomic_write
from foundation.recent import RecentByIdentity
from foundation.records import dataclass

HEADER = wire.frame(wire.field(1, SCHEMA_VERSION.encode()))
"""How every file begins: its GlobalMetadata."""


@dataclass(frozen=True, slots=True)
class WrittenGraph:
    """The files of one graph: `ranks` in rank order, and the communicator group file where there are groups."""

    prefix: Path
    ranks: tuple[Path, ...]
    groups: Path | None


class GraphWriter:
    """Writes graphs; keeps the encoded structure of recent ones, by the identity of their columns."""

    def __init__(self, capacity: int = 64) -> None:
        self._heads: RecentByIdentity[list[bytes]] = RecentByIdentity(capacity)

    def write(self, graph: ExecutionGraph, prefix: str | Path, step: int = 0) -> WrittenGraph:
        """Write `step` of `graph` as ``PREFIX.<rank>.et`` and, where it has groups, ``PREFIX.comm_groups.json``.

        Each file is written whole or not at all. A group file left by an earlier graph without its groups is removed.
        """
        paths: dict[int, Path] = {}
        for rank_graph in graph.rank_graphs:
            for rank, content in self.encode(rank_graph, step):
                paths[rank] = Path(f"{prefix}.{rank}.et")
                with atomic_write(paths[rank], "wb") as stream:
                    stream.write(content)
        groups = Path(f"{prefix}{GROUPS_SUFFIX}")
        if graph.groups:
            with atomic_write(groups) as stream:
                stream.write(groups_json(graph.groups))
        else:
            groups.unlink(missing_ok=True)
        ordered = tuple(paths[rank] for rank in sorted(paths))
        return WrittenGraph(Path(prefix), ordered, groups if graph.groups else None)

    @property
    def misses(self) -> int:
        """How often a graph brought columns that are not those of a recent one."""
        return self._heads.misses

    def encode(self, graph: RankGraph, step: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield every rank of `graph` and the content of its .et file at `step`."""
        for ranks, nodes in encode_nodes(graph, step, self._node_heads(graph)):
            content = HEADER + nodes
            for rank in ranks:
                yield rank, content

    def _node_heads(self, graph: RankGraph) -> list[bytes]:
        """Return fields 1 to 7 of every node, kept for as long as the graph's columns live on."""
        columns = (graph.node_id, graph.node_type, graph.name, graph.duration_us, graph.dep_offsets, graph.dep_index)
        return self._heads.get((*columns, graph.names), lambda: heads(graph, graph.node_id[graph.dep_index]))


def write_graph(graph: ExecutionGraph, prefix: str | Path, step: int = 0) -> WrittenGraph:
    """Write one graph; see `GraphWriter.write`. Writers of many graphs keep a `GraphWriter`."""
    return GraphWriter().write(graph, prefix, step)


def groups_json(groups: dict[int, tuple[int, ...]]) -> str:
    """Return the communicator group file of `groups` in ASTRA-sim's format."""
    return json.dumps({str(group): list(ranks) for group, ranks in sorted(groups.items())}) + "\n"


def heads(graph: RankGraph, parents: NDArray[np.int64]) -> list[bytes]:
    """Encode fields 1 to 7 of every node; `parents` are the ids behind `dep_index`."""
    bounds = graph.dep_offsets.tolist()
    waits = [encode_varint(node) for node in parents.tolist()]
    columns = (graph.node_id, graph.name, graph.node_type, graph.duration_us)
    return [
        wire.head(node, graph.names[name], kind, b"".join(waits[bounds[at] : bounds[at + 1]]), duration)
        for at, (node, name, kind, duration) in enumerate(zip(*(c.tolist() for c in columns), strict=True))
    ]


def encode_nodes(graph: RankGraph, step: int, node_heads: list[bytes]) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Yield sets of ranks and the framed nodes that each of them has at `step`; SENDs and RECVs name absolute ranks."""
    bodies = list(map(bytes.__add__, node_heads, _attributes(graph, step)))
    peers = np.flatnonzero((graph.comm_src_delta != ABSENT) | (graph.comm_dst_delta != ABSENT)).tolist()
    framed = list(map(wire.frame, bodies))
    if not peers:
        yield graph.ranks, b"".join(framed)
        return
    for rank in graph.ranks:
        for position in peers:
            source = _peer("comm_src", int(graph.comm_src_delta[position]), rank)
            target = _peer("comm_dst", int(graph.comm_dst_delta[position]), rank)
            framed[position] = wire.frame(bodies[position] + source + target)
        yield (rank,), b"".join(framed)


def _attributes(graph: RankGraph, step: int) -> list[bytes]:
    """Return every node's attributes at `step`, without its peers."""
    encoded = [wire.integer("is_cpu_op", int(cpu)) for cpu in graph.is_cpu_op.tolist()]
    num_ops, tensor_size = graph.work.at(step)
    _append(encoded, num_ops, partial(wire.integer, "num_ops"))
    _append(encoded, tensor_size, partial(wire.integer, "tensor_size"))
    comm_type = np.where(graph.comm_type < 0, ABSENT, graph.comm_type.astype(np.int64))
    _append(encoded, comm_type, partial(wire.integer, "comm_type"))
    _append(encoded, graph.comm_size, partial(wire.integer, "comm_size"))
    _append(encoded, graph.comm_priority, partial(wire.integer, "comm_priority"))
    group = np.where(graph.comm_group == 0, ABSENT, graph.comm_group.astype(np.int64))
    _append(encoded, group, wire.group_name)
    _append(encoded, graph.involved_dims, wire.involved)
    _append(encoded, graph.comm_tag, partial(wire.integer, "comm_tag"))
    for name, column in graph.annotations.items():
        values = column[step] if column.ndim == 2 else column
        _append(encoded, values, partial(wire.integer, name))
    return encoded


def _append(encoded: list[bytes], column: NDArray[np.int64], encode: Callable[[int], bytes]) -> None:
    """Append the attribute to every node that has it. Values repeat from layer to layer: each is encoded once."""
    present = np.flatnonzero(column != ABSENT)
    known: dict[int, bytes] = {}
    for at, value in zip(present.tolist(), column[present].tolist(), strict=True):
        text = known.get(value)
        if text is None:
            text = known[value] = encode(value)
        encoded[at] += text


def _peer(name: str, delta: int, rank: int) -> bytes:
    return b"" if delta == ABSENT else wire.integer(name, rank + delta)
