"""What an operator is, as data: what each row of a trace computes, reads and writes, a row of input.

Which operators a model has is in `trace_gen.model_operators`. Sizes are per rank. Floating-point operations: 2 a
multiply-add; element-wise operators are counted with the few operations an element they need, which never decides their
time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from trace_gen.sharding import Precision
from trace_gen.trace import CommType

Vocabulary = Literal["fused", "split"]
TOKEN_ID_BYTES = 4
"""Token ids go in and out as 32-bit integers."""

NORM_FLOPS, ROTARY_FLOPS, ACTIVATION_FLOPS, SAMPLER_FLOPS = 5, 3, 5, 5
"""Operations an element of element-wise operators."""
QK_NORM_PASSES = 2
"""Norms of single heads move twice their bytes' worth of time: rows of `head_dim` elements are too short to stream."""


class OperatorClass(IntEnum):
    """What limits an operator: performance models have one efficiency a class."""

    GEMM = 0
    ATTENTION = 1
    ELEMENTWISE = 2
    EMBEDDING = 3
    SAMPLER = 4
    EXCHANGE = 5
    """No computation: only its collective."""
    GROUPED_GEMM = 6
    """Matrices of several experts at once; only the weights of experts that have tokens are read."""


class Rows(IntEnum):
    """What an operator has a row for.

    Every token of the batch; every sequence whose logits are needed; every copy of a token that this rank's experts
    work on; every token of the share that this rank sends to the experts (see `trace_gen.expert_routing`).
    """

    TOKENS = 0
    LOGITS = 1
    ROUTED = 2
    OWN = 3


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator on one rank. Byte counts and FLOPs are for each row; `weight_bytes` once.

    - `sources`: the operators of the same iteration whose outputs are its input (empty: the input of the
      iteration; ``"residual"``: the output of the last row before it that carries the hidden state).
    - `traffic_bytes`: device memory read and written for each row beside the weights (`weight_traffic_bytes`).
    - `per_request`: a row of its own for each request, even where attention is one row a batch.
    - `communication`: the collective after it, of `comm_bytes` for each row of `comm_rows`.
    Attention's FLOPs and KV traffic depend on contexts: see `trace_gen.attention_work`.
    """

    name: str
    kind: OperatorClass
    sources: tuple[str, ...]
    input_bytes: int
    output_bytes: int
    weight_bytes: int = 0
    weight_traffic_bytes: int = 0
    flops: int = 0
    traffic_bytes: int = 0
    input_rows: Rows = Rows.TOKENS
    output_rows: Rows = Rows.TOKENS
    communication: CommType = CommType.NONE
    comm_bytes: int = 0
    per_request: bool = False

    @property
    def comm_rows(self) -> Rows:
        """What its collective has a row for: of an all-gather, a rank's own part."""
        return self.input_rows if self.communication is CommType.ALLGATHER else self.output_rows


@dataclass(frozen=True, slots=True)
class Operators:
    """The operators of a model on one rank: before the blocks, one block, after the blocks."""

    head: tuple[Operator, ...]
    block: tuple[Operator, ...]
    tail: tuple[Operator, ...]


def linear(
    precision: Precision,
    name: str,
    source: str,
    inputs: int,
    outputs: int,
    bias: bool = False,
    rows: Rows = Rows.TOKENS,
    communication: CommType = CommType.NONE,
) -> Operator:
    """Return a projection of `inputs` to `outputs` elements; a collective after it carries its output."""
    into, out = precision.activation_bytes(inputs), precision.activation_bytes(outputs)
    weights = precision.weight_bytes(inputs * outputs + outputs * bias)
    return Operator(
        name,
        OperatorClass.GEMM,
        (source,),
        into,
        out,
        weight_bytes=weights,
        weight_traffic_bytes=weights,
        flops=2 * inputs * outputs + outputs * bias,
        traffic_bytes=into + out,
        input_rows=rows,
        output_rows=rows,
        communication=communication,
        comm_bytes=out if communication is not CommType.NONE else 0,
    )


def elementwise(
    precision: Precision,
    name: str,
    source: str,
    inputs: int,
    outputs: int,
    flops: int,
    parameters: int = 0,
    extra: int = 0,
    rows: Rows = Rows.TOKENS,
) -> Operator:
    """Return an element-wise operator; `extra` counts elements read and written beside input and output."""
    into, out = precision.activation_bytes(inputs), precision.activation_bytes(outputs)
    weights = precision.weight_bytes(parameters)
    return Operator(
        name,
        OperatorClass.ELEMENTWISE,
        (source,),
        into,
        out,
        weight_bytes=weights,
        weight_traffic_bytes=weights,
        flops=flops * max(inputs, outputs),
        traffic_bytes=into + out + precision.activation_bytes(extra),
        input_rows=rows,
        output_rows=rows,
    )


def exchange_row(
    name: str,
    sources: tuple[str, ...],
    width: int,
    communication: CommType = CommType.ALLTOALL,
    input_rows: Rows = Rows.TOKENS,
    output_rows: Rows = Rows.TOKENS,
) -> Operator:
    """Return a row that only communicates: `width` bytes a row go in, come out and are carried."""
    return Operator(
        name,
        OperatorClass.EXCHANGE,
        sources,
        input_bytes=width,
        output_bytes=width,
        input_rows=input_rows,
        output_rows=output_rows,
        communication=communication,
        comm_bytes=width,
    )


def is_per_request(operator: Operator) -> bool:
    """Whether `operator` has a row for each request where attention has."""
    return operator.per_request or operator.kind is OperatorClass.ATTENTION
