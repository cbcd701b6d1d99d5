"""GPT-2, and GPT-3 written in its form: LayerNorm, learned positions, biases everywhere, tied embeddings."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import ModelArchitecture, NormKind, PositionKind
from trace_gen.families import families


@families.register("gpt2")
def gpt2(name: str, fields: Fields) -> ModelArchitecture:
    """Fields `n_embd`, `n_layer`, `n_head`, `n_positions`; `n_inner` is 4 x `n_embd` where absent."""
    hidden = fields.positive_int("n_embd", "hidden_size")
    heads = fields.positive_int("n_head", "num_attention_heads")
    positions = fields.positive_int("n_positions", "n_ctx", "max_position_embeddings")
    if hidden % heads:
        fields.problem(f"n_embd {hidden} is not a multiple of n_head {heads}")
    return ModelArchitecture(
        name=name,
        model_type="gpt2",
        hidden_size=hidden,
        num_layers=fields.positive_int("n_layer", "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=max(1, hidden // heads),
        intermediate_size=fields.positive_int("n_inner", default=4 * hidden),
        vocab_size=fields.positive_int("vocab_size"),
        max_position=positions,
        gated_mlp=False,
        norm=NormKind.LAYER,
        positions=PositionKind.LEARNED,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=True),
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        position_rows=positions,
    )
