"""The rows of an iteration's trace, apart from any size or latency.

    kv_load / kv_evict rows of every stage | embedding | block x layers of stage 0 | ... | block x layers | tail

One block is worked out and replicated. Every row points to a column of the operator table, so that sizes and
latencies are copied from there block by block.

Attention placed by request: request ``i`` of the batch is on rank ``i mod tensor`` of each stage (the rule of
LLMServingSim's Orca traces). Its rows stand on rank sets of one rank; as each row waits for the one before it on its
own rank, the requests of different ranks run side by side:

    rotary_emb -> (exchange) -+-> attention 0, attention 2 ... on rank 0 -+-> (exchange) -> o_proj
                              +-> attention 1, attention 3 ... on rank 1 -+
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trace_gen.operators import Operator, OperatorClass, Operators, is_per_request
from trace_gen.parallelism import Parallelism
from trace_gen.trace import NO_LAYER, CommType, IntArray, Location, RowKind

LOAD_NAME, EVICT_NAME = "kv_load", "kv_evict"
STAGE_SET = -1
"""The row is on all ranks of its stage."""


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One column of the operator table.

    `request` is the position in the batch of the request it works for (-1: all of them), `rank` the index within the
    stage of the one rank that runs it (`STAGE_SET`: every rank).
    """

    operator: Operator
    request: int = -1
    rank: int = STAGE_SET


@dataclass(frozen=True, slots=True)
class Run:
    """Rows of a trace, from `row` on, that are `repeats` times the `width` table columns from `column` on."""

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

    - `column`: index into the operator table (`entries`); rows of KV transfers point behind its end;
    - `runs`: the same as runs of rows, for copying whole blocks;
    - `position`: the request's position in the batch, -1 for batch rows;
    - `transfer`, of the first `transfer_rows` rows: index into loads, then evictions.
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
    weight_loc: NDArray[np.int8]
    node: NDArray[np.int32]
    comm_type: NDArray[np.int8]
    comm_group: NDArray[np.int32]
    dep_offsets: IntArray
    dep_rows: IntArray
    column: IntArray
    runs: tuple[Run, ...]
    position: IntArray
    transfer: IntArray

    @property
    def transfer_rows(self) -> int:
        """Rows of KV transfers, which come first."""
        return len(self.transfer)


class StructureBuilder:
    """Builds `Structure`s of one model on one parallelism; `by_request` places attention by request."""

    def __init__(self, operators: Operators, parallelism: Parallelism, num_layers: int, *, by_request: bool) -> None:
        self.operators, self.parallelism, self.by_request = operators, parallelism, by_request
        self.layers = parallelism.stage_layers(num_layers)
        stages = tuple(parallelism.stage_ranks(stage) for stage in range(parallelism.pipeline))
        single = tuple((rank,) for rank in range(parallelism.ranks)) if by_request else ()
        self.rank_sets = stages + single
        self.groups = stages if parallelism.tensor > 1 else ()

    def build(self, key: StructureKey) -> Structure:
        """Return the structure for `key`; without logits there is no LM head and no sampler."""
        head = [TableEntry(operator) for operator in self.operators.head]
        block = self._block(key.requests)
        tail = [TableEntry(operator) for operator in self.operators.tail[: None if key.has_logits else 1]]
        rows = _Rows((key.loads + key.evictions) * self.parallelism.pipeline)
        last = self.parallelism.pipeline - 1
        for stage, layers in enumerate(self.layers):
            if stage == 0:
                rows.add(0, len(head), stage, (NO_LAYER,))
            rows.add(len(head), len(block), stage, layers)
            if stage == last:
                rows.add(len(head) + len(block), len(tail), stage, (NO_LAYER,))
        return self._columns((*head, *block, *tail), rows, key)

    def _block(self, requests: int) -> list[TableEntry]:
        """Return the entries of one block; per-request operators stand together, request by request."""
        section = [operator for operator in self.operators.block if requests and is_per_request(operator)]
        entries: list[TableEntry] = []
        for operator in self.operators.block:
            if operator not in section:
                entries.append(TableEntry(operator))
            elif operator is section[0]:
                for request in range(requests):
                    rank = request % self.parallelism.tensor if self.by_request else STAGE_SET
                    entries += [TableEntry(part, request, rank) for part in section]
        return entries

    def _columns(self, entries: tuple[TableEntry, ...], rows: _Rows, key: StructureKey) -> Structure:
        """Put the rows of KV transfers in front and fill every column."""
        stages, per_stage = self.parallelism.pipeline, key.loads + key.evictions
        transfer = np.tile(np.arange(per_stage, dtype=np.int64), stages)
        column = np.concatenate([np.full(len(transfer), len(entries), dtype=np.int64), *rows.columns])
        stage = np.concatenate([np.repeat(np.arange(stages, dtype=np.int32), per_stage), *rows.stages])
        evicts = np.zeros(len(column), dtype=np.bool_)
        evicts[: len(transfer)] = transfer >= key.loads
        loads = (column == len(entries)) & ~evicts
        names = tuple(dict.fromkeys([entry.operator.name for entry in entries] + [LOAD_NAME, EVICT_NAME]))
        op = _by_entry([names.index(entry.operator.name) for entry in entries], names.index(EVICT_NAME), column)
        op[loads] = names.index(LOAD_NAME)
        kind = _by_entry([_row_kind(entry.operator) for entry in entries], RowKind.MEM_STORE, column)
        kind[loads] = RowKind.MEM_LOAD
        comm = _by_entry([entry.operator.communication for entry in entries], CommType.NONE, column)
        rank = _by_entry([entry.rank for entry in entries], STAGE_SET, column)
        own_set = stages + stage * self.parallelism.tensor + rank
        return Structure(
            entries=entries,
            op_names=names,
            rank_sets=self.rank_sets,
            groups=self.groups,
            op=op.astype(np.int32),
            kind=kind.astype(np.int8),
            layer=np.concatenate([np.full(len(transfer), NO_LAYER, dtype=np.int32), *rows.layers]),
            stage=stage,
            rank_set=np.where(rank == STAGE_SET, stage, own_set).astype(np.int32),
            sub_batch=np.zeros(len(column), dtype=np.int32),
            # Token ids stay on the device: a few bytes, which engines copy while the device computes.
            input_loc=np.where(loads, Location.REMOTE, Location.LOCAL).astype(np.int8),
            output_loc=np.where(evicts, Location.REMOTE, Location.LOCAL).astype(np.int8),
            weight_loc=np.full(len(column), Location.LOCAL, dtype=np.int8),
            node=np.zeros(len(column), dtype=np.int32),
            comm_type=comm.astype(np.int8),
            comm_group=np.where(comm != CommType.NONE, stage, -1).astype(np.int32),
            dep_offsets=np.zeros(len(column) + 1, dtype=np.int64),
            dep_rows=np.zeros(0, dtype=np.int64),
            column=column,
            runs=tuple(rows.runs),
            position=_by_entry([entry.request for entry in entries], -1, column),
            transfer=transfer,
        )


@dataclass
class _Rows:
    """Rows of the trace in pieces, in order; `length` counts those before and so far."""

    length: int
    columns: list[IntArray] = field(default_factory=list)
    layers: list[NDArray[np.int32]] = field(default_factory=list)
    stages: list[NDArray[np.int32]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def add(self, column: int, width: int, stage: int, layers: Iterable[int]) -> None:
        """Append the `width` table columns from `column` on, once for each of `layers`."""
        numbers = np.fromiter(layers, dtype=np.int32)
        self.runs.append(Run(self.length, column, width, len(numbers)))
        self.columns.append(np.tile(np.arange(column, column + width, dtype=np.int64), len(numbers)))
        self.layers.append(np.repeat(numbers, width))
        self.stages.append(np.full(width * len(numbers), stage, dtype=np.int32))
        self.length += width * len(numbers)


def _by_entry(values: Iterable[int], of_transfers: int, column: IntArray) -> IntArray:
    """Return each row's value: that of its table entry, or `of_transfers` for the rows of KV transfers."""
    result: IntArray = np.array([*values, of_transfers], dtype=np.int64)[column]
    return result


def _row_kind(operator: Operator) -> RowKind:
    return RowKind.COMM if operator.kind is OperatorClass.EXCHANGE else RowKind.COMPUTE
