"""The columns of an operator table: what the rows of a trace fix, what token counts fix, and attention by context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.attention.divided import ContextDivision
from trace_gen.attention.work import AttentionShape, AttentionWork
from trace_gen.batch_shape import BatchShape
from trace_gen.mesh import Mesh
from trace_gen.mlp.routing import ExpertSpread, Loads, Routing
from trace_gen.operators import Operator, Portion, Rows
from trace_gen.perf_model import AttentionPart, ExpertPart, OperatorTable
from trace_gen.precision import ceil_div
from trace_gen.rank_sets import WAVE
from trace_gen.trace import IntArray, OperatorClass
from trace_gen.trace_structure import TableEntry


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What a kind of layer tells of its columns: one rank's attention, and where its experts (if any) are."""

    attention: Mapping[Portion, AttentionShape]
    experts: ExpertSpread | None

    def shape_for(self, portion: Portion) -> AttentionShape:
        """Return the attention of the requests of `portion`."""
        return self.attention[portion if portion in self.attention else Portion.ALL]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionColumns:
    """The columns in which one member's attention of one shape stands, for some of its requests."""

    member: int
    shape: AttentionShape
    columns: IntArray
    portion: Portion = Portion.ALL


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

    def loads(self, routing: Routing, step: int, tokens: Sequence[int], context: int) -> Loads | None:
        """Return what `routing` gives the ranks of its `layers` of the members' `tokens`.

        Experts of the whole stage have them all; those that a rank has a part of, the tokens of one of `context` ranks.
        """
        if not self.layers:
            return None
        if self.member == WAVE:
            return routing.loads(self.spread, self.layers, step, range(sum(tokens)))
        first, own = sum(tokens[: self.member]), -(-tokens[self.member] // context)
        return routing.loads(self.spread, self.layers, step, range(first, first + own))


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
    mesh: Mesh
    division: ContextDivision
    passed: tuple[AttentionColumns, ...]
    """The columns that move keys and values of prompts between context-parallel ranks."""
    portioned: bool
    """Whether prompts and decodes have columns of their own."""
    works_on_copies: NDArray[np.bool_]
    """The columns that work on the copies of tokens that reach a rank's experts."""

    @staticmethod
    def of(
        entries: Sequence[TableEntry],
        facts: Sequence[LayerFacts],
        by_request: bool,
        mesh: Mesh,
        division: ContextDivision,
    ) -> TableShape:
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
            attention=_attention_columns(entries, facts, lambda operator: operator.kind is OperatorClass.ATTENTION),
            mixtures=_mixture_columns(entries, facts),
            per_row=np.array(per_row, dtype=np.int64).T,
            row_kinds=row_kinds.T * len(entries) + np.arange(len(entries)),
            by_request=np.flatnonzero(request >= 0),
            mesh=mesh,
            division=division,
            passed=_attention_columns(entries, facts, lambda operator: operator.input_rows is Rows.OWN_KEPT),
            portioned=any(operator.portion is not Portion.ALL for operator in operators),
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
    loads = [part.loads(routing, step, tokens, shape.mesh.context) for part in shape.mixtures]
    rows_in, rows, rows_out, rows_carried = _rows(shape, batches, tokens, loads)
    flops, traffic, weight_traffic, into, weights, out, comm = shape.per_row
    mem_bytes = traffic * rows + weight_traffic
    experts = []
    for part, load in zip(shape.mixtures, loads, strict=True):
        if load is None:
            continue
        own = _expert_part(shape, part, load, rows)
        mem_bytes[own.columns] = own.mem_bytes.max(axis=1)
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
    shape: TableShape, sizes: ColumnSizes, batches: Sequence[BatchShape], together: BatchShape
) -> OperatorTable:
    """Return the operator table: static columns repeated for every step, attention by context.

    `together` are the `batches` one after another.
    """
    flops = np.empty((together.steps, len(sizes.flops)), dtype=np.int64)
    mem_bytes = np.empty_like(flops)
    flops[:], mem_bytes[:] = sizes.flops, sizes.mem_bytes
    firsts = [0, *accumulate(len(batch.request_ids) for batch in batches)]
    parts = []
    for place in shape.attention:
        first, columns, batch = firsts[place.member], place.columns, batches[place.member]
        per_request = bool(shape.request[columns[0]] >= 0)
        batch, work = (batch, place.shape.work(batch)) if per_request else _attention(shape, place, batch)
        if per_request:
            own = shape.request[columns] - first
            flops[:, columns], mem_bytes[:, columns] = work.flops[:, own], work.mem_bytes[:, own]
        else:
            flops[:, columns] = work.flops.sum(axis=1, keepdims=True)
            mem_bytes[:, columns] = work.mem_bytes.sum(axis=1, keepdims=True)
        parts.append(AttentionPart(columns, per_request, place.shape, batch, work, first))
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
        tensor=shape.mesh.tensor,
    )


def _attention(shape: TableShape, place: AttentionColumns, batch: BatchShape) -> tuple[BatchShape, AttentionWork]:
    """Return the requests of `batch` that attention works for, and their work."""
    if place.portion is Portion.ALL:
        return batch, place.shape.work(batch)
    divided = shape.division.decodes if place.portion is Portion.DECODES else shape.division.prompts
    return divided(place.shape, batch)


def _rows(
    shape: TableShape, batches: Sequence[BatchShape], tokens: Sequence[int], loads: Sequence[Loads | None]
) -> IntArray:
    """Return how many rows each column takes, works on, puts out and carries, ``[4, m]``."""
    # The last entry is found by `WAVE`: what members do together has the tokens of the largest.
    of_member = -(-np.array([*tokens, max(tokens)]) // shape.mesh.context)
    mean = ceil_div(sum(tokens), len(tokens) * shape.mesh.context)  # what is gathered is as much as all have
    logits = -(-np.array([*(batch.sampled_tokens for batch in batches), 0]) // shape.mesh.context)
    choices = np.zeros((len(Rows), len(shape.member)), dtype=np.int64)
    choices[int(Rows.TOKENS)] = of_member[shape.member]
    if shape.by_request.size:
        new_tokens = np.concatenate([batch.new_tokens for batch in batches])
        choices[int(Rows.TOKENS), shape.by_request] = new_tokens[shape.request[shape.by_request]]
    choices[int(Rows.LOGITS)] = logits[shape.member]
    choices[int(Rows.PART)] = -(-choices[int(Rows.TOKENS)] // shape.mesh.tensor)
    if shape.portioned:
        _portioned_rows(shape, batches, choices)
    for part, load in zip(shape.mixtures, loads, strict=True):
        spread, most = part.spread, of_member[part.member].item()
        choices[Rows.OWN, part.columns] = spread.own_tokens(most)
        choices[Rows.EXCHANGED, part.columns] = spread.own_copies(most)
        choices[Rows.GATHERED, part.columns] = spread.gathered_tokens(most)
        shared = mean if part.member == WAVE else most
        choices[Rows.SHARE, part.columns] = spread.own_tokens(shared)
        choices[Rows.SHARES, part.columns] = spread.gathered_tokens(shared)
        if load is not None:
            routed = load.copies.max(axis=1)[part.place]
            choices[Rows.ROUTED, part.columns] = routed
            choices[Rows.CARRIED, part.columns] = np.maximum(routed, spread.own_copies(most))
    return choices.ravel()[shape.row_kinds]


def _portioned_rows(shape: TableShape, batches: Sequence[BatchShape], choices: IntArray) -> None:
    """Fill in the rows of prompts and of decodes, and of what context-parallel ranks exchange of them."""
    ranks = shape.mesh.context
    decodes = np.array([*(batch.decode_tokens for batch in batches), 0])
    prompts = np.array([*(batch.total_tokens for batch in batches), 0]) - decodes
    choices[int(Rows.DECODES)] = decodes[shape.member]
    choices[int(Rows.OWN_DECODES)] = -(-decodes // ranks)[shape.member]
    choices[int(Rows.ALL_PARTS)] = ranks * decodes[shape.member]
    choices[int(Rows.OWN_PROMPTS)] = -(-prompts // ranks)[shape.member]
    for rows in (Rows.OWN_DECODES, Rows.OWN_PROMPTS):
        choices[int(rows), shape.by_request] = choices[int(Rows.TOKENS), shape.by_request]
    for part in shape.passed:
        kept = shape.division.kept(part.shape, batches[part.member])
        choices[int(Rows.OWN_KEPT), part.columns], choices[int(Rows.KEPT), part.columns] = kept, ranks * kept


def _expert_part(shape: TableShape, part: MixtureColumns, load: Loads, rows: IntArray) -> ExpertPart:
    """Return the work of each rank in the experts' matrices; `rows` ``[m]`` are those that columns work on."""
    columns, place = part.columns[part.grouped], part.place[part.grouped]
    # What is not worked on copy by copy is every rank's, for all ranks have all experts.
    routed = shape.works_on_copies[columns][:, None]
    worked = np.where(routed, load.copies[place], rows[columns][:, None])
    flops, traffic, weight_traffic = (values[columns][:, None] for values in shape.per_row[:3])
    weights = np.rint(weight_traffic * load.active[place]).astype(np.int64)
    return ExpertPart(
        columns,
        place,
        flops * worked,
        traffic * worked + weights,
        load.copies[place],
        part.spread.experts.per_token,
        load.active[place] * part.spread.held,
        None if load.tokens is None else load.tokens[place],
        part.spread.held,
    )


def _attention_columns(
    entries: Sequence[TableEntry], facts: Sequence[LayerFacts], wanted: Callable[[Operator], bool]
) -> tuple[AttentionColumns, ...]:
    """Return the columns of the operators `wanted`, by member, attention's shape, and requests."""
    places: dict[tuple[int, AttentionShape, Portion], list[int]] = {}
    for column, entry in enumerate(entries):
        if wanted(entry.operator):
            portion = entry.operator.portion
            key = (entry.member, facts[entry.layer_kind].shape_for(portion), portion)
            places.setdefault(key, []).append(column)
    return tuple(
        AttentionColumns(member, shape, np.array(columns, dtype=np.int64), portion)
        for (member, shape, portion), columns in places.items()
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
