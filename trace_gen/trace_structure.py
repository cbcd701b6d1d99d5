"""The rows of an iteration's trace and how they hang together, apart from any size or latency.

    kv_load / kv_evict rows of every stage | embedding | block x layers of stage 0 | ... | block x layers | tail

One block is worked out and replicated. Every row points to a column of the operator table (`column`), so that
latencies and sizes are gathered from there in one numpy operation.

Attention placed by request: request ``i`` of the batch is on rank ``i mod tensor`` of each stage (the rule of
LLMServingSim's Orca traces). Its rows stand on rank sets of one rank; the first of a rank waits for the row before
the section, the first row after it waits for the last row of every rank:

    rotary_emb -> (exchange) -+-> attention 0, attention 2 ... on rank 0 -+-> (exchange) -> o_proj
                              +-> attention 1, attention 3 ... on rank 1 -+
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trace_gen.operators import Operator, OperatorClass, Operators, is_per_request
from trace_gen.parallelism import Parallelism
from trace_gen.trace import NO_LAYER, CommType, IntArray, Location, RowKind

LOAD_NAME, EVICT_NAME = "kv_load", "kv_evict"
STAGE_SET = -1
"""In a block's template: the row is on all ranks of its stage."""


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One column of the operator table: an operator, and the position in the batch of its request (or -1)."""

    operator: Operator
    request: int


@dataclass(frozen=True, slots=True)
class Run:
    """Rows of a trace that repeat consecutive columns of the operator table."""

    row: int
    column: int
    width: int
    repeats: int


@dataclass(frozen=True, slots=True)
class StructureKey:
    """What decides the rows of a trace. `requests`: per-request rows of the batch, 0 for one row a batch."""

    requests: int
    has_logits: bool
    loads: int
    evictions: int


@dataclass(frozen=True, slots=True)
class Structure:
    """Columns of `Trace` that hold no size, of shape ``[n]``, and where each row's sizes are found.

    - `column`: index into the operator table; rows of KV transfers point behind its end, to zeros;
    - `runs`: the same as slices, for copying whole blocks: rows from ``row`` on are `repeats` times the `width`
      columns from ``column`` on;
    - `transfer` of the first ``transfer_rows`` rows: index into loads, then evictions;
    - `position`: the request's position in the batch, -1 for batch rows.
    """

    entries: tuple[TableEntry, ...]
    op_names: tuple[str, ...]
    rank_sets: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]
    op: NDArray[np.int32]
    kind: NDArray[np.int8]
    layer: NDArray[np.int32]
    stage: NDArray[np.int32]
    rank_set: NDArray[np.int32]
    sub_batch: NDArray[np.int32]
    input_loc: NDArray[np.int8]
    output_loc: NDArray[np.int8]
    local: NDArray[np.int8]
    node: NDArray[np.int32]
    comm_type: NDArray[np.int8]
    comm_group: NDArray[np.int32]
    dep_offsets: IntArray
    dep_rows: IntArray
    column: IntArray
    runs: tuple[Run, ...]
    position: IntArray
    transfer: IntArray
    transfer_rows: int


@dataclass
class _Template:
    """Rows of a run of operators: columns of the table, rank sets, and dependencies inside the run."""

    column: list[int] = field(default_factory=list)
    rank: list[int] = field(default_factory=list)
    dependencies: list[list[int]] = field(default_factory=list)

    def add(self, column: int, rank: int = STAGE_SET, dependencies: Sequence[int] = ()) -> int:
        """Append a row and return its position."""
        self.column.append(column)
        self.rank.append(rank)
        self.dependencies.append(list(dependencies))
        return len(self.column) - 1


class StructureBuilder:
    """Builds `Structure`s of one model on one parallelism."""

    def __init__(
        self,
        operators: Operators,
        parallelism: Parallelism,
        num_layers: int,
        *,
        by_request: bool,
    ) -> None:
        self.head, self.block, self.tail = operators.head, operators.block, operators.tail
        self.parallelism, self.by_request = parallelism, by_request
        self.layers = parallelism.stage_layers(num_layers)
        stages = tuple(parallelism.stage_ranks(stage) for stage in range(parallelism.pipeline))
        single = tuple((rank,) for rank in range(parallelism.ranks)) if by_request else ()
        self.rank_sets = stages + single
        self.groups = stages if parallelism.tensor > 1 else ()

    def build(self, key: StructureKey) -> Structure:
        """Return the structure for `key`."""
        tail = self.tail if key.has_logits else self.tail[:1]
        entries = [TableEntry(operator, -1) for operator in self.head]
        templates = [self._plain(len(self.head), 0)]
        block_entries, block = self._block(key.requests, len(entries))
        entries += block_entries
        templates += [block, self._plain(len(tail), len(entries))]
        entries += [TableEntry(operator, -1) for operator in tail]
        return self._assemble(entries, templates, key)

    def _plain(self, count: int, first: int) -> _Template:
        template = _Template()
        for column in range(first, first + count):
            template.add(column)
        return template

    def _block(self, requests: int, first: int) -> tuple[list[TableEntry], _Template]:
        """Return the table entries of one block and its rows; per-request operators stand together by request."""
        entries: list[TableEntry] = []
        template = _Template()
        section = [operator for operator in self.block if requests and is_per_request(operator)]
        waiting: list[int] = []
        for operator in self.block:
            if operator in section:
                if operator is section[0]:
                    waiting = self._section(section, requests, entries, template, first)
                continue
            entries.append(TableEntry(operator, -1))
            template.add(first + len(entries) - 1, STAGE_SET, waiting)
            waiting = []
        return entries, template

    def _section(
        self,
        section: list[Operator],
        requests: int,
        entries: list[TableEntry],
        template: _Template,
        first: int,
    ) -> list[int]:
        """Append the per-request rows; return the rows that the next one must wait for (empty: just the last)."""
        anchor = len(template.column) - 1
        last_of: dict[int, int] = {}
        for request in range(requests):
            rank = request % self.parallelism.tensor if self.by_request else STAGE_SET
            for operator in section:
                entries.append(TableEntry(operator, request))
                opens = self.by_request and rank not in last_of
                last_of[rank] = template.add(first + len(entries) - 1, rank, [anchor] if opens else [])
        return [anchor, *sorted(last_of.values())] if self.by_request else []

    def _assemble(self, entries: list[TableEntry], templates: list[_Template], key: StructureKey) -> Structure:
        stages = self.parallelism.pipeline
        transfer_rows = (key.loads + key.evictions) * stages
        head, block, tail = (_Arrays.of(template) for template in templates)
        parts: list[_Arrays] = []
        runs: list[Run] = []
        layer: list[NDArray[np.int32]] = []
        stage: list[NDArray[np.int32]] = []
        for index, layers in enumerate(self.layers):
            pieces = [(head, range(NO_LAYER, 0))] if index == 0 else []
            pieces += [(block, layers)]
            pieces += [(tail, range(NO_LAYER, 0))] if index == stages - 1 else []
            for arrays, repeats in pieces:
                first_row = transfer_rows + sum(len(part.column) for part in parts)
                runs.append(Run(first_row, int(arrays.column[0]), len(arrays.column), len(repeats)))
                parts.append(arrays.repeated(len(repeats)))
                layer.append(np.repeat(np.arange(repeats.start, repeats.stop, dtype=np.int32), len(arrays.column)))
                stage.append(np.full(len(layer[-1]), index, dtype=np.int32))
        rows = _Arrays.joined(parts)
        columns = (np.concatenate(layer), np.concatenate(stage))
        return self._columns(entries, rows, *columns, key, tuple(runs))

    def _columns(
        self,
        entries: list[TableEntry],
        rows: _Arrays,
        layer: NDArray[np.int32],
        stage: NDArray[np.int32],
        key: StructureKey,
        runs: tuple[Run, ...],
    ) -> Structure:
        """Put the rows of KV transfers in front and fill every column."""
        per_stage = key.loads + key.evictions
        transfer_rows = per_stage * self.parallelism.pipeline
        front = np.full(transfer_rows, len(entries), dtype=np.int64)
        column = np.concatenate([front, rows.column])
        stage = np.concatenate([np.repeat(np.arange(self.parallelism.pipeline, dtype=np.int32), per_stage), stage])
        transfer = np.tile(np.arange(per_stage, dtype=np.int64), self.parallelism.pipeline)
        is_load = np.concatenate([transfer < key.loads, np.zeros(len(rows.column), dtype=bool)])
        computing = np.arange(len(column)) >= transfer_rows
        names = tuple(dict.fromkeys([entry.operator.name for entry in entries] + [LOAD_NAME, EVICT_NAME]))
        number = {name: index for index, name in enumerate(names)}
        name_of = np.array([number[entry.operator.name] for entry in entries] + [number[EVICT_NAME]])
        op = name_of[column]
        op[is_load] = number[LOAD_NAME]
        comm = np.array([entry.operator.communication for entry in entries] + [CommType.NONE])[column]
        kinds = np.array([_row_kind(entry.operator) for entry in entries] + [RowKind.MEM_STORE])[column]
        kinds[is_load] = RowKind.MEM_LOAD
        rank = np.concatenate([np.full(transfer_rows, STAGE_SET), rows.rank])
        own_set = self.parallelism.pipeline + stage * self.parallelism.tensor + rank
        reads_host = np.array([not entry.operator.sources for entry in entries] + [False])[column] | is_load
        last = column == len(entries) - 1 if key.has_logits else np.zeros(len(column), dtype=bool)
        writes_host = last | (~computing & ~is_load)
        position = np.array([entry.request for entry in entries] + [-1], dtype=np.int64)[column]
        return Structure(
            entries=tuple(entries),
            op_names=names,
            rank_sets=self.rank_sets,
            groups=self.groups,
            op=op.astype(np.int32),
            kind=kinds.astype(np.int8),
            layer=np.concatenate([np.full(transfer_rows, NO_LAYER, dtype=np.int32), layer]),
            stage=stage,
            rank_set=np.where(rank == STAGE_SET, stage, own_set).astype(np.int32),
            sub_batch=np.zeros(len(column), dtype=np.int32),
            input_loc=np.where(reads_host, Location.REMOTE, Location.LOCAL).astype(np.int8),
            output_loc=np.where(writes_host, Location.REMOTE, Location.LOCAL).astype(np.int8),
            local=np.full(len(column), Location.LOCAL, dtype=np.int8),
            node=np.zeros(len(column), dtype=np.int32),
            comm_type=comm.astype(np.int8),
            comm_group=np.where(comm != CommType.NONE, stage, -1).astype(np.int32),
            dep_offsets=np.concatenate([np.zeros(transfer_rows + 1, np.int64), np.cumsum(rows.dep_count)]),
            dep_rows=rows.dep_rows + transfer_rows,
            column=column,
            runs=runs,
            position=position,
            transfer=transfer,
            transfer_rows=transfer_rows,
        )


@dataclass(frozen=True, slots=True)
class _Arrays:
    """Rows as arrays; dependencies count from the first row."""

    column: IntArray
    rank: IntArray
    dep_count: IntArray
    dep_rows: IntArray

    @staticmethod
    def of(template: _Template) -> _Arrays:
        flat = [row for rows in template.dependencies for row in rows]
        counts = [len(rows) for rows in template.dependencies]
        lists = (template.column, template.rank, counts, flat)
        column, rank, dep_count, dep_rows = (np.array(values, dtype=np.int64) for values in lists)
        return _Arrays(column, rank, dep_count, dep_rows)

    def repeated(self, times: int) -> _Arrays:
        """Return the rows `times` over, dependencies staying within each repetition."""
        starts = np.repeat(np.arange(times, dtype=np.int64) * len(self.column), len(self.dep_rows))
        return _Arrays(
            np.tile(self.column, times),
            np.tile(self.rank, times),
            np.tile(self.dep_count, times),
            np.tile(self.dep_rows, times) + starts,
        )

    @staticmethod
    def joined(parts: list[_Arrays]) -> _Arrays:
        """Return the rows of all parts, one after another."""
        starts = np.cumsum([0] + [len(part.column) for part in parts])
        return _Arrays(
            np.concatenate([part.column for part in parts]),
            np.concatenate([part.rank for part in parts]),
            np.concatenate([part.dep_count for part in parts]),
            np.concatenate([part.dep_rows + start for part, start in zip(parts, starts, strict=False)]),
        )


def _row_kind(operator: Operator) -> RowKind:
    return RowKind.COMM if operator.kind is OperatorClass.EXCHANGE else RowKind.COMPUTE
