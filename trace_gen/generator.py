"""Batches -> `Trace`: what every rank computes and communicates in one iteration, with latencies.

Three caches make a decode step cheap, and let readers of a trace cache by identity, because arrays that are equal
between calls are the same objects:

1. structure: which rows there are, decided by how many per-request rows and KV transfers there are;
2. sizes: bytes and communication, decided by token counts (and by the step, where routing differs by it);
3. per-request columns, decided by the request ids.

Only latencies, FLOPs and memory traffic are worked out anew; they alone depend on contexts and steps. No array of
a trace may be written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from foundation.errors import InternalError, UserError
from foundation.recent import Recent
from foundation.records import dataclass
from trace_gen.architecture import ModelArchitecture
from trace_gen.attention.divided import ContextDivision
from trace_gen.attention.work import AttentionShape
from trace_gen.batch_shape import BatchShape, KVTransfer, concatenate
from trace_gen.context import ContextMode, ContextOperators
from trace_gen.memory import ModelMemory
from trace_gen.mesh import Mesh
from trace_gen.mlp.experts import Experts
from trace_gen.mlp.routing import BalancedRouting, ExpertSpread, Routing
from trace_gen.model_operators import ModelOperators, model_operators, placed_by_request
from trace_gen.operator_table import ColumnSizes, LayerFacts, TableShape, column_sizes, operator_table
from trace_gen.operators import Operator, Portion
from trace_gen.perf_model import OperatorTable, PerfModel
from trace_gen.precision import Precision
from trace_gen.sequence import sequence_parallel as sequence_parallel_operators
from trace_gen.streamed_weights import StreamedWeights
from trace_gen.trace import NO_REQUEST, IntArray, OperatorClass, RowKind, RowWork, Trace
from trace_gen.trace_structure import MemberKey, Structure, StructureBuilder, StructureKey, TableEntry
from trace_gen.wave_check import check_wave

AttentionPlacement = Literal["heads", "requests"]
ExpertExchange = Literal["alltoall", "allgather"]
CACHE_ENTRIES = 256


@dataclass(frozen=True, slots=True, eq=False)
class _RowSizes:
    """What token counts decide: columns of the operator table, and size columns of the trace ``[n]``."""

    columns: ColumnSizes
    input_bytes: IntArray
    weight_bytes: IntArray
    output_bytes: IntArray
    comm_bytes: IntArray


class TraceGenerator:
    """Generates the traces of one instance, or of the data-parallel members of a wave.

    `architecture` stands on `mesh` and is timed by `perf_model`. `attention_placement`: ``"heads"`` divides attention
    by heads over the tensor-parallel ranks, as engines do; ``"requests"`` gives each rank whole requests (see
    `trace_gen.trace_structure`), with an all-to-all before and after unless `attention_exchange` is false
    (LLMServingSim's Orca traces have none). `expert_exchange`: how tokens reach experts on other ranks
    (`trace_gen.mlp.experts`), `routing` how many reach which (default: balanced). `context_mode`: how keys and values
    reach context-parallel ranks (`trace_gen.context`); `sequence_parallel`: tensor-parallel ranks share out the tokens
    of norms (`trace_gen.sequence`). `host_weight_bytes`: so many bytes of a rank's weights stay in host memory
    (`trace_gen.streamed_weights`). `warnings` holds what the user should know, one sentence each.
    """

    def __init__(
        self,
        architecture: ModelArchitecture,
        mesh: Mesh,
        perf_model: PerfModel,
        *,
        precision: Precision | None = None,
        attention_placement: AttentionPlacement = "heads",
        attention_exchange: bool = True,
        expert_exchange: ExpertExchange = "alltoall",
        routing: Routing | None = None,
        context_mode: ContextMode = "ring",
        sequence_parallel: bool = False,
        host_weight_bytes: int = 0,
    ) -> None:
        self.architecture, self.mesh, self.perf_model = architecture, mesh, perf_model
        self.routing = routing or BalancedRouting()
        self.precision = precision or Precision()
        self.absorption = architecture.absorption
        self.by_request = attention_placement == "requests" and mesh.tensor > 1
        if self.by_request and self.absorption is not None:
            raise UserError(
                f"{architecture.name} has latent attention, whose KV cache every rank holds",
                field="--attention_placement",
                fix="give heads",
            )
        self.memory = ModelMemory(architecture, mesh, self.precision, self.by_request)
        divided = _warnings(architecture, 1 if self.by_request else mesh.tensor)
        self.warnings = (*architecture.notes, *_told(architecture), *divided)
        self.request_rows = self.by_request or perf_model.attention_granularity == "request"
        if mesh.context > 1 and self.request_rows:
            raise UserError(
                f"{mesh.context} context-parallel ranks divide every request, but attention is "
                + ("placed by request" if self.by_request else "timed by whole requests"),
                field="--cp_size",
                fix="give 1, or attention by heads" if self.by_request else "give 1, or --perf_model roofline",
            )
        self.context_mode: ContextMode = context_mode
        self.division = ContextDivision(mesh.context, context_mode == "ring")
        self.sequence_parallel = sequence_parallel and mesh.tensor > 1
        vocabulary, gathers = perf_model.vocabulary, expert_exchange == "allgather"
        self.operators = model_operators(architecture, mesh, self.precision, vocabulary, gathers=gathers)
        if self.by_request:
            whole = model_operators(architecture, None, self.precision, vocabulary)
            self.operators = placed_by_request(self.operators, whole, vocabulary, attention_exchange)
        if mesh.context > 1:
            self.operators = self._context_parallel()
        if self.sequence_parallel:
            self.operators = sequence_parallel_operators(self.operators, vocabulary)
        self.portioned = any(operator.portion is not Portion.ALL for operator in self.operators)
        self.attributes = self._attributes(expert_exchange)
        self._facts = [self._layer_facts(kind) for kind in range(len(architecture.layer_kinds))]
        kind_of = tuple(map(architecture.layer_kinds.index, architecture.layers))
        stages = mesh.stage_layers(architecture.num_layers)
        self.streamed = StreamedWeights.of(self.operators.blocks, kind_of, stages, host_weight_bytes)
        self._builder = StructureBuilder(
            self.operators,
            mesh,
            architecture,
            by_request=self.by_request,
            by_layer=self.routing.by_layer,
            streamed=self.streamed,
        )
        self.structures: Recent[tuple[Structure, TableShape]] = Recent(CACHE_ENTRIES)
        self.sizes: Recent[_RowSizes] = Recent(CACHE_ENTRIES)
        self.request_columns: Recent[tuple[IntArray, IntArray]] = Recent(CACHE_ENTRIES)

    def generate(self, batches: Sequence[BatchShape], step: int = 0) -> Trace:
        """Return the trace of one batch for each data-parallel member; one batch is the plain case.

        `step` counts iterations: what a routing draws depends on it, and then a trace has one step.

        An idle member has a dummy batch (`trace_gen.batch_shape.dummy_batch`), as in vLLM, or an empty one; not all are
        empty, and none of several tensor-parallel ranks that share experts with other members: ASTRA-sim matches
        collectives over network dimensions by their number, so ranks that meet must have run equally many. With
        several steps, the same number for all, the trace is that of as many decode iterations.
        """
        check_wave(batches, self.mesh)
        if self.routing.by_step and batches[0].steps > 1:
            raise InternalError(f"{self.routing.name} routing differs by step: a trace has one")
        key = tuple(map(self._member_key, batches))
        structure, shape = self.structures.get(key, lambda: self._structure(key))
        step = step if self.routing.by_step else 0
        sizes = self.sizes.get(
            self._size_key(key, batches, step), lambda: self._row_sizes(structure, shape, batches, step)
        )
        request, batch_requests = self._requests(key, structure, batches)
        table = operator_table(shape, sizes.columns, batches, concatenate(batches))
        latency = self.perf_model.latency_ns(table)
        return Trace(
            op_names=structure.op_names,
            devices=structure.devices,
            rank_sets=structure.rank_sets,
            groups=structure.groups,
            group_parts=structure.group_parts,
            batch_requests=batch_requests,
            op=structure.op,
            operator_class=structure.operator_class,
            kind=structure.kind,
            device=structure.device,
            layer=structure.layer,
            stage=structure.stage,
            rank_set=structure.rank_set,
            request=request,
            sub_batch=structure.sub_batch,
            work=_row_work(structure, latency * shape.computes, table),
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

    def structure(self, batches: Sequence[BatchShape]) -> tuple[Structure, TableShape]:
        """Return the rows of the trace of `batches` without their sizes, and what these are worked out by."""
        key = tuple(map(self._member_key, batches))
        return self.structures.get(key, lambda: self._structure(key))

    def table_shape(self, entries: Sequence[TableEntry]) -> TableShape:
        """Return the shape of an operator table of the columns `entries`."""
        return TableShape.of(entries, self._facts, self.by_request, self.mesh, self.division)

    def attention_shapes(self) -> dict[AttentionShape, IntArray]:
        """Return each shape of attention on one rank, and how many layers of each stage have it, ``[stages]``."""
        kinds, found = self.architecture.layer_kinds, dict[AttentionShape, IntArray]()
        for stage, layers in enumerate(self.mesh.stage_layers(self.architecture.num_layers)):
            for layer in layers:
                shape = self._facts[kinds.index(self.architecture.layers[layer])].shape_for(Portion.ALL)
                found.setdefault(shape, np.zeros(self.mesh.pipeline, dtype=np.int64))[stage] += 1
        return found

    def launches(self) -> tuple[int, ...]:
        """Return how many operators each stage launches for one batch whose attention is one row."""
        kinds = self.architecture.layer_kinds
        blocks = [_launched(self.operators.blocks[kinds.index(layer)]) for layer in self.architecture.layers]
        stages = self.mesh.stage_layers(self.architecture.num_layers)
        found = [sum(blocks[layer] for layer in layers) for layers in stages]
        found[0] += _launched(self.operators.head)
        found[-1] += _launched(self.operators.tail)
        return tuple(found)

    def _attributes(self, expert_exchange: ExpertExchange) -> dict[str, str]:
        mesh = self.mesh
        facts = {
            "model": self.architecture.name,
            "tensor_parallel": str(mesh.tensor),
            "pipeline_parallel": str(mesh.pipeline),
            "vocabulary": self.perf_model.vocabulary.name,
            "attention_placement": "requests" if self.by_request else "heads",
            "latency_source": self.perf_model.latency_source,
        }
        quantized = self.architecture.quantization
        if quantized is not None and quantized.online:
            facts["quantization"] = quantized.method
        if self.absorption not in (None, "auto"):
            facts["mla"] = str(self.absorption)
        if self.architecture.mixtures:
            facts["expert_parallel"] = str(mesh.expert)
        if mesh.data > 1:
            facts["data_parallel"] = str(mesh.data)
        if mesh.context > 1:
            facts |= {"context_parallel": str(mesh.context), "context_mode": self.context_mode}
        if mesh.layers:
            facts["pipeline_layers"] = ",".join(map(str, mesh.layers))
        if self.sequence_parallel:
            facts["sequence_parallel"] = "norms"
        if mesh.expert > 1 and expert_exchange != "alltoall":
            facts["expert_exchange"] = expert_exchange
        if self.routing.name != BalancedRouting.name:
            facts["expert_routing"] = self.routing.name
        if mesh.redundant_experts:
            facts["redundant_experts"] = str(mesh.redundant_experts)
        return facts

    def _context_parallel(self) -> ModelOperators:
        """Return the operators with attention divided over context-parallel ranks."""
        make = ContextOperators(self.mesh.context, self.context_mode, self.perf_model.vocabulary, self.precision)
        shapes = [kind.attention.shapes(self.mesh.tensor, self.precision) for kind in self.architecture.layer_kinds]
        blocks = (make.block(block, shape) for block, shape in zip(self.operators.blocks, shapes, strict=True))
        return replace(self.operators, blocks=tuple(blocks))

    def _layer_facts(self, kind: int) -> LayerFacts:
        layer, mesh = self.architecture.layer_kinds[kind], self.mesh
        attention = layer.attention.shapes(1 if self.by_request else mesh.tensor, self.precision)
        if not isinstance(layer.mlp, Experts):
            return LayerFacts(attention, None)
        return LayerFacts(attention, ExpertSpread(layer.mlp, mesh.expert, mesh.tensor, mesh.redundant_experts))

    def _member_key(self, batch: BatchShape) -> MemberKey:
        requests = len(batch.request_ids)
        return MemberKey(
            requests if self.request_rows else 0,
            requests > 0,
            batch.sampled_tokens > 0,
            len(batch.kv_loads),
            len(batch.kv_evictions),
            self._portions(batch) if self.portioned else (),
        )

    def _portions(self, batch: BatchShape) -> tuple[Portion, ...]:
        """Return what the requests of `batch` are; see `MemberKey`."""
        found = [Portion.DECODES if decodes else Portion.PROMPTS for decodes in batch.decoding.tolist()]
        return tuple(found if self.request_rows else sorted(set(found)))

    def _structure(self, key: StructureKey) -> tuple[Structure, TableShape]:
        structure = self._builder.build(key)
        return structure, self.table_shape(structure.entries)

    def _size_key(self, key: StructureKey, batches: Sequence[BatchShape], step: int) -> tuple[object, ...]:
        """Return all that the sizes of the rows of `key` depend on."""
        tokens = [
            (
                batch.total_tokens,
                batch.sampled_tokens,
                batch.new_tokens.tobytes() if self.request_rows else b"",
                batch.decode_tokens if self.portioned else 0,
                *(self._passed(batch) if self.mesh.context > 1 else ()),
            )
            for batch in batches
        ]
        return (key, step, *tokens, *(transfer.bytes for transfer in _transfers(batches)))

    def _passed(self, batch: BatchShape) -> tuple[int, ...]:
        """Return what of the sizes of a divided batch no count of tokens tells: what its prompts pass on."""
        return tuple(self.division.kept(fact.shape_for(Portion.PROMPTS), batch) for fact in self._facts)

    def _row_sizes(
        self, structure: Structure, shape: TableShape, batches: Sequence[BatchShape], step: int
    ) -> _RowSizes:
        """Work out the sizes of every table column, and gather them for every row of the trace."""
        columns = column_sizes(shape, batches, self.routing, step)
        loaded, stored = self._moved(structure, batches) if structure.transfer_rows else (None, None)
        return _RowSizes(
            columns,
            input_bytes=_gather(columns.input_bytes, structure, loaded),
            weight_bytes=_gather(columns.weight_bytes, structure),
            output_bytes=_gather(columns.output_bytes, structure, stored),
            comm_bytes=_gather(columns.comm_bytes, structure),
        )

    def _moved(self, structure: Structure, batches: Sequence[BatchShape]) -> tuple[IntArray, IntArray]:
        """Return the bytes that each row of a KV transfer loads, and stores, on each rank of its member's stage."""
        transfers = _transfers(batches)
        stages = structure.stage[: structure.transfer_rows]
        share = [
            self.memory.transfer_share(transfers[index].bytes, int(stage))
            for index, stage in zip(structure.transfer, stages, strict=True)
        ]
        moved = np.array(share, dtype=np.int64)
        is_load = structure.kind[: structure.transfer_rows] == RowKind.MEM_LOAD
        return np.where(is_load, moved, 0), np.where(is_load, 0, moved)

    def _requests(
        self, key: StructureKey, structure: Structure, batches: Sequence[BatchShape]
    ) -> tuple[IntArray, IntArray]:
        """Return each row's request and the requests of the batches, the same arrays for the same requests."""
        moved = tuple(transfer.request_id for transfer in _transfers(batches))
        ids = concatenate(batches).request_ids
        return self.request_columns.get(
            (key, ids.tobytes(), moved), lambda: (_request_column(structure, ids, moved), ids[ids != NO_REQUEST])
        )


def _told(architecture: ModelArchitecture) -> tuple[str, ...]:
    """Return what a quantised checkpoint's numbers are taken for, if it is one."""
    quantized = architecture.quantization
    return () if quantized is None else (f"{architecture.name} is quantised: {quantized.described}",)


def _warnings(architecture: ModelArchitecture, tensor: int) -> tuple[str, ...]:
    """Return what a user should know about dividing `architecture` by `tensor`, one sentence each."""
    told = [text for kind in architecture.layer_kinds for text in kind.attention.warnings(tensor)]
    return tuple(f"{architecture.name} has {text}" for text in dict.fromkeys(told))


def _launched(operators: Sequence[Operator]) -> int:
    return sum(operator.kind is not OperatorClass.COMMUNICATION for operator in operators)


def _transfers(batches: Sequence[BatchShape]) -> tuple[KVTransfer, ...]:
    """Return the KV transfers of a wave in the order of its rows: loads, then evictions, member by member."""
    return tuple(transfer for batch in batches for transfer in (*batch.kv_loads, *batch.kv_evictions))


def _row_work(structure: Structure, latency: IntArray, table: OperatorTable) -> RowWork:
    """Return the work of the rows by column of the table; that of KV transfers, behind its end, is nothing."""
    tables = [latency, table.flops, table.mem_bytes]
    if structure.transfer_rows:
        none = np.zeros((len(latency), 1), dtype=np.int64)
        tables = [np.concatenate((values, none), axis=1) for values in tables]
    return RowWork(structure.column, *tables)


def _gather(values: IntArray, structure: Structure, front: IntArray | None = None) -> IntArray:
    """Gather ``[m]`` into rows of the trace; `front` are the values of the KV transfers' rows (default 0)."""
    result: IntArray = np.append(values, 0)[structure.column]
    if front is not None:
        result[: structure.transfer_rows] = front
    return result


def _request_column(structure: Structure, ids: IntArray, moved: tuple[int, ...]) -> IntArray:
    column = np.where(structure.position >= 0, ids[structure.position], NO_REQUEST)
    column[: structure.transfer_rows] = np.array(moved, dtype=np.int64)[structure.transfer]
    return column
