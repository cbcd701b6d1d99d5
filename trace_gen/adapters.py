"""LoRA adapters: what a step computes for the requests that have one, and the memory of their slots.

An adapter (arXiv 2106.09685) adds to a projection of x the product x A B, where A has `rank` columns. Engines compute
it for all adapters of a batch at once, by two kernels for each input (vLLM's `lora_shrink` and `lora_expand`,
vllm/lora/ops/triton_ops): one multiplies every token by its own A, into 32-bit numbers, the other by its B and adds to
what the projection put out. Every A and B that the batch needs is read once.

Over tensor-parallel ranks (vLLM's default, `fully_sharded_loras` off) B is divided where the projection's outputs are,
A where its inputs are; the other is whole on every rank. Adapted are the projections of attention and of MLPs that
every token goes through; routers, experts and the LM head are not.
"""

from __future__ import annotations

import numpy as np

from foundation.recent import Recent
from foundation.records import dataclass
from trace_gen.architecture import ModelArchitecture
from trace_gen.batch_shape import dummy_batch
from trace_gen.mesh import Mesh
from trace_gen.model_operators import model_operators
from trace_gen.operators import Operator
from trace_gen.perf_model import WHOLE_BATCH, OperatorTable, PerfModel
from trace_gen.precision import Precision, ceil_div
from trace_gen.trace import IntArray, OperatorClass
from trace_gen.vocabulary import FUSED, SPLIT

ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "fc1", "fc2")
INNER_BYTES = 4
"""Between the two kernels numbers have 32 bits."""
_KEPT = 256


@dataclass(frozen=True, slots=True)
class _Input:
    """The projections of one input on one rank: elements that go in, and those that come out of each."""

    inputs: int
    outputs: tuple[int, ...]


class AdapterWork:
    """The work of adapters of `rank` for `architecture` on `mesh`, timed by `perf_model`."""

    def __init__(
        self, architecture: ModelArchitecture, mesh: Mesh, perf_model: PerfModel, precision: Precision, rank: int
    ) -> None:
        self._perf_model, self._precision, self._rank = perf_model, precision, rank
        self._tensor, self._context = mesh.tensor, mesh.context
        blocks = model_operators(architecture, mesh, precision, SPLIT).blocks
        kinds = [_inputs(block, precision) for block in blocks]
        self._inputs = [one for kind in kinds for one in kind]
        place = {layer: number for number, layer in enumerate(architecture.layer_kinds)}
        stages = mesh.stage_layers(architecture.num_layers)
        self._repeats = np.array(
            [
                [sum(place[architecture.layers[index]] == kind for index in stage) for kind, _ in self._of_kind(kinds)]
                for stage in stages
            ],
            dtype=np.int64,
        )
        self._known: Recent[IntArray] = Recent(_KEPT)

    def slot_bytes(self, stage: int) -> int:
        """Return the bytes of one adapter on each rank of `stage`."""
        sizes = [self._rank * (len(one.outputs) * one.inputs + sum(one.outputs)) for one in self._inputs]
        parameters = int(self._repeats[stage] @ np.array(sizes, dtype=np.int64))
        return self._precision.weight_bytes(parameters)

    def stage_ns(self, tokens: int, adapters: int) -> IntArray:
        """Return the time on each stage, ``[stages]``, for `tokens` of requests with `adapters` different adapters."""
        if not tokens:
            return np.zeros(len(self._repeats), dtype=np.int64)
        own = ceil_div(tokens, self._context)
        return self._known.get((own, adapters), lambda: self._stage_ns(own, adapters))

    def _stage_ns(self, tokens: int, adapters: int) -> IntArray:
        latency = self._perf_model.latency_ns(self._table(tokens, adapters))[0]
        spent: IntArray = self._repeats @ latency.reshape(len(self._inputs), 2).sum(axis=1)
        return spent

    def _table(self, tokens: int, adapters: int) -> OperatorTable:
        """Return the two kernels of each input as a table of operators."""
        count, rank, precision = 2 * len(self._inputs), self._rank, self._precision
        flops, moved = [], []
        for one in self._inputs:
            inner, out = rank * len(one.outputs), sum(one.outputs)
            flops += [2 * tokens * one.inputs * inner, 2 * tokens * rank * out]
            between = tokens * inner * INNER_BYTES
            down, up = adapters * one.inputs * inner, adapters * rank * out
            moved.append(precision.weight_bytes(down) + precision.activation_bytes(tokens * one.inputs) + between)
            moved.append(precision.weight_bytes(up) + between + 2 * precision.activation_bytes(tokens * out))
        return OperatorTable(
            names=("lora_shrink", "lora_expand") * len(self._inputs),
            kinds=np.full(count, int(OperatorClass.GEMM), dtype=np.int8),
            arithmetic=np.full(count, int(precision.arithmetic), dtype=np.int8),
            rows=np.full(count, tokens, dtype=np.int64),
            request=np.full(count, WHOLE_BATCH, dtype=np.int64),
            whole=np.zeros(count, dtype=np.bool_),
            flops=np.array([flops], dtype=np.int64),
            mem_bytes=np.array([moved], dtype=np.int64),
            attention=(),
            experts=(),
            batch=dummy_batch(),
            tensor=self._tensor,
        )

    @staticmethod
    def _of_kind(kinds: list[list[_Input]]) -> list[tuple[int, _Input]]:
        """Return every input with its kind of layer."""
        return [(number, one) for number, kind in enumerate(kinds) for one in kind]


def _inputs(block: tuple[Operator, ...], precision: Precision) -> list[_Input]:
    """Return the adapted projections of a layer, those of one input together."""
    found: dict[str, list[Operator]] = {}
    for row in block:
        if row.name in ADAPTED:
            found.setdefault(FUSED.of(row.name), []).append(row)
    return [
        _Input(_elements(rows[0].input_bytes, precision), tuple(_elements(row.output_bytes, precision) for row in rows))
        for rows in found.values()
    ]


def _elements(size: int, precision: Precision) -> int:
    return size * 8 // precision.activation_bits
