"""Multi-head latent attention: the KV cache holds one compressed vector a token, from which all heads' keys and values
are projected (DeepSeek-AI 2024, "DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model",
section 2.1; Hugging Face `DeepseekV3Attention`).

    q_a_proj q_a_norm q_b_proj (or q_b_proj alone) | kv_a_proj kv_a_norm | rotary
    expanded: kv_b_proj -> attention                      absorbed: q_absorb -> latent_attention -> v_up_proj
    o_proj (ALLREDUCE)

Which tokens are expanded and which absorbed is `trace_gen.attention.absorption`'s. Heads ``h`` of width ``n + r`` (the
last ``r`` rotated) attend over a latent vector of ``c`` numbers and ``r`` rotated ones, which all heads share; values
have ``v`` numbers. For each query-key pair and head, that is ``2 (n + r) + 2 v`` operations expanded, and
``2 (c + r) + 2 c`` absorbed, when the halves of `kv_b_proj` are multiplied to the queries (`q_absorb`) and to the
outputs (`v_up_proj`) instead. Of the context, expanded attention projects the latent vectors up once more: its work
includes that (vLLM's `_compute_prefill_context`), but for reading the matrix once more.

Tensor-parallel ranks divide the heads, rounded up. The compressing projections, their norms and the KV cache are whole
on every rank. `q_absorb` and `v_up_proj` are copies of `kv_b_proj` in the activations' width, which engines make when
they load a model; they are weights that a rank holds, but no parameters of the model, unless everything is absorbed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from foundation.records import dataclass
from trace_gen.attention.absorption import Absorption
from trace_gen.attention.interface import KVKind, KVLayer
from trace_gen.attention.work import AttentionShape
from trace_gen.operators import NORM_FLOPS, ROTARY_FLOPS, Operator, OperatorMaker, Portion, Rows, with_rows
from trace_gen.precision import Precision, ceil_div
from trace_gen.trace import CommType, OperatorClass


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """One layer's latent attention.

    - `q_rank`: numbers of the compressed query; None: queries are projected from the hidden state;
    - `kv_rank`: numbers of the latent vector; `rope_dim`: rotated ones beside it, and of each query head;
    - `nope_dim`, `v_dim`: numbers of a head that are not rotated, and of its values;
    - `bias`: of the compressing projections and of the output's.
    """

    heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    bias: bool = False
    absorption: Absorption = "auto"

    @property
    def kept(self) -> int:
        """Numbers that the KV cache holds of a token, on every rank."""
        return self.kv_rank + self.rope_dim

    def operators(self, make: OperatorMaker, source: str) -> list[Operator]:
        """See `Attention.operators`."""
        rows = self._projections(make, source)
        ends: tuple[Operator, ...] = ()
        expands, absorbs = self.absorption != "absorb", self.absorption != "expand"
        before = (rows[-1].name,)
        q_absorb = self._half(make, "q_absorb", before, self.nope_dim, self.kv_rank)
        if expands:
            rows.append(self._for_prompts(self._kv_b(make, before[0])))
            ends = (self._for_prompts(self._expanded(make, (*before, rows[-1].name))),)
        rows += [self._for_decodes(q_absorb)] if absorbs else []
        rows += ends
        if absorbs:
            rows.append(self._for_decodes(self._absorbed(make, (*before, q_absorb.name))))
            rows.append(self._for_decodes(self._half(make, "v_up_proj", (rows[-1].name,), self.kv_rank, self.v_dim)))
            ends = (*ends, rows[-1])
        outputs, hidden = self._share(self.v_dim, make.tensor), make.hidden_size
        out = make.linear("o_proj", ends[0].name, outputs, hidden, self.bias, communication=CommType.ALLREDUCE)
        return [*rows, replace(out, sources=tuple(row.name for row in ends))]

    def _for_prompts(self, operator: Operator) -> Operator:
        """Return an `operator` of expanded attention, which only prompts have unless all tokens are alike."""
        return self._of(operator, Portion.PROMPTS, Rows.OWN_PROMPTS)

    def _for_decodes(self, operator: Operator) -> Operator:
        """Return an `operator` of absorbed attention, which only decodes have unless all tokens are alike."""
        return self._of(operator, Portion.DECODES, Rows.OWN_DECODES)

    def _of(self, operator: Operator, portion: Portion, rows: Rows) -> Operator:
        return replace(with_rows(operator, rows, rows), portion=portion) if self.absorption == "auto" else operator

    def shapes(self, tensor: int, precision: Precision) -> Mapping[Portion, AttentionShape]:
        """See `Attention.shapes`."""
        queries, values = self._share(self.nope_dim + self.rope_dim, tensor), self._share(self.v_dim, tensor)
        in_latent, latents = self._share(self.kept, tensor), self._share(self.kv_rank, tensor)
        activation, kept = precision.activation_bytes, precision.kv_bytes(self.kept)
        expanded = self._share(self.nope_dim + self.v_dim, tensor)
        heads = values / self.v_dim
        expanding = AttentionShape(
            query_heads=heads,
            kv_heads=heads,
            pair_flops=2 * (queries + values),
            kv_bytes=activation(queries + values),
            query_bytes=activation(queries),
            output_bytes=activation(values),
            kept_bytes=kept,
            context_flops=2 * self.kv_rank * expanded,
            context_bytes=kept + activation(expanded),
        )
        absorbing = AttentionShape(
            query_heads=heads,
            kv_heads=1,
            pair_flops=2 * (in_latent + latents),
            kv_bytes=kept,
            query_bytes=activation(in_latent),
            output_bytes=activation(latents),
            kept_bytes=kept,
            tile_heads=max(1, round(heads)),
        )
        if self.absorption == "auto":
            return {Portion.PROMPTS: expanding, Portion.DECODES: absorbing}
        return {Portion.ALL: absorbing if self.absorption == "absorb" else expanding}

    def kv(self, tensor: int, precision: Precision) -> KVLayer:
        """See `Attention.kv`."""
        return KVLayer(KVKind.LATENT, None, precision.kv_bytes(self.kept))

    def kv_share(self, tensor: int, precision: Precision) -> KVLayer:
        """See `Attention.kv_share`."""
        return KVLayer(KVKind.LATENT, None, precision.kv_bytes(ceil_div(self.kept, tensor)))

    def warnings(self, tensor: int) -> tuple[str, ...]:
        """See `Attention.warnings`."""
        if self.heads % tensor:
            return (f"{self.heads} attention heads, which {tensor} ranks do not divide: heads are split evenly",)
        return ()

    def _share(self, width: int, tensor: int) -> int:
        """Return the elements of heads of `width` that one of `tensor` ranks holds."""
        return ceil_div(self.heads * width, tensor)

    def _projections(self, make: OperatorMaker, source: str) -> list[Operator]:
        """Return the operators up to rotated queries and latent vectors: they work on all tokens alike."""
        queries, hidden = self._share(self.nope_dim + self.rope_dim, make.tensor), make.hidden_size
        if self.q_rank is None:
            direct = make.linear("q_b_proj", source, hidden, queries)
            down = [direct, make.linear("kv_a_proj", source, hidden, self.kept, self.bias)]
            up = []
        else:
            widths = (("q_a_proj", self.q_rank), ("kv_a_proj", self.kept))
            down = make.projections(widths, source, hidden, self.bias)
            norm = _norm(make, "q_a_norm", down[0].name, self.q_rank)
            up = [norm, make.linear("q_b_proj", norm.name, self.q_rank, queries)]
        kv_norm = _norm(make, "kv_a_norm", down[-1].name, self.kv_rank)
        rotated = self._share(self.rope_dim, make.tensor) + self.rope_dim
        query_row = (up or down)[-1 if up else 0]
        rotary = make.elementwise("rotary", (query_row.name, kv_norm.name), rotated, rotated, ROTARY_FLOPS)
        return [*down, *up, kv_norm, rotary]

    def _kv_b(self, make: OperatorMaker, source: str) -> Operator:
        expanded = self._share(self.nope_dim + self.v_dim, make.tensor)
        return make.linear("kv_b_proj", source, self.kv_rank, expanded)

    def _expanded(self, make: OperatorMaker, producers: tuple[str, ...]) -> Operator:
        """Attention of queries to expanded keys and values."""
        queries, values = self._share(self.nope_dim + self.rope_dim, make.tensor), self._share(self.v_dim, make.tensor)
        return _attention(make, "attention", producers, 2 * queries + values, values)

    def _absorbed(self, make: OperatorMaker, producers: tuple[str, ...]) -> Operator:
        """Attention of queries in the latent space to the latent vectors."""
        queries, outputs = self._share(self.kept, make.tensor), self._share(self.kv_rank, make.tensor)
        return _attention(make, "latent_attention", producers, queries + self.kept, outputs)

    def _half(self, make: OperatorMaker, role: str, producers: tuple[str, ...], inputs: int, outputs: int) -> Operator:
        """Return the multiplication of each head by its half of `kv_b_proj`, `inputs` to `outputs` numbers a head."""
        held = self._share(inputs * outputs, make.tensor)
        into, out = (self._share(width, make.tensor) for width in (inputs, outputs))
        sides = make.precision.activation_bytes(into), make.precision.activation_bytes(out)
        weights = make.precision.weight_bytes(held)
        return Operator(
            make.vocabulary.of(role),
            OperatorClass.GEMM,
            producers,
            *sides,
            parameters=held if self.absorption == "absorb" else 0,
            weight_bytes=weights,
            weight_traffic_bytes=weights,
            flops=2 * held,
            traffic_bytes=sum(sides),
            arithmetic=make.precision.arithmetic,
        )


def _norm(make: OperatorMaker, role: str, source: str, width: int) -> Operator:
    """Return an RMSNorm of a compressed vector."""
    return make.elementwise(role, (source,), width, width, NORM_FLOPS, parameters=width)


def _attention(make: OperatorMaker, role: str, producers: tuple[str, ...], inputs: int, outputs: int) -> Operator:
    into, out = make.precision.activation_bytes(inputs), make.precision.activation_bytes(outputs)
    return Operator(make.vocabulary.of(role), OperatorClass.ATTENTION, producers, into, out)
