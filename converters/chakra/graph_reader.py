"""``PREFIX.<rank>.et`` files -> `ExecutionGraph`, in memory bounded by what differs between ranks.

Ranks that run the same nodes share a `RankGraph`, and equal columns of different ones share an array. Files that
equal an earlier one byte for byte are not parsed again, and of the others only the messages that the previous file
did not have, so 2,048 ranks of one program cost little more than one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.chakra.attributes import NodeRow
from converters.chakra.framing import read_messages
from converters.chakra.node_reader import NodeReader
from converters.chakra.nodes import parse_metadata
from converters.execution_graph import ABSENT, ExecutionGraph, NodeWork, RankGraph
from foundation.bounds import DATA_BYTES
from foundation.digits import whole_number
from foundation.documents import read_json
from foundation.errors import UserError
from foundation.fields import Fields
from foundation.files import names_in, open_input

GROUPS_SUFFIX = ".comm_groups.json"
"""``PREFIX.comm_groups.json`` holds the communicator groups that the .et files name (ASTRA-sim's format)."""

Columns = dict[str, NDArray[Any]]
_SCALARS = {
    "node_id": np.int64,
    "node_type": np.int8,
    "is_cpu_op": np.bool_,
    "duration_us": np.int64,
    "comm_type": np.int8,
    "comm_size": np.int64,
    "comm_priority": np.int64,
    "comm_tag": np.int64,
    "comm_group": np.int32,
    "involved_dims": np.int64,
}


def read_graph(
    prefix: str | Path, num_ranks: int | None = None, groups_file: str | Path | None = None
) -> ExecutionGraph:
    """Read ranks ``0 .. num_ranks - 1`` of `prefix` (default: every rank that has a file, from 0 without a gap).

    `groups_file` is ASTRA-sim's communicator group file; without it ``PREFIX.comm_groups.json`` is read where it
    exists. Damaged files, missing ranks, unknown dependencies and attributes that no simulator could use are a
    `UserError` naming file and byte offset or node.
    """
    count = num_ranks if num_ranks is not None else _count_ranks(prefix)
    default = Path(f"{prefix}{GROUPS_SUFFIX}")
    groups: dict[int, tuple[int, ...]] = {}
    if groups_file is not None:
        groups = read_groups(groups_file, count)
    elif default.exists():
        groups = read_groups(default, count)
    reader = _Reader()
    for rank in range(count):
        reader.add(rank, Path(f"{prefix}.{rank}.et"))
    return ExecutionGraph(reader.rank_graphs(), groups)


def read_groups(path: str | Path, num_ranks: int) -> dict[int, tuple[int, ...]]:
    """Read a communicator group file, ``{"<id >= 1>": [ranks in ring order]}``."""
    fields = Fields.of(read_json(path, "communicator group file", DATA_BYTES))
    groups: dict[int, tuple[int, ...]] = {}
    for key in fields.names():
        number = whole_number(key, 1, 10**9 - 1)
        if number is None or key != str(number):
            fields.problem("the group's id is not a whole number of at least 1", key, 'write {"1": [0, 1], ...}')
            continue
        groups[number] = fields.integers(key, low=0, high=num_ranks - 1)
        if len(set(groups[number])) != len(groups[number]) or not groups[number]:
            fields.problem("a group is a list of one rank or more, each once", key)
    fields.finish()
    return groups


def _count_ranks(prefix: str | Path) -> int:
    base = Path(prefix)
    pattern = re.compile(re.escape(base.name) + r"\.(0|[1-9][0-9]*)\.et")
    matches = map(pattern.fullmatch, names_in(base.parent))
    ranks = sorted(int(match[1]) for match in matches if match)
    if not ranks:
        raise UserError("there is no PREFIX.0.et", path=f"{base}.0.et", fix="give the part before .<rank>.et")
    if ranks[-1] != len(ranks) - 1:
        missing = next(rank for rank, found in enumerate(ranks) if rank != found)
        raise UserError("this rank's file is missing", path=f"{base}.{missing}.et", fix="write every rank")
    return len(ranks)


class _Reader:
    """Collects ranks, sharing what is equal."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, tuple[int, ...], bytes], NDArray[Any]] = {}
        self._ranks: dict[tuple[Any, ...], list[int]] = {}
        self._columns: dict[tuple[Any, ...], tuple[tuple[str, ...], Columns]] = {}
        self._by_digest: dict[bytes, tuple[Any, ...]] = {}
        self._previous: dict[bytes, NodeRow] = {}
        self._nodes = NodeReader()

    def add(self, rank: int, path: Path) -> None:
        """Read one rank's file."""
        digest = _digest(path)
        key = self._by_digest.get(digest)
        if key is None:
            rows = self._rows(path)
            names, columns = _columns(rows, rank, path)
            shared = {name: self._share(array) for name, array in columns.items()}
            key = (names, *((name, id(array)) for name, array in sorted(shared.items())))
            self._columns.setdefault(key, (names, shared))
            if all(row.comm_src == ABSENT and row.comm_dst == ABSENT for row in rows):
                self._by_digest[digest] = key  # with peers, equal bytes mean other distances on another rank
        self._ranks.setdefault(key, []).append(rank)

    def _rows(self, path: Path) -> list[NodeRow]:
        """Parse the messages of `path` that the previous file did not have."""
        messages = read_messages(path)
        parse_metadata(next(messages)[1], path)
        rows: list[NodeRow] = []
        fresh: dict[bytes, NodeRow] = {}
        for offset, message in messages:
            row = fresh.get(message) or self._previous.get(message)
            if row is None:
                row = self._nodes.read(message, offset, path)
            fresh[message] = row
            rows.append(row)
        self._previous = fresh
        return rows

    def rank_graphs(self) -> list[RankGraph]:
        """Return one RankGraph for each set of equal ranks, by lowest rank."""
        return [_rank_graph(tuple(ranks), *self._columns[key]) for key, ranks in self._ranks.items()]

    def _share(self, array: NDArray[Any]) -> NDArray[Any]:
        key = (array.dtype.str, array.shape, hashlib.blake2b(array.tobytes(), digest_size=16).digest())
        return self._arrays.setdefault(key, array)


def _digest(path: Path) -> bytes:
    with open_input(path, "execution trace") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()


def _columns(rows: Sequence[NodeRow], rank: int, path: Path) -> tuple[tuple[str, ...], Columns]:
    """Return the node names and the RankGraph columns of one rank."""
    by_field = zip(*rows, strict=True) if rows else repeat(())
    values: dict[str, Sequence[Any]] = dict(zip(NodeRow._fields, by_field, strict=False))
    columns: Columns = {name: np.array(values[name], dtype=dtype) for name, dtype in _SCALARS.items()}
    columns["column"] = np.arange(len(rows))
    for name in ("num_ops", "tensor_size"):
        columns[name] = np.array(values[name], dtype=np.int64).reshape(1, -1)
    for name in ("comm_src", "comm_dst"):
        peers = [ABSENT if peer == ABSENT else peer - rank for peer in values[name]]
        columns[f"{name}_delta"] = np.array(peers, dtype=np.int64)
    index: dict[str, int] = {}
    columns["name"] = np.array([index.setdefault(name, len(index)) for name in values["name"]], dtype=np.int32)
    position = {node: at for at, node in enumerate(values["node_id"])}
    if len(position) != len(rows):
        twice = next(node for at, node in enumerate(values["node_id"]) if position[node] != at)
        raise UserError(f"node id {twice} occurs twice", path=path, fix="ids are unique within a rank")
    try:
        dependencies = [[position[parent] for parent in parents] for parents in values["dependencies"]]
    except KeyError as error:
        raise UserError(
            f"a node depends on node {error.args[0]}, which is not in the file", path=path, fix="write every node"
        ) from None
    columns["dep_offsets"] = np.cumsum([0, *map(len, dependencies)], dtype=np.int64)
    columns["dep_index"] = np.array([at for parents in dependencies for at in parents], dtype=np.int64)
    for own in sorted({name for pairs in set(values["own"]) for name, _ in pairs}):
        columns[own] = np.array([dict(pairs).get(own, ABSENT) for pairs in values["own"]], dtype=np.int64)
    return tuple(index), columns


def _rank_graph(ranks: tuple[int, ...], names: tuple[str, ...], columns: Columns) -> RankGraph:
    own = {name: array for name, array in columns.items() if "." in name}
    fixed = {name: array for name, array in columns.items() if "." not in name}
    work = NodeWork(*(fixed.pop(name) for name in ("column", "num_ops", "tensor_size")))
    return RankGraph(ranks=ranks, names=names, work=work, annotations=own, **fixed)
