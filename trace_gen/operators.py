"""The operators of one iteration as data: what each row of a trace computes, reads and writes, a row of input.

Two vocabularies name the same work:

    fused   embedding | layernorm qkv_proj [qk_norm] [rotary_emb] attention o_proj layernorm
            gate_up_proj act_fn down_proj  (or fc1 act_fn fc2) | final_layernorm lm_head sampler
    split   embedding | input_layernorm q_proj k_proj v_proj [qk_norm] [rope] attn o_proj post_layernorm
            gate_proj up_proj act_fn down_proj  (or fc1 act_fn fc2) | final_layernorm lm_head

The split names are those of LLMServingSim v0.2.1's tables, which know no sampler. There, rotary embedding and
attention are rows of their own for each request.

Sizes are per rank. Floating-point operations: 2 a multiply-add; element-wise operators are counted with the few
operations an element they need, which never decides their time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import Literal

from trace_gen.architecture import ModelArchitecture, PositionKind
from trace_gen.sharding import Precision, Shard, shard
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


class Rows(Enum):
    """What an operator has a row for: every token of the batch, or every sequence whose logits are needed."""

    TOKENS = "tokens"
    LOGITS = "logits"


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator on one rank. Byte counts and FLOPs are for each row; `weight_bytes` once.

    - `sources`: the operators of the same iteration whose outputs are its input (empty: the input of the
      iteration; ``"residual"``: the output of the last row before it that carries the hidden state).
    - `traffic_bytes`: device memory read and written for each row beside the weights (`weight_traffic_bytes`).
    - `per_request`: a row of its own for each request, even where attention is one row a batch.
    - `communication`: the collective after it, of `comm_bytes` for each output row.
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


@dataclass(frozen=True, slots=True)
class Operators:
    """The operators of a model on one rank: before the blocks, one block, after the blocks."""

    head: tuple[Operator, ...]
    block: tuple[Operator, ...]
    tail: tuple[Operator, ...]


def model_operators(
    model: ModelArchitecture, tensor: int, precision: Precision, vocabulary: Vocabulary = "fused"
) -> Operators:
    """Return the operators of `model` on one of `tensor` ranks, named in `vocabulary`."""
    return _Builder(model, shard(model, tensor), precision, vocabulary == "fused").build()


@dataclass(frozen=True)
class _Builder:
    model: ModelArchitecture
    part: Shard
    precision: Precision
    fused: bool

    def build(self) -> Operators:
        return Operators((self._embedding(),), (*self._attention_half(), *self._mlp_half()), self._tail())

    def _linear(
        self,
        name: str,
        source: str,
        inputs: int,
        outputs: int,
        bias: bool,
        rows: Rows = Rows.TOKENS,
        communication: CommType = CommType.NONE,
    ) -> Operator:
        """A projection of `inputs` to `outputs` elements; a collective after it carries its output."""
        into, out = self.precision.activation_bytes(inputs), self.precision.activation_bytes(outputs)
        weights = self.precision.weight_bytes(inputs * outputs + outputs * bias)
        communicates = communication is not CommType.NONE and self.part.tensor > 1
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
            communication=communication if communicates else CommType.NONE,
            comm_bytes=out if communicates else 0,
        )

    def _elementwise(
        self, name: str, source: str, inputs: int, outputs: int, flops: int, parameters: int = 0, extra: int = 0
    ) -> Operator:
        """An element-wise operator; `extra` counts elements read and written beside input and output."""
        into, out = self.precision.activation_bytes(inputs), self.precision.activation_bytes(outputs)
        weights = self.precision.weight_bytes(parameters)
        return Operator(
            name,
            OperatorClass.ELEMENTWISE,
            (source,),
            into,
            out,
            weight_bytes=weights,
            weight_traffic_bytes=weights,
            flops=flops * max(inputs, outputs),
            traffic_bytes=into + out + self.precision.activation_bytes(extra),
        )

    def _norm(self, name: str, source: str) -> Operator:
        """A norm over the hidden state; as engines do, it adds to the residual stream (read and written) first."""
        hidden = self.model.hidden_size
        return self._elementwise(name, source, hidden, hidden, NORM_FLOPS, self.model.norm_parameters, 2 * hidden)

    def _embedding(self) -> Operator:
        """Vocabulary-parallel: each rank looks up the ids it holds, an all-reduce adds the parts."""
        hidden = self.model.hidden_size
        out = self.precision.activation_bytes(hidden)
        tables = 2 if self.model.position_rows else 1
        parallel = self.part.tensor > 1
        return Operator(
            "embedding",
            OperatorClass.EMBEDDING,
            (),
            TOKEN_ID_BYTES,
            out,
            weight_bytes=self.precision.weight_bytes((self.part.vocab + self.model.position_rows) * hidden),
            flops=hidden * (tables - 1),
            traffic_bytes=TOKEN_ID_BYTES + tables * self.precision.weight_bytes(hidden) + out,
            communication=CommType.ALLREDUCE if parallel else CommType.NONE,
            comm_bytes=out if parallel else 0,
        )

    def _attention_half(self) -> list[Operator]:
        model, part = self.model, self.part
        norm = self._norm("layernorm" if self.fused else "input_layernorm", "residual")
        hidden = model.hidden_size
        if self.fused:
            projections = [self._linear("qkv_proj", norm.name, hidden, part.qkv, model.qkv_bias)]
        else:
            widths = (("q_proj", part.query), ("k_proj", part.kv), ("v_proj", part.kv))
            projections = [self._linear(name, norm.name, hidden, width, model.qkv_bias) for name, width in widths]
        rows = [norm, *projections]
        producers = tuple(row.name for row in projections)
        rotated = part.query + part.kv
        if model.qk_norm:
            touched = QK_NORM_PASSES * rotated
            rows.append(self._qkv_step("qk_norm", producers, NORM_FLOPS * rotated, touched, 2 * model.head_dim))
            producers = ("qk_norm",)
        if model.positions is PositionKind.ROTARY:
            name = "rotary_emb" if self.fused else "rope"
            rows.append(self._qkv_step(name, producers, ROTARY_FLOPS * rotated, rotated, 0, not self.fused))
            producers = (name,)
        attention = "attention" if self.fused else "attn"
        rows.append(self._attention(attention, producers))
        rows.append(
            self._linear("o_proj", attention, part.query, hidden, model.output_bias, communication=CommType.ALLREDUCE)
        )
        return rows

    def _qkv_step(
        self,
        name: str,
        producers: tuple[str, ...],
        flops: int,
        touched: int,
        parameters: int,
        per_request: bool = False,
    ) -> Operator:
        """A step on queries and keys in place: values pass by, so `touched` elements are read and written."""
        width = self.precision.activation_bytes(self.part.qkv)
        weights = self.precision.weight_bytes(parameters)
        return Operator(
            name,
            OperatorClass.ELEMENTWISE,
            producers,
            width,
            width,
            weight_bytes=weights,
            weight_traffic_bytes=weights,
            flops=flops,
            traffic_bytes=2 * self.precision.activation_bytes(touched),
            per_request=per_request,
        )

    def _attention(self, name: str, producers: tuple[str, ...]) -> Operator:
        return Operator(
            name,
            OperatorClass.ATTENTION,
            producers,
            self.precision.activation_bytes(self.part.qkv),
            self.precision.activation_bytes(self.part.query),
        )

    def _mlp_half(self) -> list[Operator]:
        model, inner, hidden = self.model, self.part.intermediate, self.model.hidden_size
        norm = self._norm("layernorm" if self.fused else "post_layernorm", "residual")
        if not model.gated_mlp:
            up = [self._linear("fc1", norm.name, hidden, inner, model.mlp_bias)]
        elif self.fused:
            up = [self._linear("gate_up_proj", norm.name, hidden, 2 * inner, model.mlp_bias)]
        else:
            up = [self._linear(name, norm.name, hidden, inner, model.mlp_bias) for name in ("gate_proj", "up_proj")]
        width = 2 * inner if model.gated_mlp else inner
        act = self._elementwise("act_fn", up[0].name, width, inner, ACTIVATION_FLOPS)
        if len(up) > 1:
            act = _with_sources(act, tuple(row.name for row in up))
        down_name = "down_proj" if model.gated_mlp else "fc2"
        down = self._linear(down_name, "act_fn", inner, hidden, model.mlp_bias, communication=CommType.ALLREDUCE)
        return [norm, *up, act, down]

    def _tail(self) -> tuple[Operator, ...]:
        hidden, vocab = self.model.hidden_size, self.part.vocab
        norm = _to_logits(self._norm("final_layernorm", "residual"))
        head = self._linear("lm_head", norm.name, hidden, vocab, False, Rows.LOGITS, CommType.ALLGATHER)
        if not self.fused:
            return (norm, head)
        gathered = self.precision.activation_bytes(vocab) * self.part.tensor
        sampler = Operator(
            "sampler",
            OperatorClass.SAMPLER,
            (head.name,),
            gathered,
            TOKEN_ID_BYTES,
            flops=SAMPLER_FLOPS * vocab * self.part.tensor,
            traffic_bytes=gathered + TOKEN_ID_BYTES,
            input_rows=Rows.LOGITS,
            output_rows=Rows.LOGITS,
        )
        return (norm, head, sampler)


def placed_by_request(share: Operators, whole: Operators, exchange: bool) -> Operators:
    """Return the operators of attention placed by request: each rank works on whole requests, all heads of them.

    `share` are the operators of one of several ranks, `whole` those of a single one, which the per-request rows
    come from. With `exchange` an all-to-all before them brings a request's heads together on its rank, and another
    after them takes the outputs back to the ranks of their heads. (Requests per rank differ by one at most; the
    exchanges carry what the ranks hold by heads.)
    """
    own = {row.name: row for row in whole.block}
    section = [row for row in share.block if is_per_request(row)]
    first, last = share.block.index(section[0]), share.block.index(section[-1])
    rows = [own[row.name] for row in section]
    if exchange:
        before = _exchange("attention_scatter", section[0].sources, section[0].input_bytes)
        after = _exchange("attention_gather", (section[-1].name,), section[-1].output_bytes)
        rows = [before, replace(rows[0], sources=(before.name,)), *rows[1:], after]
    block = share.block[:first] + tuple(rows) + share.block[last + 1 :]
    return Operators(share.head, block, share.tail)


def is_per_request(operator: Operator) -> bool:
    """Whether `operator` has a row for each request where attention has."""
    return operator.per_request or operator.kind is OperatorClass.ATTENTION


def _exchange(name: str, sources: tuple[str, ...], width: int) -> Operator:
    return Operator(
        name,
        OperatorClass.EXCHANGE,
        sources,
        input_bytes=width,
        output_bytes=width,
        communication=CommType.ALLTOALL,
        comm_bytes=width,
    )


def _with_sources(operator: Operator, sources: tuple[str, ...]) -> Operator:
    return replace(operator, sources=sources)


def _to_logits(operator: Operator) -> Operator:
    """The final norm runs on every token; only the rows whose logits are needed go on."""
    return replace(operator, output_rows=Rows.LOGITS)
