"""The rows of an iteration's trace, apart from any size or latency.

    kv_load / kv_evict rows of every stage | embedding | blocks of stage 0 | ... | blocks of the last stage | tail

Each kind of layer is worked out once and replicated. Every row points to a column of the operator table, so that sizes
and latencies are copied from there block by block. Where tokens choose experts in another way in each layer, what
depends on it (`Operator.is_routed`) has a column for each layer, and the rest of the block one for all:

    columns    norm ... router | gate_up 0, act 0, down 0 | gate_up 1, act 1, down 1 | sum
    layer 0    x        x        x          x      x                                   x
    layer 1    x        x                                   x          x      x        x

Attention placed by request: request ``i`` of the batch is on rank ``i mod tensor`` of each stage (the rule of
LLMServingSim's Orca traces). Its rows stand on rank sets of one rank; as each row waits for the one before it on its
own rank, the requests of different ranks run side by side:

    rotary_emb -> (exchange) -+-> attention 0, attention 2 ... on rank 0 -+-> (exchange) -> o_proj
                              +-> attention 1, attention 3 ... on rank 1 -+

A wave has the rows of each data-parallel member one after another, on the member's own ranks, where they run side by
side in the same way. What members do together (`Operator.together`) is one row on all ranks of the stage:

    member 0: norm ... router -+                                                              +-> expert_sum ...
    member 1: norm ... router -+-> expert_dispatch ... expert_combine, on all ranks of the stage -+-> expert_sum ...

A member without tokens has no rows of its own and takes part in these alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.architecture import ModelArchitecture
from trace_gen.mesh import Mesh
from trace_gen.model_operators import ModelOperators
from trace_gen.operators import Operator, Portion, Rows
from trace_gen.rank_sets import EVERY_RANK, WAVE, RankSets
from trace_gen.streamed_weights import StreamedWeights
from trace_gen.trace import NO_LAYER, NPU, CommType, IntArray, Location, OperatorClass, RowKind

LOAD_NAME, EVICT_NAME = "kv_load", "kv_evict"


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One column of the operator table.

    `layer_kind` is the kind of layer it belongs to (`NO_LAYER`: head or tail).
    `member` is whose tokens it works on (`WAVE`: all members', together), `request` the position in the wave of the one
    request it works for (-1: all of the member's), `rank` the index within the member's stage of the one rank that runs
    it (`EVERY_RANK`: every rank), `layer` the one layer that it is of (`NO_LAYER`: all of its kind).
    """

    operator: Operator
    layer_kind: int = NO_LAYER
    member: int = 0
    request: int = -1
    rank: int = EVERY_RANK
    layer: int = NO_LAYER


class MemberKey(NamedTuple):
    """What decides the rows of one member.

    `requests`: per-request rows of its batch, 0 for one row a batch; `portions`: where prompts and decodes have rows of
    their own (`Portion`), what the requests are, one by one, or each portion once for one row a batch.
    """

    requests: int
    has_tokens: bool
    has_logits: bool
    loads: int
    evictions: int
    portions: tuple[Portion, ...] = ()

    def has(self, operator: Operator) -> bool:
        """Whether there are tokens for `operator`."""
        return operator.portion is Portion.ALL or operator.portion in self.portions

    def requests_of(self, operator: Operator) -> Iterable[int]:
        """Return the positions in the batch of the requests that a per-request `operator` has a row for."""
        if operator.portion is Portion.ALL:
            return range(self.requests)
        return [position for position, portion in enumerate(self.portions) if portion is operator.portion]


StructureKey = tuple[MemberKey, ...]
"""What decides the rows of a trace: of a wave of several members, or of one batch."""


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """Columns of `Trace` that hold no size, of shape ``[n]``, and where each row's sizes are found.

    - `column`: index into the operator table (`entries`); rows of KV transfers point behind its end;
    - `position`: the request's position in the wave, -1 for batch rows;
    - `transfer`, of the first `transfer_rows` rows: index into loads, then evictions, of the first member, the second
      and so on.
    """

    entries: tuple[TableEntry, ...]
    op_names: tuple[str, ...]
    devices: tuple[str, ...]
    rank_sets: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]
    group_parts: tuple[int, ...]
    op: NDArray[np.int32]
    operator_class: NDArray[np.int8]
    kind: NDArray[np.int8]
    device: NDArray[np.int8]
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
    position: IntArray
    transfer: IntArray

    @property
    def transfer_rows(self) -> int:
        """Rows of KV transfers, which come first."""
        return len(self.transfer)


class StructureBuilder:
    """Builds `Structure`s of one model on one mesh.

    `by_request` places attention by request; `by_layer`: layers with equal experts differ in what reaches these;
    `streamed`: weights that are in host memory.
    """

    def __init__(
        self,
        operators: ModelOperators,
        mesh: Mesh,
        architecture: ModelArchitecture,
        *,
        by_request: bool,
        by_layer: bool,
        streamed: StreamedWeights,
    ) -> None:
        self.streamed = streamed
        self.operators, self.mesh, self.by_request, self.by_layer = operators, mesh, by_request, by_layer
        self.ranks = RankSets.of(mesh, by_request)
        self.layers = mesh.stage_layers(architecture.num_layers)
        self.kind_of = tuple(map(architecture.layer_kinds.index, architecture.layers))

    def build(self, key: StructureKey) -> Structure:
        """Return the structure for `key`; a member without logits has no LM head and no sampler."""
        working = [number for number, member in enumerate(key) if member.has_tokens]
        head = [TableEntry(operator, member=member) for member in working for operator in self.operators.head]
        tail = [
            TableEntry(operator, member=member)
            for member in working
            for operator in self.operators.tail
            if key[member].has_logits or operator.input_rows is not Rows.LOGITS
        ]
        blocks = [self._columns_of_kind(kind, key, working) for kind in range(len(self.operators.blocks))]
        starts = np.cumsum([len(head), *(len(block.entries) for block in blocks)]).tolist()
        rows = _Rows()
        rows.add(np.arange(len(head))[None, :], 0, (NO_LAYER,))
        for stage, layers in enumerate(self.layers):
            for kind, run in groupby(layers, key=self.kind_of.__getitem__):
                numbers = list(run)
                rows.add(starts[kind] + blocks[kind].of_layers(numbers), stage, numbers)
        rows.add(starts[-1] + np.arange(len(tail))[None, :], len(self.layers) - 1, (NO_LAYER,))
        return self._columns((*head, *(entry for block in blocks for entry in block.entries), *tail), rows, key)

    def _columns_of_kind(self, kind: int, key: StructureKey, working: list[int]) -> _Block:
        """Return the columns of one kind of layer: some of them a layer each where layers differ."""
        entries = list(self._block(kind, key, working))
        if not (self.by_layer and any(entry.operator.is_routed for entry in entries)):
            return _Block(entries, np.arange(len(entries))[None, :], {})
        layers = [layer for layer, own in enumerate(self.kind_of) if own == kind]
        columns: list[TableEntry] = []
        found = np.zeros((len(layers), len(entries)), dtype=np.int64)
        for routed, section in groupby(range(len(entries)), key=lambda place: entries[place].operator.is_routed):
            places = list(section)
            for row, layer in enumerate(layers if routed else layers[:1]):
                which = row if routed else slice(None)
                found[which, places] = np.arange(len(columns), len(columns) + len(places))
                columns += [replace(entries[place], layer=layer if routed else NO_LAYER) for place in places]
        return _Block(columns, found, {layer: row for row, layer in enumerate(layers)})

    def _block(self, kind: int, key: StructureKey, working: list[int]) -> Iterator[TableEntry]:
        """Yield the entries of one kind of layer: what members do alone, one by one, and what they do together."""
        first_request = np.cumsum([0, *(member.requests for member in key)]).tolist()
        for together, operators in groupby(self.operators.blocks[kind], key=lambda operator: operator.together):
            section = list(operators)
            if together:
                yield from (TableEntry(operator, kind, WAVE) for operator in section)
                continue
            for member in working:
                own = [operator for operator in section if key[member].has(operator)]
                alone = TableEntry(section[0], kind, member)
                yield from self._alone(own, alone, key[member], first_request[member])

    def _alone(self, section: list[Operator], like: TableEntry, member: MemberKey, first: int) -> Iterator[TableEntry]:
        """Yield a member's entries, `like` the given one; per-request operators stand together, request by request."""
        separate = {operator: member.requests_of(operator) for operator in section if operator.is_per_request}
        separate = separate if member.requests else {}
        for operator in section:
            if operator not in separate:
                yield replace(like, operator=operator)
            elif operator is next(iter(separate)):
                for request in range(member.requests):
                    rank = request % self.mesh.tensor if self.by_request else EVERY_RANK
                    for part, requests in separate.items():
                        if request in requests:
                            yield replace(like, operator=part, request=first + request, rank=rank)

    def _columns(self, entries: tuple[TableEntry, ...], rows: _Rows, key: StructureKey) -> Structure:
        """Put the rows of KV transfers in front and fill every column."""
        moves = _Moves.of(key, self.mesh.pipeline)
        count = len(moves.transfer)
        column = np.concatenate([np.full(count, len(entries), dtype=np.int64), *rows.columns])
        stage = np.concatenate([moves.stage, *rows.stages])
        loads, evicts = (_in_front(which, len(column)) for which in (moves.loads, ~moves.loads))
        names = tuple(dict.fromkeys([entry.operator.name for entry in entries] + [LOAD_NAME, EVICT_NAME]))
        op = _by_entry([names.index(entry.operator.name) for entry in entries], names.index(EVICT_NAME), column)
        op[loads] = names.index(LOAD_NAME)
        kind = _by_entry([_row_kind(entry.operator) for entry in entries], RowKind.MEM_STORE, column)
        kind[loads] = RowKind.MEM_LOAD
        comm = _by_entry([entry.operator.communication for entry in entries], CommType.NONE, column)
        member = _by_entry([entry.member for entry in entries], 0, column)
        member[:count] = moves.member
        rank = _by_entry([entry.rank for entry in entries], EVERY_RANK, column)
        along = _by_entry([entry.operator.axis == "cp" for entry in entries], 0, column).astype(np.bool_)
        group = np.where(comm != CommType.NONE, self.ranks.group_of(stage, member, along), -1)
        dep_offsets, dep_rows = _dependencies(entries, column)
        layer = np.concatenate([np.full(count, NO_LAYER, dtype=np.int32), *rows.layers])
        streams = self.streamed.rows([entry.operator for entry in entries], column, layer)
        return Structure(
            entries=entries,
            op_names=names,
            devices=(NPU,),
            rank_sets=self.ranks.sets,
            groups=self.ranks.groups,
            group_parts=self.ranks.parts if max(self.ranks.parts, default=1) > 1 else (),
            op=op.astype(np.int32),
            operator_class=_by_entry([entry.operator.kind for entry in entries], OperatorClass.MEMORY, column).astype(
                np.int8
            ),
            kind=kind.astype(np.int8),
            device=np.zeros(len(column), dtype=np.int8),
            layer=layer,
            stage=stage,
            rank_set=self.ranks.set_of(stage, member, rank).astype(np.int32),
            sub_batch=np.zeros(len(column), dtype=np.int32),
            # Token ids stay on the device: a few bytes, which engines copy while the device computes.
            input_loc=np.where(loads, Location.REMOTE, Location.LOCAL).astype(np.int8),
            output_loc=np.where(evicts, Location.REMOTE, Location.LOCAL).astype(np.int8),
            weight_loc=np.where(streams, Location.REMOTE, Location.LOCAL).astype(np.int8),
            node=np.zeros(len(column), dtype=np.int32),
            comm_type=comm.astype(np.int8),
            comm_group=group.astype(np.int32),
            dep_offsets=dep_offsets,
            dep_rows=dep_rows,
            column=column,
            position=_by_entry([entry.request for entry in entries], -1, column),
            transfer=moves.transfer,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """The columns of a kind of layer. `found` ``[layers or 1, rows]``: those of a layer's rows, at its `place`."""

    entries: list[TableEntry]
    found: IntArray
    place: dict[int, int]

    def of_layers(self, layers: Sequence[int]) -> IntArray:
        """Return the columns of the rows of `layers`, ``[layers, rows]``."""
        columns: IntArray = self.found[[self.place.get(layer, 0) for layer in layers]]
        return columns


@dataclass(frozen=True, slots=True, eq=False)
class _Moves:
    """The rows of KV transfers: each stage moves its part of what every member loads, then evicts."""

    stage: NDArray[np.int32]
    member: IntArray
    loads: NDArray[np.bool_]
    transfer: IntArray

    @staticmethod
    def of(key: StructureKey, stages: int) -> _Moves:
        """Return the rows for `key` on `stages` stages."""
        counts = [member.loads + member.evictions for member in key]
        loads = [np.arange(count) < member.loads for member, count in zip(key, counts, strict=True)]
        return _Moves(
            stage=np.repeat(np.arange(stages, dtype=np.int32), sum(counts)),
            member=np.tile(np.repeat(np.arange(len(key)), counts), stages),
            loads=np.tile(np.concatenate(loads), stages),
            transfer=np.tile(np.arange(sum(counts), dtype=np.int64), stages),
        )


@dataclass(eq=False)
class _Rows:
    """Rows of the trace in pieces, in order."""

    columns: list[IntArray] = field(default_factory=list)
    layers: list[NDArray[np.int32]] = field(default_factory=list)
    stages: list[NDArray[np.int32]] = field(default_factory=list)

    def add(self, columns: IntArray, stage: int, layers: Sequence[int]) -> None:
        """Append the rows of `layers`, which have the table columns ``[layers, rows]``."""
        self.columns.append(columns.ravel())
        self.layers.append(np.repeat(np.array(layers, dtype=np.int32), columns.shape[1]))
        self.stages.append(np.full(columns.size, stage, dtype=np.int32))


def _in_front(which: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    """Return `which` of the first rows as a column of all `rows`."""
    result = np.zeros(rows, dtype=np.bool_)
    result[: len(which)] = which
    return result


def _dependencies(entries: Sequence[TableEntry], column: IntArray) -> tuple[IntArray, IntArray]:
    """Return what rows wait for beside the row before (`Trace.dep_offsets`, `dep_rows`), by their operators."""
    counts = _by_entry([len(entry.operator.after) for entry in entries], 0, column)
    offsets = np.zeros(len(column) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    waits = [row - back for row in np.flatnonzero(counts).tolist() for back in _back(entries[column[row]])]
    return offsets, np.array(waits, dtype=np.int64)


def _back(entry: TableEntry) -> list[int]:
    """Return how far back the rows stand that an entry waits for, the first of them first."""
    return sorted(entry.operator.after, reverse=True)


def _by_entry(values: Iterable[int], of_transfers: int, column: IntArray) -> IntArray:
    """Return each row's value: that of its table entry, or `of_transfers` for the rows of KV transfers."""
    result: IntArray = np.array([*values, of_transfers], dtype=np.int64)[column]
    return result


def _row_kind(operator: Operator) -> RowKind:
    return RowKind.COMM if operator.kind is OperatorClass.COMMUNICATION else RowKind.COMPUTE
