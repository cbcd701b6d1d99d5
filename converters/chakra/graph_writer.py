"""`ExecutionGraph` -> ``PREFIX.<rank>.et`` files, fast: an external backend writes a graph every iteration.

The nodes of a `RankGraph` are encoded once for all its ranks, column by column, straight to the wire format (tests
compare with protobuf's own bytes); only SEND and RECV, whose peers are absolute in the file, are encoded per rank.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.chakra.framing import encode_varint
from converters.chakra.graph_reader import GROUPS_SUFFIX
from converters.chakra.nodes import SCHEMA_VERSION
from converters.execution_graph import ABSENT, ExecutionGraph, NodeType, RankGraph
from foundation.files import atomic_write

INVOLVED_DIMS_WRITTEN = 4
"""ASTRA-sim indexes `involved_dim` by network dimension without a bounds check; its own default has 4 entries."""

# Field keys of AttributeProto's value: (field number << 3) | wire type.
_INT32, _INT64, _UINT32, _UINT64, _BOOL = 7 << 3, 9 << 3, 11 << 3, 13 << 3, 27 << 3
_BOOL_LIST, _STRING = 28 << 3 | 2, 29 << 3 | 2


@dataclass(frozen=True, slots=True)
class WrittenGraph:
    """The files of one graph: `ranks` in rank order, and the communicator group file where there are groups."""

    prefix: Path
    ranks: tuple[Path, ...]
    groups: Path | None


class GraphWriter:
    """Writes graphs; keeps the encoded structure of recent ones, by the identity of their columns."""

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        self._heads: OrderedDict[tuple[int, ...], tuple[tuple[Any, ...], list[bytes]]] = OrderedDict()

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
                stream.write(groups_json(graph))
        else:
            groups.unlink(missing_ok=True)
        ordered = tuple(paths[rank] for rank in sorted(paths))
        return WrittenGraph(Path(prefix), ordered, groups if graph.groups else None)

    def encode(self, graph: RankGraph, step: int = 0) -> Iterable[tuple[int, bytes]]:
        """Yield every rank of `graph` and the content of its .et file at `step`."""
        bodies = list(map(bytes.__add__, self._node_heads(graph), _attributes(graph, step)))
        metadata = _field(1, SCHEMA_VERSION.encode())
        peers = np.flatnonzero((graph.comm_src_delta != ABSENT) | (graph.comm_dst_delta != ABSENT)).tolist()
        if not peers:
            content = b"".join(map(_frame, [metadata, *bodies]))
            for rank in graph.ranks:
                yield rank, content
            return
        framed = [_frame(metadata), *map(_frame, bodies)]
        for rank in graph.ranks:
            for position in peers:
                source = _peer("comm_src", int(graph.comm_src_delta[position]), rank)
                target = _peer("comm_dst", int(graph.comm_dst_delta[position]), rank)
                framed[position + 1] = _frame(bodies[position] + source + target)
            yield rank, b"".join(framed)

    def _node_heads(self, graph: RankGraph) -> list[bytes]:
        """Return fields 1 to 7 of every node, kept for as long as the graph's columns live on."""
        columns = (graph.node_id, graph.node_type, graph.name, graph.duration_us, graph.dep_offsets, graph.dep_index)
        key = (*map(id, columns), id(graph.names))
        found = self._heads.get(key)
        if found is None:
            found = ((*columns, graph.names), _heads(graph))  # the columns too: their ids must stay theirs
            self._heads[key] = found
            if len(self._heads) > self._capacity:
                self._heads.popitem(last=False)
        else:
            self._heads.move_to_end(key)
        return found[1]


def write_graph(graph: ExecutionGraph, prefix: str | Path, step: int = 0) -> WrittenGraph:
    """Write one graph; see `GraphWriter.write`. Writers of many graphs keep a `GraphWriter`."""
    return GraphWriter().write(graph, prefix, step)


def groups_json(graph: ExecutionGraph) -> str:
    """Return the communicator group file of `graph` in ASTRA-sim's format."""
    return json.dumps({str(group): list(ranks) for group, ranks in sorted(graph.groups.items())}) + "\n"


def _heads(graph: RankGraph) -> list[bytes]:
    ids = graph.node_id.tolist()
    bounds = graph.dep_offsets.tolist()
    parents = [encode_varint(node) for node in graph.node_id[graph.dep_index].tolist()]
    names = [_field(2, name.encode()) if name else b"" for name in graph.names]
    types = [b"\x18" + encode_varint(kind) if kind else b"" for kind in NodeType]
    heads = []
    for at, (node, name, kind, duration) in enumerate(
        zip(ids, graph.name.tolist(), graph.node_type.tolist(), graph.duration_us.tolist(), strict=True)
    ):
        head = (b"\x08" + encode_varint(node) if node else b"") + names[name] + types[kind]
        if bounds[at] < bounds[at + 1]:
            head += _field(5, b"".join(parents[bounds[at] : bounds[at + 1]]))
        heads.append(head + (b"\x38" + encode_varint(duration) if duration else b""))
    return heads


def _attributes(graph: RankGraph, step: int) -> list[bytes]:
    """Return every node's attributes at `step`, without its peers."""
    encoded = [_integer("is_cpu_op", _BOOL, int(cpu)) for cpu in graph.is_cpu_op.tolist()]
    _append(encoded, graph.num_ops[step], partial(_integer, "num_ops", _UINT64))
    _append(encoded, graph.tensor_size[step], partial(_integer, "tensor_size", _UINT64))
    comm_type = np.where(graph.comm_type < 0, ABSENT, graph.comm_type.astype(np.int64))
    _append(encoded, comm_type, partial(_integer, "comm_type", _INT64))
    _append(encoded, graph.comm_size, partial(_integer, "comm_size", _INT64))
    _append(encoded, graph.comm_priority, partial(_integer, "comm_priority", _UINT32))
    group = np.where(graph.comm_group == 0, ABSENT, graph.comm_group.astype(np.int64))
    _append(encoded, group, _group_name)
    _append(encoded, graph.involved_dims, _involved)
    _append(encoded, graph.comm_tag, partial(_integer, "comm_tag", _INT32))
    for name, column in graph.annotations.items():
        values = column[step] if column.ndim == 2 else column
        _append(encoded, values, partial(_integer, name, _INT64))
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
    return b"" if delta == ABSENT else _integer(name, _INT32, rank + delta)


@lru_cache(maxsize=4096)
def _integer(name: str, key: int, value: int) -> bytes:
    """Encode an integer attribute; negative ones as protobuf does, in two's complement of 64 bits."""
    return _field(10, _field(1, name.encode()) + encode_varint(key) + encode_varint(value & 0xFFFF_FFFF_FFFF_FFFF))


def _group_name(group: int) -> bytes:
    return _field(10, _field(1, b"pg_name") + _keyed(_STRING, str(group).encode()))


def _involved(mask: int) -> bytes:
    flags = bytes(mask >> dim & 1 for dim in range(max(INVOLVED_DIMS_WRITTEN, mask.bit_length())))
    return _field(10, _field(1, b"involved_dim") + _keyed(_BOOL_LIST, _field(1, flags)))


def _field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field."""
    return _keyed(number << 3 | 2, content)


def _keyed(key: int, content: bytes) -> bytes:
    return encode_varint(key) + encode_varint(len(content)) + content


def _frame(message: bytes) -> bytes:
    length = len(message)
    return (_LENGTHS[length] if length < len(_LENGTHS) else encode_varint(length)) + message


_LENGTHS: Sequence[bytes] = tuple(encode_varint(length) for length in range(512))
