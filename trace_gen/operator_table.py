"""The columns of an operator table: what the rows of a trace fix, what token counts fix, and attention by context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from trace_gen.attention.work import AttentionShape
from trace_gen.batch_shape import BatchShape
from trace_gen.mlp.routing import ExpertSpread, Loads, Routing
from trace_gen.operators import Operator, Rows
from trace_gen.perf_model import AttentionPart, ExpertPart, OperatorTable
from trace_gen.trace import IntArray, OperatorClass
from trace_gen.trace_structure import WAVE, TableEntry


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What a kind of layer tells of its columns: one rank's attention, and where its experts (if any) are."""

    attention: AttentionShape
    experts: ExpertSpread | None


@dataclass(frozen=True, slots=True, eq=False)
class AttentionColumns:
    """The columns in which one member's attention of one shape stands."""

    member: int
    shape: AttentionShape
    columns: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class MixtureColumns:
    """The columns whose rows one member (or the wave) routes to experts that stand in one way.

    - `layers`: those that differ (one where they are alike, none where no column depends on the routing), `place`
      ``[columns]``: which of them a column is of;
    - `grouped`: which of `columns` are the experts' own matrices.
    """

    member: int
    spread: ExpertSpread
    columns: IntArray
    layers: tuple[int, ...]
    place: IntArray
    grouped: IntArray

    def loads(self, routing: Routing, step: int, tokens: Sequence[int]) -> Loads | None:
        """Return what `routing` gives the ranks of its `layers` of the members' `tokens`."""
        if not self.layers:
            return None
        if self.member == WAVE:
            return routing.loads(self.spread, self.layers, step, range(sum(tokens)))
        first = sum(tokens[: self.member])
        return routing.loads(self.spread, self.layers, step, range(first, first + tokens[self.member]))


@dataclass(frozen=True, slots=True, eq=False)
class TableShape:
    """What the structure alone decides of the operator table, and where attention and experts stand in it."""

    names: tuple[str, ...]
    kinds: NDArray[np.int8]
    arithmetic: NDArray[np.int8]
    member: IntArray
    request: IntArray
    whole: NDArray[np.bool_]
    computes: NDArray[np.bool_]
    attention: tuple[AttentionColumns, ...]
    mixtures: tuple[MixtureColumns, ...]
    per_row: IntArray
    """``[7, m]``: FLOPs and bytes a row, see `_per_row`."""
    row_kinds: IntArray
    """``[4, m]``: where in `_rows`' choices, laid end to end, the rows of input, work, output and collective stand."""
    by_request: IntArray
    """The columns that stand for single requests."""
    works_on_copies: NDArray[np.bool_]
    """The columns that work on the copies of tokens that reach a rank's experts."""

    @staticmethod
    def of(entries: Sequence[TableEntry], facts: Sequence[LayerFacts], by_request: bool) -> TableShape:
        """Return the shape of the table of `entries`; `facts` are those of each kind of layer."""
        operators = [entry.operator for entry in entries]
        kinds = np.array([operator.kind for operator in operators], dtype=np.int8)
        request = np.array([entry.request for entry in entries], dtype=np.int64)
        per_row = [_per_row(operator) for operator in operators]
        row_kinds = np.array(
            [(o.input_rows, o.work_rows, o.output_rows, o.comm_rows) for o in operators], dtype=np.int64
        )
        return TableShape(
            names=tuple(operator.name for operator in operators),
            kinds=kinds,
            arithmetic=np.array([operator.arithmetic for operator in operators], dtype=np.int8),
            member=np.array([entry.member for entry in entries], dtype=np.int64),
            request=request,
            whole=(request >= 0) & by_request,
            computes=kinds != OperatorClass.COMMUNICATION,
            attention=_attention_columns(entries, facts),
            mixtures=_mixture_columns(entries, facts),
            per_row=np.array(per_row, dtype=np.int64).T,
            row_kinds=row_kinds.T * len(entries) + np.arange(len(entries)),
            by_request=np.flatnonzero(request >= 0),
            works_on_copies=np.array([operator.work_rows is Rows.ROUTED for operator in operators], dtype=np.bool_),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ColumnSizes:
    """What token counts decide, ``[m]``: rows worked on and their work, and bytes in, held, out and carried."""

    rows: IntArray
    flops: IntArray
    mem_bytes: IntArray
    input_bytes: IntArray
    weight_bytes: IntArray
    output_bytes: IntArray
    comm_bytes: IntArray
    experts: tuple[ExpertPart, ...]


def column_sizes(shape: TableShape, batches: Sequence[BatchShape], routing: Routing, step: int) -> ColumnSizes:
    """Return the sizes of every column for the token counts of a wave's `batches`, routed as at `step`."""
    tokens = [batch.total_tokens for batch in batches]
    loads = [part.loads(routing, step, tokens) for part in shape.mixtures]
    rows_in, rows, rows_out, rows_carried = _rows(shape, batches, tokens, loads)
    flops, traffic, weight_traffic, into, weights, out, comm = shape.per_row
    mem_bytes = traffic * rows + weight_traffic
    experts = []
    for part, load in zip(shape.mixtures, loads, strict=True):
        if load is None:
            continue
        own = _expert_part(shape, part, load, rows)
        mem_bytes[own.columns] = own.mem_bytes.max(axis=1)
        if load.tokens is not None:
            experts.append(own)
    return ColumnSizes(
        rows=rows,
        flops=flops * rows,
        mem_bytes=mem_bytes,
        experts=tuple(experts),
        input_bytes=into * rows_in,
        weight_bytes=weights,
        output_bytes=out * rows_out,
        comm_bytes=comm * rows_carried,
    )


def operator_table(
    shape: TableShape, sizes: ColumnSizes, batches: Sequence[BatchShape], together: BatchShape, tensor: int
) -> OperatorTable:
    """Return the operator table: static columns repeated for every step, attention by context.

    `together` are the `batches` one after another, `tensor` the ranks that share an operator.
    """
    flops = np.empty((together.steps, len(sizes.flops)), dtype=np.int64)
    mem_bytes = np.empty_like(flops)
    flops[:], mem_bytes[:] = sizes.flops, sizes.mem_bytes
    firsts = [0, *accumulate(len(batch.request_ids) for batch in batches)]
    parts = []
    for place in shape.attention:
        work = place.shape.work(batches[place.member])
        first, columns = firsts[place.member], place.columns
        per_request = bool(shape.request[columns[0]] >= 0)
        if per_request:
            own = shape.request[columns] - first
            flops[:, columns], mem_bytes[:, columns] = work.flops[:, own], work.mem_bytes[:, own]
        else:
            flops[:, columns] = work.flops.sum(axis=1, keepdims=True)
            mem_bytes[:, columns] = work.mem_bytes.sum(axis=1, keepdims=True)
        parts.append(AttentionPart(columns, per_request, place.shape, batches[place.member], work, first))
    return OperatorTable(
        names=shape.names,
        kinds=shape.kinds,
        arithmetic=shape.arithmetic,
        rows=sizes.rows,
        request=shape.request,
        whole=shape.whole,
        flops=flops,
        mem_bytes=mem_bytes,
        attention=tuple(parts),
        experts=sizes.experts,
        batch=together,
        tensor=tensor,
    )


def _rows(
    shape: TableShape, batches: Sequence[BatchShape], tokens: Sequence[int], loads: Sequence[Loads | None]
) -> IntArray:
    """Return how many rows each column takes, works on, puts out and carries, ``[4, m]``."""
    # The last entry is found by `WAVE`: what members do together has the tokens of the largest.
    of_member = np.array([*tokens, max(tokens)])
    logits = np.array([*(batch.sampled_tokens for batch in batches), 0])
    choices = np.zeros((len(Rows), len(shape.member)), dtype=np.int64)
    choices[int(Rows.TOKENS)] = of_member[shape.member]
    if shape.by_request.size:
        new_tokens = np.concatenate([batch.new_tokens for batch in batches])
        choices[int(Rows.TOKENS), shape.by_request] = new_tokens[shape.request[shape.by_request]]
    choices[int(Rows.LOGITS)] = logits[shape.member]
    for part, load in zip(shape.mixtures, loads, strict=True):
        spread, most = part.spread, of_member[part.member].item()
        choices[Rows.OWN, part.columns] = spread.own_tokens(most)
        choices[Rows.EXCHANGED, part.columns] = spread.own_copies(most)
        choices[Rows.GATHERED, part.columns] = spread.gathered_tokens(most)
        if load is not None:
            routed = load.copies.max(axis=1)[part.place]
            choices[Rows.ROUTED, part.columns] = routed
            choices[Rows.CARRIED, part.columns] = np.maximum(routed, spread.own_copies(most))
    return choices.ravel()[shape.row_kinds]


def _expert_part(shape: TableShape, part: MixtureColumns, load: Loads, rows: IntArray) -> ExpertPart:
    """Return the work of each rank in the experts' matrices; `rows` ``[m]`` are those that columns work on."""
    columns, place = part.columns[part.grouped], part.place[part.grouped]
    # What is not worked on copy by copy is every rank's, for all ranks have all experts.
    routed = shape.works_on_copies[columns][:, None]
    worked = np.where(routed, load.copies[place], rows[columns][:, None])
    flops, traffic, weight_traffic = (values[columns][:, None] for values in shape.per_row[:3])
    weights = np.rint(weight_traffic * load.active[place]).astype(np.int64)
    tokens = np.zeros((0, 0, 0), dtype=np.int64) if load.tokens is None else load.tokens[place]
    return ExpertPart(columns, tokens, flops * worked, traffic * worked + weights)


def _attention_columns(entries: Sequence[TableEntry], facts: Sequence[LayerFacts]) -> tuple[AttentionColumns, ...]:
    places: dict[tuple[int, AttentionShape], list[int]] = {}
    for column, entry in enumerate(entries):
        if entry.operator.kind is OperatorClass.ATTENTION:
            places.setdefault((entry.member, facts[entry.layer_kind].attention), []).append(column)
    return tuple(
        AttentionColumns(member, shape, np.array(columns, dtype=np.int64))
        for (member, shape), columns in places.items()
    )


def _mixture_columns(entries: Sequence[TableEntry], facts: Sequence[LayerFacts]) -> tuple[MixtureColumns, ...]:
    places: dict[tuple[int, ExpertSpread], list[int]] = {}
    for column, entry in enumerate(entries):
        spread = facts[entry.layer_kind].experts if entry.layer_kind >= 0 else None
        if spread is not None:
            places.setdefault((entry.member, spread), []).append(column)
    parts = []
    for (member, spread), columns in places.items():
        own = [entries[column] for column in columns]
        layers = sorted({entry.layer for entry in own if entry.operator.is_routed})
        # What stands for all layers of a kind does not depend on the routing where others differ.
        place = [layers.index(entry.layer) if entry.layer in layers else 0 for entry in own]
        grouped = [at for at, entry in enumerate(own) if entry.operator.kind is OperatorClass.GROUPED_GEMM]
        parts.append(
            MixtureColumns(member, spread, _indices(columns), tuple(layers), _indices(place), _indices(grouped))
        )
    return tuple(parts)


def _indices(values: Sequence[int]) -> IntArray:
    return np.array(values, dtype=np.int64)


def _per_row(row: Operator) -> tuple[int, ...]:
    """Return an operator's FLOPs and traffic for each row it works on, and its bytes, as `column_sizes` takes them."""
    computed = (row.flops, row.traffic_bytes, row.weight_traffic_bytes)
    return (*computed, row.input_bytes, row.weight_bytes, row.output_bytes, row.comm_bytes)
