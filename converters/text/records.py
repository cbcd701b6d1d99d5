"""One row of a trace as a record, and a trace as a stream of them: what every text format reads and writes.

Streams let a trace of any length pass through in constant memory; `collect` and `records` convert between a stream and
the columns of a `Trace`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from trace_gen.trace import NO_LAYER, NO_REQUEST, NPU, CommType, IntArray, Location, RowKind, Trace
from trace_gen.vocabulary import class_of


class Operand(NamedTuple):
    """Where an operand lives and its size in bytes. `node` is the memory's device; -1 where a text names none.

    A PIM channel c of device d is written ``d.c`` in the text and is ``d + (c + 1) * CHANNEL`` here.
    """

    location: int = Location.LOCAL
    node: int = 0
    bytes: int = 0


CHANNEL = 1 << 16
NO_NODE = -1


class Record(NamedTuple):
    """A row of `trace_gen.trace.Trace`; `latency`, `flops` and `mem_bytes` hold one value a step.

    `dims` is what a text says of a collective's network dimensions (``1,0``), kept so that it can be written again.
    """

    op: str
    kind: int = RowKind.COMPUTE
    layer: int = NO_LAYER
    stage: int = 0
    ranks: tuple[int, ...] = (0,)
    request: int = NO_REQUEST
    sub_batch: int = 0
    latency: tuple[int, ...] = (0,)
    flops: tuple[int, ...] = (0,)
    mem_bytes: tuple[int, ...] = (0,)
    input: Operand = Operand()
    weight: Operand = Operand()
    output: Operand = Operand()
    comm_type: int = CommType.NONE
    comm_bytes: int = 0
    group: tuple[int, ...] | None = None
    deps: tuple[int, ...] = ()
    dims: str = ""


@dataclass(slots=True)
class RecordStream:
    """A trace on its way: facts of the header, then `rows` records, once.

    `attributes["format"]` names the text format; a text of LLMServingSim is *unplaced* until
    `converters.text.placement` spreads it over ranks. `rank_sets` and `groups` list those that the header declares.
    """

    attributes: dict[str, str]
    rows: int
    records: Iterator[Record]
    steps: int = 1
    requests: tuple[int, ...] = ()
    rank_sets: tuple[tuple[int, ...], ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()


@dataclass(slots=True)
class _Columns:
    """Growing columns: 8 bytes a value, whatever the number of rows."""

    columns: dict[str, array[int]] = field(default_factory=dict)

    def add(self, name: str, value: int) -> None:
        """Append one value."""
        column = self.columns.get(name)
        if column is None:
            column = self.columns[name] = array("q")
        column.append(value)

    def get(self, name: str, dtype: type[np.generic]) -> Any:
        """Return a column, flat."""
        return np.array(self.columns.get(name, array("q")), dtype=dtype)


K = TypeVar("K", bound=Hashable)
_DIMS = re.compile(r"group[0-9]+\.dims")


def collect(stream: RecordStream) -> Trace:
    """Read `stream` to its end into the columns of a `Trace`."""
    columns = _Columns()
    ops: dict[str, int] = {}
    rank_sets = {ranks: index for index, ranks in reversed(list(enumerate(stream.rank_sets)))}
    set_list, group_list = list(stream.rank_sets), [(ranks, "") for ranks in stream.groups]
    groups = {key: index for index, key in reversed(list(enumerate(group_list)))}
    count = 0
    for record in stream.records:
        count += 1
        columns.add("op", ops.setdefault(record.op, len(ops)))
        columns.add("rank_set", _intern(rank_sets, set_list, record.ranks))
        key = None if record.group is None else (record.group, record.dims)
        columns.add("comm_group", -1 if key is None else _intern(groups, group_list, key))
        for name in ("kind", "layer", "stage", "request", "sub_batch", "comm_type", "comm_bytes"):
            columns.add(name, getattr(record, name))
        for side in ("input", "weight", "output"):
            operand: Operand = getattr(record, side)
            columns.add(f"{side}_loc", operand.location)
            columns.add(f"{side}_node", operand.node)
            columns.add(f"{side}_bytes", operand.bytes)
        for name in ("latency", "flops", "mem_bytes"):
            for value in getattr(record, name):
                columns.add(name, value)
        for parent in record.deps:
            columns.add("deps", parent)
        columns.add("dep_count", len(record.deps))
    attributes = dict(stream.attributes)
    attributes.update({f"group{index}.dims": dims for index, (_, dims) in enumerate(group_list) if dims})
    tables = tuple(set_list), tuple(ranks for ranks, _ in group_list)
    return _trace(columns, count, stream, tuple(ops), tables, attributes)


def _classes(op_names: tuple[str, ...], op: IntArray, kind: IntArray) -> NDArray[np.int8]:
    """Return each row's operator class, by its name and kind."""
    of_name = [[class_of(name, number) for number in RowKind] for name in op_names]
    table = np.array(of_name, dtype=np.int8).reshape(len(op_names), len(RowKind))
    result: NDArray[np.int8] = table[op, kind]
    return result


def _intern(known: dict[K, int], listed: list[K], key: K) -> int:
    index = known.get(key)
    if index is None:
        index = known[key] = len(listed)
        listed.append(key)
    return index


def _trace(
    columns: _Columns,
    count: int,
    stream: RecordStream,
    op_names: tuple[str, ...],
    tables: tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]],
    attributes: dict[str, str],
) -> Trace:
    def flat(name: str, dtype: type[np.generic] = np.int64) -> Any:
        return columns.get(name, dtype)

    def stepped(name: str) -> Any:
        return columns.get(name, np.int64).reshape(count, stream.steps).T.copy()

    operands = {
        f"{side}_{part}": flat(f"{side}_{part}", dtype)
        for side in ("input", "weight", "output")
        for part, dtype in (("loc", np.int8), ("node", np.int32), ("bytes", np.int64))
    }
    return Trace(
        op_names=op_names,
        devices=(NPU,),
        rank_sets=tables[0],
        groups=tables[1],
        batch_requests=np.array(stream.requests, dtype=np.int64),
        op=flat("op", np.int32),
        operator_class=_classes(op_names, flat("op"), flat("kind")),
        kind=flat("kind", np.int8),
        device=np.zeros(count, dtype=np.int8),
        layer=flat("layer", np.int32),
        stage=flat("stage", np.int32),
        rank_set=flat("rank_set", np.int32),
        request=flat("request"),
        sub_batch=flat("sub_batch", np.int32),
        latency_ns=stepped("latency"),
        flops=stepped("flops"),
        mem_bytes=stepped("mem_bytes"),
        comm_type=flat("comm_type", np.int8),
        comm_bytes=flat("comm_bytes"),
        comm_group=flat("comm_group", np.int32),
        dep_offsets=np.concatenate([[0], np.cumsum(flat("dep_count"))]).astype(np.int64),
        dep_rows=flat("deps"),
        attributes=attributes,
        **operands,
    )


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
    )


def _records(trace: Trace) -> Iterator[Record]:
    dims = [trace.attributes.get(f"group{index}.dims", "") for index in range(len(trace.groups))]
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
            latency=tuple(trace.latency_ns[:, row].tolist()),
            flops=tuple(trace.flops[:, row].tolist()),
            mem_bytes=tuple(trace.mem_bytes[:, row].tolist()),
            input=Operand(int(trace.input_loc[row]), int(trace.input_node[row]), int(trace.input_bytes[row])),
            weight=Operand(int(trace.weight_loc[row]), int(trace.weight_node[row]), int(trace.weight_bytes[row])),
            output=Operand(int(trace.output_loc[row]), int(trace.output_node[row]), int(trace.output_bytes[row])),
            comm_type=int(trace.comm_type[row]),
            comm_bytes=int(trace.comm_bytes[row]),
            group=None if group < 0 else trace.groups[group],
            deps=tuple(trace.dependencies(row).tolist()),
            dims="" if group < 0 else dims[group],
        )
