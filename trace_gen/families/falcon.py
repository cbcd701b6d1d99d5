"""Falcon: 7B (multi-query, attention and MLP side by side), 40B and 180B (grouped, two norms), 11B, RW (ALiBi)."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import BlockForm, Layer, LayerRun, ModelArchitecture, NormKind
from trace_gen.attention.grouped import ALIBI_FLOPS, GroupedAttention
from trace_gen.families import MOST_LAYERS, families
from trace_gen.mlp.dense import DenseMlp


@families.register("falcon")
def falcon(name: str, fields: Fields) -> ModelArchitecture:
    """LayerNorm, a GELU MLP of 4 x the hidden size unless said otherwise, tied embeddings; `bias` is that of all else.

    Side by side, tensor-parallel ranks reduce the sum of both once (vLLM, model_executor/models/falcon.py).
    """
    hidden = fields.positive_int("hidden_size")
    heads = fields.positive_int("num_attention_heads", "n_head")
    if fields.sound("hidden_size", "num_attention_heads", "n_head") and hidden % heads:
        fields.problem(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    bias, alibi = fields.boolean("bias", default=False), fields.boolean("alibi", default=False)
    attention = GroupedAttention(
        heads,
        _kv_heads(fields, heads),
        max(1, hidden // heads),
        rotary=not alibi,
        qkv_bias=bias,
        output_bias=bias,
        score_flops=ALIBI_FLOPS if alibi else 0,
    )
    mlp = DenseMlp(fields.positive_int("ffn_hidden_size", default=4 * hidden), gated=False, bias=bias)
    form = _form(fields)
    layer = Layer(attention, mlp, form, reduces_once=form is not BlockForm.PRE_NORM)
    return ModelArchitecture(
        name=name,
        model_type="falcon",
        hidden_size=hidden,
        runs=(LayerRun(layer, fields.positive_int("num_hidden_layers", "n_layer", high=MOST_LAYERS)),),
        vocab_size=fields.positive_int("vocab_size"),
        max_position=fields.positive_int("max_position_embeddings", default=2048),
        norm=NormKind.LAYER,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=True),
    )


def _kv_heads(fields: Fields, heads: int) -> int:
    """`num_kv_heads` counts in the new form only; in the old, one or all by `multi_query`."""
    grouped = fields.boolean("new_decoder_architecture", default=False)
    single = fields.boolean("multi_query", default=True)
    fields.pass_over("num_kv_heads", "n_head_kv")
    if not grouped:
        return 1 if single else heads
    kv_heads = fields.positive_int("num_kv_heads", "n_head_kv", default=heads)
    if fields.sound("num_attention_heads", "n_head", "num_kv_heads", "n_head_kv") and heads % kv_heads:
        fields.problem(f"num_attention_heads {heads} is not a multiple of num_kv_heads {kv_heads}")
    return kv_heads


def _form(fields: Fields) -> BlockForm:
    new = fields.boolean("new_decoder_architecture", default=False)
    if not fields.boolean("parallel_attn", default=True):
        if new:
            fields.problem("false beside new_decoder_architecture is not modelled", "parallel_attn", "expected true")
        return BlockForm.PRE_NORM
    norms = fields.integer("num_ln_in_parallel_attn", low=1, high=2, default=2 if new else 1)
    return BlockForm.PARALLEL_NORMS if norms == 2 else BlockForm.PARALLEL
