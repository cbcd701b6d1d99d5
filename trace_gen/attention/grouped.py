"""Attention whose query heads share KV heads in equal groups: multi-head (groups of one), grouped, multi-query.

Over tensor-parallel ranks: up to the number of KV heads these are divided; from there to the number of query heads each
rank holds one KV head, copied where ranks share it; beyond the number of query heads every head is split evenly.
Dimensions that the ranks do not divide are rounded up: the numbers are those of the fullest rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from foundation.records import dataclass
from trace_gen.attention.interface import KVKind, KVLayer
from trace_gen.attention.work import AttentionShape
from trace_gen.operators import NORM_FLOPS, ROTARY_FLOPS, Operator, OperatorMaker, Portion
from trace_gen.precision import Precision, ceil_div
from trace_gen.trace import CommType, OperatorClass

QK_NORM_PASSES = 2
"""Norms of single heads move twice their bytes' worth of time: rows of `head_dim` elements are too short to stream."""

SOFTCAP_FLOPS, ALIBI_FLOPS = 3, 2
"""Operations on a score: a division, a tanh and a multiplication; a slope times a distance, added."""


@dataclass(frozen=True, slots=True)
class HeadShare:
    """Elements a token that one rank holds: of queries, and of keys (values have as many)."""

    query: int
    kv: int

    @property
    def qkv(self) -> int:
        """Elements of queries, keys and values together."""
        return self.query + 2 * self.kv


@dataclass(frozen=True, slots=True)
class GroupedAttention:
    """One layer's attention; `heads` x `head_dim` need not equal the hidden size.

    - `rotary`: positions are rotated into queries and keys; `rotary_dim`: elements of a head they go into (None: all);
    - `qkv_bias`, `output_bias`: bias vectors of the query, key and value projections, and of the output's;
    - `qk_norm`: an RMSNorm of `head_dim` elements on queries and on keys, `qk_norm_weights`: with a weight vector;
    - `window`: tokens a query attends to at most, itself included; None for all;
    - `chunk`: tokens of the chunks of a sequence within which attention stays (Llama 4); None where it does not;
    - `sinks`: each query head has a learned logit that joins its softmax (gpt-oss);
    - `score_flops`: operations on each score beside the softmax's, such as `SOFTCAP_FLOPS` and `ALIBI_FLOPS`.
    """

    heads: int
    kv_heads: int
    head_dim: int
    rotary: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    qk_norm_weights: bool = True
    window: int | None = None
    chunk: int | None = None
    sinks: bool = False
    rotary_dim: int | None = None
    score_flops: int = 0

    def share(self, tensor: int) -> HeadShare:
        """Return what one of `tensor` ranks holds (see the module's docstring)."""
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        if tensor <= self.kv_heads:
            kept = ceil_div(kv, tensor)
        elif tensor <= self.heads:
            kept = self.head_dim
        else:
            kept = ceil_div(query, tensor)
        return HeadShare(ceil_div(query, tensor), kept)

    def operators(self, make: OperatorMaker, source: str) -> list[Operator]:
        """See `Attention.operators`."""
        part = self.share(make.tensor)
        widths = (("q_proj", part.query), ("k_proj", part.kv), ("v_proj", part.kv))
        rows = make.projections(widths, source, make.hidden_size, self.qkv_bias)
        producers = tuple(row.name for row in rows)
        rotated = part.query + part.kv
        if self.qk_norm:
            touched = QK_NORM_PASSES * rotated
            weights = 2 * self.head_dim * self.qk_norm_weights
            rows.append(_step(make, "qk_norm", producers, part, NORM_FLOPS * rotated, touched, weights))
            producers = (rows[-1].name,)
        if self.rotary:
            turned = rotated if self.rotary_dim is None else ceil_div(rotated * self.rotary_dim, self.head_dim)
            rows.append(_step(make, "rotary", producers, part, ROTARY_FLOPS * turned, turned))
            producers = (rows[-1].name,)
        rows.append(
            Operator(
                make.vocabulary.of("attention"),
                OperatorClass.ATTENTION,
                producers,
                make.precision.activation_bytes(part.qkv),
                make.precision.activation_bytes(part.query),
            )
        )
        reduce = CommType.ALLREDUCE
        out = make.linear("o_proj", rows[-1].name, part.query, make.hidden_size, self.output_bias, communication=reduce)
        return [*rows, self._with_sinks(out, make)]

    def shapes(self, tensor: int, precision: Precision) -> Mapping[Portion, AttentionShape]:
        """See `Attention.shapes`."""
        part = self.share(tensor)
        kept = 2 * precision.kv_bytes(part.kv)
        shape = AttentionShape(
            query_heads=part.query / self.head_dim,
            kv_heads=part.kv / self.head_dim,
            pair_flops=4 * part.query + self.score_flops * ceil_div(part.query, self.head_dim),
            kv_bytes=kept,
            query_bytes=precision.activation_bytes(part.query),
            output_bytes=precision.activation_bytes(part.query),
            kept_bytes=kept,
            window=self.chunk or self.window,
            chunked=self.chunk is not None,
        )
        return {Portion.ALL: shape}

    def kv(self, tensor: int, precision: Precision) -> KVLayer:
        """See `Attention.kv`."""
        return self._kept(self.share(tensor).kv, precision)

    def kv_share(self, tensor: int, precision: Precision) -> KVLayer:
        """See `Attention.kv_share`."""
        return self._kept(ceil_div(self.kv_heads * self.head_dim, tensor), precision)

    def warnings(self, tensor: int) -> tuple[str, ...]:
        """See `Attention.warnings`."""
        kept = "which is kept of whole sequences here; vLLM gives back that of earlier chunks"
        chunks = () if self.chunk is None else (f"a KV cache of chunks of {self.chunk} tokens, {kept}",)
        return (*self._undivided(tensor), *chunks)

    def _undivided(self, tensor: int) -> tuple[str, ...]:
        heads, kv_heads = self.heads, self.kv_heads
        if heads % tensor:
            return (f"{heads} attention heads, which {tensor} ranks do not divide: heads are split evenly",)
        if tensor > kv_heads and tensor % kv_heads:
            return (f"{kv_heads} KV heads, which do not divide {tensor} ranks: each rank holds a whole one",)
        if tensor < kv_heads and kv_heads % tensor:
            return (f"{kv_heads} KV heads, which {tensor} ranks do not divide: they are split evenly",)
        return ()

    def _with_sinks(self, out: Operator, make: OperatorMaker) -> Operator:
        """Return the output projection with the sinks' weights: attention's own row may be one a request."""
        if not self.sinks:
            return out
        sinks = ceil_div(self.heads, make.tensor)
        stored = make.precision.weight_bytes(sinks)
        return replace(
            out,
            parameters=out.parameters + sinks,
            weight_bytes=out.weight_bytes + stored,
            weight_traffic_bytes=out.weight_traffic_bytes + stored,
        )

    def _kept(self, elements: int, precision: Precision) -> KVLayer:
        # Chunks keep all tokens; vLLM with VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE=0 does, too (`warnings`).
        kind = KVKind.FULL if self.window is None else KVKind.SLIDING
        return KVLayer(kind, self.window, 2 * precision.kv_bytes(elements))


def _step(
    make: OperatorMaker,
    role: str,
    producers: tuple[str, ...],
    part: HeadShare,
    flops: int,
    touched: int,
    parameters: int = 0,
) -> Operator:
    """Return a step on queries and keys in place: values pass by, so `touched` elements are read and written."""
    width = make.precision.activation_bytes(part.qkv)
    weights = make.precision.weight_bytes(parameters)
    return Operator(
        make.vocabulary.of(role),
        OperatorClass.ELEMENTWISE,
        producers,
        width,
        width,
        parameters=parameters,
        weight_bytes=weights,
        weight_traffic_bytes=weights,
        flops=flops,
        traffic_bytes=2 * make.precision.activation_bytes(touched),
        arithmetic=make.precision.arithmetic,
        per_request=role in make.vocabulary.per_request,
    )
