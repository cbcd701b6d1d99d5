"""Records become the columns of a `Trace`, all of a stream or a block of rows after another, and records again.

Rows of a trace repeat from layer to layer, so a block's distinct records are worked out once and its columns taken from
them. The tables of names, rank sets and groups grow from block to block; what an index means never changes.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Hashable, Iterator
from dataclasses import field
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from converters.text.records import Operand, Record, RecordStream
from foundation.records import dataclass
from trace_gen.trace import NPU, IntArray, RowKind, RowWork, Trace, parts_of
from trace_gen.vocabulary import class_of

BLOCK_VALUES = 1 << 13
"""Rows of a block, times steps: bounds memory, and leaves the work of a block far above its overhead."""
K = TypeVar("K", bound=Hashable)
Columns = dict[str, NDArray[Any]]
_Group = tuple[tuple[int, ...], str, int]
"""Ranks, what a text says of their dimensions, and into how many groups they are divided."""
_SIDES = ("input", "weight", "output")
_STEPPED = {"latency": "latency_ns", "flops": "flops", "mem_bytes": "mem_bytes"}
_DIMS = re.compile(r"group[0-9]+\.dims")


def collect(stream: RecordStream) -> Trace:
    """Read `stream` to its end into the columns of one `Trace`."""
    tables = _Tables(stream)
    parts = list(_parts(stream, tables)) or [tables.columns([], stream.steps)]
    columns = {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}
    return tables.trace(columns)


def blocks(stream: RecordStream) -> Iterator[Trace]:
    """Read `stream` block by block: traces of some of its rows, in order, with tables that grow."""
    tables = _Tables(stream)
    for part in _parts(stream, tables):
        yield tables.trace(part)


def records(trace: Trace) -> RecordStream:
    """Return `trace` as a stream."""
    return RecordStream(
        attributes={key: value for key, value in trace.attributes.items() if not _DIMS.fullmatch(key)},
        rows=trace.rows,
        records=_records(trace),
        steps=trace.steps,
        requests=tuple(trace.batch_requests.tolist()),
        rank_sets=trace.rank_sets,
        groups=trace.groups,
        group_parts=trace.group_parts,
    )


def _records(trace: Trace) -> Iterator[Record]:
    dims = [trace.attributes.get(f"group{index}.dims", "") for index in range(len(trace.groups))]
    latency_ns, flops, mem_bytes = trace.latency_ns, trace.flops, trace.mem_bytes
    for row in range(trace.rows):
        group = int(trace.comm_group[row])
        yield Record(
            op=trace.name(row),
            kind=int(trace.kind[row]),
            layer=int(trace.layer[row]),
            stage=int(trace.stage[row]),
            ranks=trace.rank_sets[trace.rank_set[row]],
            request=int(trace.request[row]),
            sub_batch=int(trace.sub_batch[row]),
            latency=tuple(latency_ns[:, row].tolist()),
            flops=tuple(flops[:, row].tolist()),
            mem_bytes=tuple(mem_bytes[:, row].tolist()),
            input=Operand(int(trace.input_loc[row]), int(trace.input_node[row]), int(trace.input_bytes[row])),
            weight=Operand(int(trace.weight_loc[row]), int(trace.weight_node[row]), int(trace.weight_bytes[row])),
            output=Operand(int(trace.output_loc[row]), int(trace.output_node[row]), int(trace.output_bytes[row])),
            comm_type=int(trace.comm_type[row]),
            comm_bytes=int(trace.comm_bytes[row]),
            group=None if group < 0 else trace.groups[group],
            deps=tuple(trace.dependencies(row).tolist()),
            dims="" if group < 0 else dims[group],
            parts=1 if group < 0 else parts_of(trace.group_parts, group),
        )


def _parts(stream: RecordStream, tables: _Tables) -> Iterator[Columns]:
    rows = max(BLOCK_VALUES // stream.steps, 1)
    while part := list(islice(stream.records, rows)):
        yield tables.columns(part, stream.steps)


@dataclass(slots=True)
class _Tables:
    """What the rows so far name: operators, rank sets, and groups with what a text says of their dimensions."""

    stream: RecordStream
    ops: dict[str, int] = field(default_factory=dict)
    sets: dict[tuple[int, ...], int] = field(init=False)
    set_list: list[tuple[int, ...]] = field(init=False)
    groups: dict[_Group, int] = field(init=False)
    group_list: list[_Group] = field(init=False)

    def __post_init__(self) -> None:
        self.set_list = list(self.stream.rank_sets)
        parts = self.stream.group_parts
        self.group_list = [(ranks, "", parts_of(parts, at)) for at, ranks in enumerate(self.stream.groups)]
        self.sets = {ranks: index for index, ranks in reversed(list(enumerate(self.set_list)))}
        self.groups = {key: index for index, key in reversed(list(enumerate(self.group_list)))}

    def columns(self, part: list[Record], steps: int) -> Columns:
        """Return the columns of some records."""
        known: dict[Record, int] = {}
        of_row = np.array([known.setdefault(record, len(known)) for record in part], dtype=np.int64)
        distinct = _Distinct(self, list(known), steps)
        columns = {name: column[..., of_row] for name, column in distinct.columns.items()}
        counts = distinct.dep_counts[of_row]
        columns["dep_count"] = counts
        deps = [distinct.records[index].deps for index in of_row[counts > 0].tolist()]
        columns["dep_rows"] = np.array([parent for own in deps for parent in own], dtype=np.int64)
        return columns

    def trace(self, columns: Columns) -> Trace:
        """Return the trace of some columns, with the tables as they are now."""
        attributes = dict(self.stream.attributes)
        attributes.update({f"group{index}.dims": dims for index, (_, dims, _) in enumerate(self.group_list) if dims})
        parts = tuple(parts for _, _, parts in self.group_list)
        counts = columns.pop("dep_count")
        work = RowWork.by_row(*(columns.pop(name) for name in _STEPPED.values()))
        names = tuple(self.ops)
        return Trace(
            op_names=names,
            devices=(NPU,),
            rank_sets=tuple(self.set_list),
            groups=tuple(ranks for ranks, _, _ in self.group_list),
            group_parts=parts if max(parts, default=1) > 1 else (),
            batch_requests=np.array(self.stream.requests, dtype=np.int64),
            operator_class=_classes(names, columns["op"], columns["kind"]),
            device=np.zeros(columns["op"].shape, dtype=np.int8),
            work=work,
            dep_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            attributes=attributes,
            **columns,
        )


class _Distinct:
    """The columns of records that differ from each other."""

    def __init__(self, tables: _Tables, records: list[Record], steps: int) -> None:
        self.records = records
        self.dep_counts = np.array([len(record.deps) for record in records], dtype=np.int64)
        self.columns: Columns = {
            "op": self._column([tables.ops.setdefault(one.op, len(tables.ops)) for one in records], np.int32),
            "rank_set": self._column([_intern(tables.sets, tables.set_list, one.ranks) for one in records], np.int32),
            "comm_group": self._column([self._group(tables, one) for one in records], np.int32),
            "kind": self._column([one.kind for one in records], np.int8),
            "layer": self._column([one.layer for one in records], np.int32),
            "stage": self._column([one.stage for one in records], np.int32),
            "request": self._column([one.request for one in records], np.int64),
            "sub_batch": self._column([one.sub_batch for one in records], np.int32),
            "comm_type": self._column([one.comm_type for one in records], np.int8),
            "comm_bytes": self._column([one.comm_bytes for one in records], np.int64),
        }
        for side in _SIDES:
            operands: list[Operand] = [getattr(one, side) for one in records]
            self.columns[f"{side}_loc"] = self._column([operand.location for operand in operands], np.int8)
            self.columns[f"{side}_node"] = self._column([operand.node for operand in operands], np.int32)
            self.columns[f"{side}_bytes"] = self._column([operand.bytes for operand in operands], np.int64)
        for name, column in _STEPPED.items():
            values = array("q", [value for one in records for value in getattr(one, name)])
            self.columns[column] = np.array(values, dtype=np.int64).reshape(len(records), steps).T

    @staticmethod
    def _column(values: list[int], dtype: type[np.generic]) -> NDArray[Any]:
        return np.array(values, dtype=dtype)

    @staticmethod
    def _group(tables: _Tables, record: Record) -> int:
        if record.group is None:
            return -1
        return _intern(tables.groups, tables.group_list, (record.group, record.dims, record.parts))


def _intern(known: dict[K, int], listed: list[K], key: K) -> int:
    index = known.get(key)
    if index is None:
        index = known[key] = len(listed)
        listed.append(key)
    return index


def _classes(op_names: tuple[str, ...], op: IntArray, kind: IntArray) -> NDArray[np.int8]:
    """Return each row's operator class, by its name and kind."""
    of_name = [[class_of(name, number) for number in RowKind] for name in op_names]
    table = np.array(of_name, dtype=np.int8).reshape(len(op_names), len(RowKind))
    result: NDArray[np.int8] = table[op, kind]
    return result
