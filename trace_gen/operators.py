"""What an operator is, as data: what each row of a trace computes, reads and writes, a row of input; and their maker.

Which operators a model has is in `trace_gen.model_operators`, `trace_gen.attention` and `trace_gen.mlp`. Sizes are per
rank. Floating-point operations: 2 a multiply-add; element-wise operators are counted with the few operations an element
they need, which never decides their time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Literal

from foundation.records import dataclass
from trace_gen.precision import Arithmetic, Precision
from trace_gen.quantization import Scheme, Schemes
from trace_gen.trace import CommType, OperatorClass
from trace_gen.vocabulary import Vocabulary

TOKEN_ID_BYTES = 4
"""Token ids go in and out as 32-bit integers."""

SCALE_FLOPS, ADD_FLOPS, CAP_FLOPS = 1, 1, 3
NORM_FLOPS, ROTARY_FLOPS, ACTIVATION_FLOPS, SAMPLER_FLOPS = 5, 3, 5, 5
"""Operations an element of element-wise operators."""
SHARED_INPUTS = frozenset({"o_proj", "down_proj", "fc2", "expert_down_proj", "shared_down_proj"})
"""Roles whose inputs tensor-parallel ranks share: the outputs are partial sums."""
Axis = Literal["tp", "cp"]
RESIDUAL = "residual"
"""As a source: the output of the last row before it that carries the hidden state."""


class Rows(IntEnum):
    """What an operator has a row for. With whole experts on ranks see `trace_gen.mlp.experts`.

    Of a batch that is divided over context-parallel ranks, tokens and logits are those of one rank, rounded up.
    Of operators that the members of a wave run together, tokens are those of the largest member: their collectives need
    equal sizes on every rank.
    """

    TOKENS = 0
    """Every token of the batch."""
    LOGITS = 1
    """Every token whose logits are needed."""
    ROUTED = 2
    """Every copy of a token that this rank's experts work on."""
    OWN = 3
    """Every token of the share that this rank sends to the experts."""
    EXCHANGED = 4
    """Every copy of a token that this rank sends to the experts and gets back."""
    GATHERED = 5
    """Every token of the shares of all ranks."""
    PART = 6
    """Every token of the share of one tensor-parallel rank, where norms are sequence-parallel."""
    DECODES = 7
    """Every token of requests that decode (`BatchShape.decoding`); with those below see `trace_gen.context`."""
    OWN_DECODES = 8
    """Every one of those that this rank has: all of them unless ranks are context-parallel."""
    ALL_PARTS = 9
    """Every token of requests that decode, once for each context-parallel rank."""
    OWN_PROMPTS = 10
    """Every token of prompts that this rank has."""
    OWN_KEPT = 11
    """Every token of prompts, new or in the cache, whose keys and values this rank passes on."""
    KEPT = 12
    """Every token of prompts that all context-parallel ranks together pass on."""
    CARRIED = 13
    """Every copy that the rank that sends or gets most sends, or gets, to and from experts."""
    SHARE = 14
    """Every token that a rank sends where all ranks' are gathered, the mean of a wave's members: what is gathered is
    not padded."""
    SHARES = 15
    """Those of all ranks."""


class Portion(IntEnum):
    """Which requests of a batch an operator works for: parts where attention differs, or ranks divide sequences."""

    ALL = 0
    DECODES = 1
    PROMPTS = 2


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator on one rank. Byte counts and FLOPs are for each row; weights once.

    - `sources`: the operators of the same iteration whose outputs are its input (empty: the input of the
      iteration; `RESIDUAL`: the hidden state).
    - `parameters`, `weight_bytes`: stored weights; `weight_traffic_bytes`: those of them that are read.
    - `flops`, `traffic_bytes`: floating-point operations, and device memory read and written beside the weights, for
      each of its `work_rows`, which are its `input_rows` unless said otherwise; `arithmetic`: what they are done in.
    - `per_request`: a row of its own for each request, even where attention is one row a batch.
    - `communication`: the collective after it, of `comm_bytes` for each row of `comm_rows`.
      The ranks that meet are those along `axis` of the mesh.
    - `together`: the data-parallel members of a wave run it as one operator on all ranks of the stage, which then meet.
    - `portion`: the requests it works for; without any it has no row.
    - `after`: where what it waits for stands, counted back from it (none: the row before).
    - `by_token`: works on every token alone, so that ranks with the same tokens may share them out (norms);
      `streams`: its output only joins the residual stream.
    Attention's FLOPs and KV traffic depend on contexts: see `trace_gen.attention.work`.
    """

    name: str
    kind: OperatorClass
    sources: tuple[str, ...]
    input_bytes: int
    output_bytes: int
    parameters: int = 0
    weight_bytes: int = 0
    weight_traffic_bytes: int = 0
    flops: int = 0
    traffic_bytes: int = 0
    arithmetic: Arithmetic = Arithmetic.HALF
    input_rows: Rows = Rows.TOKENS
    output_rows: Rows = Rows.TOKENS
    worked_rows: Rows | None = None
    communication: CommType = CommType.NONE
    comm_bytes: int = 0
    carried_rows: Rows | None = None
    per_request: bool = False
    together: bool = False
    axis: Axis = "tp"
    portion: Portion = Portion.ALL
    after: tuple[int, ...] = ()
    by_token: bool = False
    streams: bool = False

    @property
    def work_rows(self) -> Rows:
        """What FLOPs and traffic are counted for."""
        return self.input_rows if self.worked_rows is None else self.worked_rows

    @property
    def comm_rows(self) -> Rows:
        """What its collective has a row for: of an all-gather, a rank's own part."""
        if self.carried_rows is not None:
            return self.carried_rows
        gathers = self.communication is CommType.ALLGATHER
        return self.input_rows if gathers else self.output_rows

    @property
    def is_routed(self) -> bool:
        """Whether its work or bytes depend on which experts tokens choose."""
        return Rows.ROUTED in (self.input_rows, self.work_rows, self.output_rows)

    @property
    def is_per_request(self) -> bool:
        """Whether it has a row for each request where attention has."""
        return self.per_request or self.kind is OperatorClass.ATTENTION


@dataclass(frozen=True, slots=True)
class OperatorMaker:
    """Makes the operators of one rank: knows what the rank shares, how numbers are stored and what operators are
    called.

    `norm_parameters`: weights of a norm over the hidden state; `expert`: ranks that whole experts are spread over (1:
    every expert's width is divided over the `tensor` ranks), with `redundant` experts beside the model's; `gathers`:
    tokens reach the experts of other ranks by an all-gather and come back by a reduce-scatter, not by all-to-alls.
    `schemes`: the quantised roles.
    """

    hidden_size: int
    norm_parameters: int
    precision: Precision
    vocabulary: Vocabulary
    tensor: int = 1
    expert: int = 1
    redundant: int = 0
    gathers: bool = False
    schemes: Schemes = ()

    def linear(
        self,
        role: str,
        source: str,
        inputs: int,
        outputs: int,
        bias: bool = False,
        rows: Rows = Rows.TOKENS,
        communication: CommType = CommType.NONE,
    ) -> Operator:
        """Return a projection of `inputs` to `outputs` elements; `communication` follows if there are several ranks."""
        into, out = self.precision.activation_bytes(inputs), self.precision.activation_bytes(outputs)
        parameters = inputs * outputs + outputs * bias
        weights, arithmetic = self.precision.weight_bytes(parameters), self.precision.arithmetic
        scheme = self.scheme(role)
        if scheme is not None:
            shared = self.tensor > 1 and role in SHARED_INPUTS
            weights = scheme.matrix_bytes(inputs, outputs, shared=shared)
            weights += self.precision.weight_bytes(outputs * bias)
            arithmetic = scheme.arithmetic or Arithmetic.of(self.precision.activation_bits)
        after = communication if self.tensor > 1 else CommType.NONE
        return Operator(
            self.vocabulary.of(role),
            OperatorClass.GEMM,
            (source,),
            into,
            out,
            parameters=parameters,
            weight_bytes=weights,
            weight_traffic_bytes=weights,
            flops=2 * inputs * outputs + outputs * bias,
            traffic_bytes=into + out,
            arithmetic=arithmetic,
            input_rows=rows,
            output_rows=rows,
            communication=after,
            comm_bytes=out if after is not CommType.NONE else 0,
        )

    def scheme(self, role: str) -> Scheme | None:
        """Return how the matrices of `role` are stored; None where they are not quantised."""
        return dict(self.schemes).get(role)

    def projections(
        self, outputs: Sequence[tuple[str, int]], source: str, inputs: int, bias: bool = False
    ) -> list[Operator]:
        """Return the projections of one input, given as (role, elements); roles that share a name are one operator."""
        widths: dict[str, tuple[str, int]] = {}
        for role, width in outputs:
            name = self.vocabulary.of(role)
            widths[name] = (role, widths.get(name, (role, 0))[1] + width)
        return [self.linear(role, source, inputs, width, bias) for role, width in widths.values()]

    def elementwise(
        self,
        role: str,
        sources: tuple[str, ...],
        inputs: int,
        outputs: int,
        flops: int,
        parameters: int = 0,
        extra: int = 0,
        rows: Rows = Rows.TOKENS,
    ) -> Operator:
        """Return an element-wise operator; `extra` counts elements read and written beside input and output."""
        into, out = self.precision.activation_bytes(inputs), self.precision.activation_bytes(outputs)
        weights = self.precision.weight_bytes(parameters)
        return Operator(
            self.vocabulary.of(role),
            OperatorClass.ELEMENTWISE,
            sources,
            into,
            out,
            parameters=parameters,
            weight_bytes=weights,
            weight_traffic_bytes=weights,
            flops=flops * max(inputs, outputs),
            traffic_bytes=into + out + self.precision.activation_bytes(extra),
            arithmetic=self.precision.arithmetic,
            input_rows=rows,
            output_rows=rows,
        )

    def norm(self, role: str, source: str = RESIDUAL, extra: int = 2) -> Operator:
        """Return a norm over the hidden state; as engines do, it first adds to the residual stream.

        `extra`: hidden states read and written beside its input and output; 2 are the stream, read and written.
        """
        hidden = self.hidden_size
        norm = self.elementwise(role, (source,), hidden, hidden, NORM_FLOPS, self.norm_parameters, extra * hidden)
        return replace(norm, by_token=True)


def exchange_row(
    name: str, sources: tuple[str, ...], width: int, communication: CommType = CommType.ALLTOALL
) -> Operator:
    """Return an operator that only communicates: `width` bytes a row go in, come out and are carried."""
    return Operator(
        name,
        OperatorClass.COMMUNICATION,
        sources,
        input_bytes=width,
        output_bytes=width,
        communication=communication,
        comm_bytes=width,
    )


def with_rows(operator: Operator, input_rows: Rows, output_rows: Rows, carried_rows: Rows | None = None) -> Operator:
    """Return `operator` with other rows going in, coming out, and carried (None: as its collective has it)."""
    return replace(operator, input_rows=input_rows, output_rows=output_rows, carried_rows=carried_rows)
