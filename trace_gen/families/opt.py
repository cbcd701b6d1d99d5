"""OPT: LayerNorm, learned positions (whose table has two rows more than positions), a ReLU MLP, tied embeddings."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import ModelArchitecture, NormKind, PositionKind
from trace_gen.families import families

POSITION_OFFSET = 2
"""Rows of the position table that stand before position 0 (Hugging Face: OPTLearnedPositionalEmbedding)."""


@families.register("opt")
def opt(name: str, fields: Fields) -> ModelArchitecture:
    """OPT with pre-norm blocks. OPT-350M (post-norm, narrower embeddings) is refused."""
    hidden = fields.positive_int("hidden_size")
    heads = fields.positive_int("num_attention_heads")
    positions = fields.positive_int("max_position_embeddings")
    bias = fields.boolean("enable_bias", default=True)
    if hidden % heads:
        fields.problem(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    if fields.positive_int("word_embed_proj_dim", default=hidden) != hidden:
        fields.problem(f"word_embed_proj_dim is not hidden_size {hidden} (projected embeddings are not supported)")
    if not fields.boolean("do_layer_norm_before", default=True):
        fields.problem("do_layer_norm_before is false (post-norm blocks are not supported)")
    return ModelArchitecture(
        name=name,
        model_type="opt",
        hidden_size=hidden,
        num_layers=fields.positive_int("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=max(1, hidden // heads),
        intermediate_size=fields.positive_int("ffn_dim"),
        vocab_size=fields.positive_int("vocab_size"),
        max_position=positions,
        gated_mlp=False,
        norm=NormKind.LAYER,
        positions=PositionKind.LEARNED,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=True),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bias,
        position_rows=positions + POSITION_OFFSET,
    )
