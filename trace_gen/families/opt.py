"""OPT: LayerNorm, learned positions (whose table has two rows more than positions), a ReLU MLP, tied embeddings."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import BlockForm, Layer, LayerRun, ModelArchitecture, NormKind
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import MOST_LAYERS, families
from trace_gen.mlp.dense import DenseMlp

POSITION_OFFSET = 2
"""Rows of the position table that stand before position 0 (Hugging Face: OPTLearnedPositionalEmbedding)."""


@families.register("opt")
def opt(name: str, fields: Fields) -> ModelArchitecture:
    """OPT; blocks are post-norm where `do_layer_norm_before` is false, and then no norm follows the last (OPT-350M)."""
    hidden = fields.positive_int("hidden_size")
    heads = fields.positive_int("num_attention_heads")
    positions = fields.positive_int("max_position_embeddings")
    bias = fields.boolean("enable_bias", default=True)
    if fields.sound("hidden_size", "num_attention_heads") and hidden % heads:
        fields.problem(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    projected = fields.positive_int("word_embed_proj_dim", default=hidden)
    before = fields.boolean("do_layer_norm_before", default=True)
    if not before and projected == hidden:
        fields.problem("false is modelled with projected embeddings only", "do_layer_norm_before", "expected true")
    if not fields.boolean("layer_norm_elementwise_affine", default=True):
        fields.problem("false is not modelled", "layer_norm_elementwise_affine", "expected true")
    attention = GroupedAttention(heads, heads, max(1, hidden // heads), rotary=False, qkv_bias=bias, output_bias=bias)
    mlp = DenseMlp(fields.positive_int("ffn_dim"), gated=False, bias=bias)
    layers = fields.positive_int("num_hidden_layers", high=MOST_LAYERS)
    return ModelArchitecture(
        name=name,
        model_type="opt",
        hidden_size=hidden,
        runs=(LayerRun(Layer(attention, mlp, BlockForm.PRE_NORM if before else BlockForm.POST_NORM), layers),),
        vocab_size=fields.positive_int("vocab_size"),
        max_position=positions,
        norm=NormKind.LAYER,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=True),
        position_rows=positions + POSITION_OFFSET,
        embedding_size=None if projected == hidden else projected,
        final_norm=before,
    )
