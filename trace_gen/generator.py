"""Batch -> `Trace`: what every rank computes and communicates in one iteration, with latencies.

Three caches make a decode step cheap, and let readers of a trace cache by identity, because arrays that are equal
between calls are the same objects:

1. structure: which rows there are, decided by how many per-request rows and KV transfers there are;
2. sizes: bytes and communication, decided by token counts;
3. per-request columns, decided by the request ids.

Only latencies, FLOPs and memory traffic are worked out anew; they alone depend on contexts and steps. No array of
a trace may be written to.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InternalError
from trace_gen.architecture import ModelArchitecture
from trace_gen.attention_work import AttentionShape, attention_work
from trace_gen.batch_shape import BatchShape, KVTransfer
from trace_gen.expert_routing import ExpertRouting
from trace_gen.memory_layout import MemoryLayout
from trace_gen.model_operators import model_operators, placed_by_request
from trace_gen.operators import Operator, OperatorClass, Rows
from trace_gen.parallelism import Parallelism
from trace_gen.perf_model import OperatorTable, PerfModel
from trace_gen.sharding import Precision, shard, shard_warnings
from trace_gen.trace import NO_REQUEST, IntArray, Trace
from trace_gen.trace_structure import Structure, StructureBuilder, StructureKey

AttentionPlacement = Literal["heads", "requests"]
CACHE_ENTRIES = 256
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What token counts decide: static columns of the operator table ``[m]`` and size columns of the trace ``[n]``."""

    rows: IntArray
    flops: IntArray
    mem_bytes: IntArray
    input_bytes: IntArray
    weight_bytes: IntArray
    output_bytes: IntArray
    comm_bytes: IntArray


@dataclass(frozen=True, slots=True)
class _TableShape:
    """What the structure alone decides of the operator table, and where attention stands in it."""

    names: tuple[str, ...]
    kinds: NDArray[np.int8]
    request: IntArray
    whole: NDArray[np.bool_]
    computes: NDArray[np.bool_]
    attention: IntArray
    per_row: IntArray
    """``[7, m]``: bytes and FLOPs a row, see `_per_row`."""
    grouped: NDArray[np.bool_]
    row_kinds: IntArray
    """``[3, m]``: the `Rows` of input, output and collective."""


class TraceGenerator:
    """Generates the traces of one instance: `architecture` on `parallelism`, timed by `perf_model`.

    `attention_placement`: ``"heads"`` divides attention by heads over the tensor-parallel ranks, as engines do;
    ``"requests"`` gives each rank whole requests (see `trace_gen.trace_structure`), with an all-to-all before and
    after unless `attention_exchange` is false (LLMServingSim's Orca traces have none).
    `warnings` holds what the user should know, one sentence each.
    """

    def __init__(
        self,
        architecture: ModelArchitecture,
        parallelism: Parallelism,
        perf_model: PerfModel,
        *,
        precision: Precision | None = None,
        attention_placement: AttentionPlacement = "heads",
        attention_exchange: bool = True,
    ) -> None:
        self.architecture, self.parallelism, self.perf_model = architecture, parallelism, perf_model
        self.precision = precision or Precision()
        self.by_request = attention_placement == "requests" and parallelism.tensor > 1
        self.layout = MemoryLayout(architecture, parallelism, self.precision, self.by_request)
        self.warnings = () if self.by_request else shard_warnings(architecture, parallelism.tensor)
        experts = architecture.experts
        self.routing = None if experts is None else ExpertRouting(experts, parallelism.expert)
        self.operators = model_operators(
            architecture, parallelism.tensor, self.precision, perf_model.vocabulary, parallelism.expert
        )
        if self.by_request:
            whole = model_operators(architecture, 1, self.precision, perf_model.vocabulary)
            self.operators = placed_by_request(self.operators, whole, attention_exchange)
        self.attention = self._attention_shape()
        self.request_rows = self.by_request or perf_model.attention_granularity == "request"
        self.attributes = {
            "model": architecture.name,
            "tensor_parallel": str(parallelism.tensor),
            "pipeline_parallel": str(parallelism.pipeline),
            "vocabulary": perf_model.vocabulary,
            "attention_placement": "requests" if self.by_request else "heads",
            "latency_source": perf_model.latency_source,
        }
        if experts is not None:
            self.attributes["expert_parallel"] = str(parallelism.expert)
        self._builder = StructureBuilder(
            self.operators, parallelism, architecture.num_layers, by_request=self.by_request
        )
        self._structures: OrderedDict[Hashable, tuple[Structure, _TableShape]] = OrderedDict()
        self._sizes: OrderedDict[Hashable, _Sizes] = OrderedDict()
        self._requests: OrderedDict[Hashable, tuple[IntArray, IntArray]] = OrderedDict()

    def generate(self, batch: BatchShape) -> Trace:
        """Return the trace of `batch`; with ``batch.steps`` > 1 of that many decode iterations at once."""
        _check(batch)
        key = StructureKey(
            requests=len(batch.request_ids) if self.request_rows else 0,
            has_logits=batch.sampled_tokens > 0,
            loads=len(batch.kv_loads),
            evictions=len(batch.kv_evictions),
        )
        structure, shape = _cached(self._structures, key, lambda: self._structure(key))
        size_key = (
            key,
            batch.total_tokens,
            batch.sampled_tokens,
            batch.new_tokens.tobytes() if self.request_rows else b"",
            tuple(transfer.bytes for transfer in (*batch.kv_loads, *batch.kv_evictions)),
        )
        sizes = _cached(self._sizes, size_key, lambda: self._size_columns(structure, shape, batch))
        transfers = (*batch.kv_loads, *batch.kv_evictions)
        request_key = (key, batch.request_ids.tobytes(), tuple(transfer.request_id for transfer in transfers))
        requests, batch_requests = _cached(
            self._requests, request_key, lambda: (_request_column(structure, batch), batch.request_ids.copy())
        )
        table = self._table(shape, sizes, batch)
        latency = self.perf_model.latency_ns(table, batch)
        return Trace(
            op_names=structure.op_names,
            rank_sets=structure.rank_sets,
            groups=structure.groups,
            batch_requests=batch_requests,
            op=structure.op,
            kind=structure.kind,
            layer=structure.layer,
            stage=structure.stage,
            rank_set=structure.rank_set,
            request=requests,
            sub_batch=structure.sub_batch,
            latency_ns=_spread(latency * shape.computes, structure),
            flops=_spread(table.flops, structure),
            mem_bytes=_spread(table.mem_bytes, structure),
            input_loc=structure.input_loc,
            input_node=structure.node,
            input_bytes=sizes.input_bytes,
            weight_loc=structure.weight_loc,
            weight_node=structure.node,
            weight_bytes=sizes.weight_bytes,
            output_loc=structure.output_loc,
            output_node=structure.node,
            output_bytes=sizes.output_bytes,
            comm_type=structure.comm_type,
            comm_bytes=sizes.comm_bytes,
            comm_group=structure.comm_group,
            dep_offsets=structure.dep_offsets,
            dep_rows=structure.dep_rows,
            attributes=self.attributes,
        )

    def _attention_shape(self) -> AttentionShape:
        part = shard(self.architecture, 1 if self.by_request else self.parallelism.tensor)
        return AttentionShape(
            query_elements=part.query,
            kv_elements=part.kv,
            query_bytes=self.precision.activation_bytes(part.query),
            kv_bytes=2 * self.precision.kv_bytes(part.kv),
            window=self.architecture.sliding_window,
        )

    def _structure(self, key: StructureKey) -> tuple[Structure, _TableShape]:
        structure = self._builder.build(key)
        operators = [entry.operator for entry in structure.entries]
        request = np.array([entry.request for entry in structure.entries], dtype=np.int64)
        kinds = np.array([operator.kind for operator in operators], dtype=np.int8)
        per_row = [_per_row(operator) for operator in operators]
        shape = _TableShape(
            names=tuple(operator.name for operator in operators),
            kinds=kinds,
            request=request,
            whole=(request >= 0) & self.by_request,
            computes=kinds != OperatorClass.EXCHANGE,
            attention=np.flatnonzero(kinds == OperatorClass.ATTENTION),
            per_row=np.array(per_row, dtype=np.int64).T,
            grouped=kinds == OperatorClass.GROUPED_GEMM,
            row_kinds=np.array([(o.input_rows, o.output_rows, o.comm_rows) for o in operators], dtype=np.int64).T,
        )
        return structure, shape

    def _size_columns(self, structure: Structure, shape: _TableShape, batch: BatchShape) -> _Sizes:
        """Work out the sizes of every table column, and gather them for every row of the trace."""
        rows, rows_out, rows_carried = self._rows(shape, batch)
        flops, traffic, weight_traffic, into, weights, out, comm = shape.per_row
        if self.routing is not None:
            read = weight_traffic * self.routing.activated_share(batch.total_tokens)
            weight_traffic = np.where(shape.grouped, np.rint(read).astype(np.int64), weight_traffic)
        transfers = (*batch.kv_loads, *batch.kv_evictions)
        moved_in, moved_out = self._moved(structure, transfers, len(batch.kv_loads))
        return _Sizes(
            rows=rows,
            flops=flops * rows,
            mem_bytes=traffic * rows + weight_traffic,
            input_bytes=_gather(into * rows, structure, moved_in),
            weight_bytes=_gather(weights, structure),
            output_bytes=_gather(out * rows_out, structure, moved_out),
            comm_bytes=_gather(comm * rows_carried, structure),
        )

    def _rows(self, shape: _TableShape, batch: BatchShape) -> IntArray:
        """Return how many rows each table column takes, puts out and carries, ``[3, m]``."""
        total = batch.total_tokens
        tokens = np.where(shape.request >= 0, batch.new_tokens[shape.request], total)
        choices = np.empty((len(Rows), len(tokens)), dtype=np.int64)
        choices[Rows.TOKENS] = tokens
        choices[Rows.LOGITS] = batch.sampled_tokens
        choices[Rows.ROUTED] = self.routing.copies(total) if self.routing else 0
        choices[Rows.OWN] = self.routing.own_tokens(total) if self.routing else 0
        rows: IntArray = choices[shape.row_kinds, np.arange(len(tokens))]
        return rows

    def _moved(self, structure: Structure, transfers: tuple[KVTransfer, ...], loads: int) -> tuple[IntArray, IntArray]:
        """Return the bytes that each row of a KV transfer loads, and stores, on each rank of its stage."""
        stages = structure.stage[: structure.transfer_rows]
        share = [
            self.layout.transfer_share(transfers[index].bytes, int(stage))
            for index, stage in zip(structure.transfer, stages, strict=True)
        ]
        moved, is_load = np.array(share, dtype=np.int64), structure.transfer < loads
        return np.where(is_load, moved, 0), np.where(is_load, 0, moved)

    def _table(self, shape: _TableShape, sizes: _Sizes, batch: BatchShape) -> OperatorTable:
        """Return the operator table: static columns repeated for every step, attention by context."""
        flops = np.repeat(sizes.flops[None, :], batch.steps, axis=0)
        mem_bytes = np.repeat(sizes.mem_bytes[None, :], batch.steps, axis=0)
        work = attention_work(self.attention, batch)
        if self.request_rows:
            flops[:, shape.attention] = work.flops[:, shape.request[shape.attention]]
            mem_bytes[:, shape.attention] = work.mem_bytes[:, shape.request[shape.attention]]
        else:
            flops[:, shape.attention] = work.flops.sum(axis=1, keepdims=True)
            mem_bytes[:, shape.attention] = work.mem_bytes.sum(axis=1, keepdims=True)
        return OperatorTable(
            names=shape.names,
            kinds=shape.kinds,
            rows=sizes.rows,
            request=shape.request,
            whole=shape.whole,
            flops=flops,
            mem_bytes=mem_bytes,
            work=work,
            tensor=self.parallelism.tensor,
            attention=self.attention,
        )


def _per_row(row: Operator) -> tuple[int, ...]:
    """Return an operator's FLOPs and traffic for each input row, and its bytes, in the order `_size_columns` takes."""
    computed = (row.flops, row.traffic_bytes, row.weight_traffic_bytes)
    return (*computed, row.input_bytes, row.weight_bytes, row.output_bytes, row.comm_bytes)


def _check(batch: BatchShape) -> None:
    if not len(batch.request_ids) or batch.total_tokens < 1 or batch.new_tokens.min() < 1:
        raise InternalError("a batch to trace has at least one request, and each computes at least one token")
    if ((batch.samples < 0) | (batch.samples > batch.new_tokens)).any():
        raise InternalError("a request samples at least none and at most all of the tokens it computes")
    if batch.steps > 1 and not (batch.total_tokens == len(batch.request_ids) and (batch.samples == 1).all()):
        raise InternalError("a batch of several steps holds decodes only")


def _spread(table: IntArray, structure: Structure) -> IntArray:
    """Gather columns of ``[k, m]`` into rows of the trace ``[k, n]``; the rows of KV transfers get 0."""
    steps = table.shape[0]
    result = np.empty((steps, len(structure.column)), dtype=np.int64)
    result[:, : structure.transfer_rows] = 0
    for run in structure.runs:
        rows = result[:, run.row : run.row + run.width * run.repeats]
        block = table[:, None, run.column : run.column + run.width]
        # Splitting an axis in two never copies, so this writes into `result`.
        rows.reshape(steps, run.repeats, run.width)[...] = block
    return result


def _gather(values: IntArray, structure: Structure, front: IntArray | None = None) -> IntArray:
    """Gather ``[m]`` into rows of the trace; `front` are the values of the KV transfers' rows (default 0)."""
    result: IntArray = np.append(values, 0)[structure.column]
    if front is not None:
        result[: structure.transfer_rows] = front
    return result


def _request_column(structure: Structure, batch: BatchShape) -> IntArray:
    column = np.where(structure.position >= 0, batch.request_ids[structure.position], NO_REQUEST)
    transfers = [transfer.request_id for transfer in (*batch.kv_loads, *batch.kv_evictions)]
    column[: structure.transfer_rows] = np.array(transfers, dtype=np.int64)[structure.transfer]
    return column


def _cached(cache: OrderedDict[Hashable, Value], key: Hashable, make: Callable[[], Value]) -> Value:
    """Return `cache[key]`, making it if needed and dropping the least recently used beyond `CACHE_ENTRIES`."""
    found = cache.get(key)
    if found is not None:
        cache.move_to_end(key)
        return found
    made = make()
    cache[key] = made
    if len(cache) > CACHE_ENTRIES:
        cache.popitem(last=False)
    return made
