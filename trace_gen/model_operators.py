"""The operators of one iteration of a model.

Two vocabularies name the same work:

    fused   embedding | layernorm qkv_proj [qk_norm] [rotary_emb] attention o_proj layernorm
            gate_up_proj act_fn down_proj  (or fc1 act_fn fc2) | final_layernorm lm_head sampler
    split   embedding | input_layernorm q_proj k_proj v_proj [qk_norm] [rope] attn o_proj post_layernorm
            gate_proj up_proj act_fn down_proj  (or fc1 act_fn fc2) | final_layernorm lm_head

The split names are those of LLMServingSim v0.2.1's tables, which know no sampler. There, rotary embedding and
attention are rows of their own for each request. A mixture of experts stands in place of the MLP, with the same names
in both (`trace_gen.expert_operators`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trace_gen.architecture import ModelArchitecture, PositionKind
from trace_gen.expert_operators import expert_operators
from trace_gen.operators import (
    ACTIVATION_FLOPS,
    NORM_FLOPS,
    QK_NORM_PASSES,
    ROTARY_FLOPS,
    SAMPLER_FLOPS,
    TOKEN_ID_BYTES,
    Operator,
    OperatorClass,
    Operators,
    Rows,
    Vocabulary,
    elementwise,
    exchange_row,
    is_per_request,
    linear,
)
from trace_gen.sharding import Precision, Shard, shard
from trace_gen.trace import CommType


def model_operators(
    model: ModelArchitecture, tensor: int, precision: Precision, vocabulary: Vocabulary = "fused", expert: int = 1
) -> Operators:
    """Return the operators of `model` on one of `tensor` ranks, named in `vocabulary`; see `shard` for `expert`."""
    return _Builder(model, shard(model, tensor, expert), precision, vocabulary == "fused").build()


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
        """A projection with `communication` after it where there are several ranks."""
        after = communication if self.part.tensor > 1 else CommType.NONE
        return linear(self.precision, name, source, inputs, outputs, bias, rows, after)

    def _norm(self, name: str, source: str) -> Operator:
        """A norm over the hidden state; as engines do, it adds to the residual stream (read and written) first."""
        hidden = self.model.hidden_size
        return elementwise(
            self.precision, name, source, hidden, hidden, NORM_FLOPS, self.model.norm_parameters, 2 * hidden
        )

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
        if model.experts is not None:
            return [norm, *expert_operators(model.experts, hidden, self.part, self.precision, norm.name)]
        if not model.gated_mlp:
            up = [self._linear("fc1", norm.name, hidden, inner, model.mlp_bias)]
        elif self.fused:
            up = [self._linear("gate_up_proj", norm.name, hidden, 2 * inner, model.mlp_bias)]
        else:
            up = [self._linear(name, norm.name, hidden, inner, model.mlp_bias) for name in ("gate_proj", "up_proj")]
        width = 2 * inner if model.gated_mlp else inner
        act = elementwise(self.precision, "act_fn", up[0].name, width, inner, ACTIVATION_FLOPS)
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
        before = exchange_row("attention_scatter", section[0].sources, section[0].input_bytes)
        after = exchange_row("attention_gather", (section[-1].name,), section[-1].output_bytes)
        rows = [before, replace(rows[0], sources=(before.name,)), *rows[1:], after]
    block = share.block[:first] + tuple(rows) + share.block[last + 1 :]
    return Operators(share.head, block, share.tail)


def _with_sources(operator: Operator, sources: tuple[str, ...]) -> Operator:
    return replace(operator, sources=sources)


def _to_logits(operator: Operator) -> Operator:
    """The final norm runs on every token; only the rows whose logits are needed go on."""
    return replace(operator, output_rows=Rows.LOGITS)
