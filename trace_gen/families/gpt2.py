"""GPT-2, and GPT-3 written in its form: LayerNorm, learned positions, biases everywhere, tied embeddings."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import Layer, LayerRun, ModelArchitecture, NormKind
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import MOST_LAYERS, families
from trace_gen.mlp.dense import DenseMlp


@families.register("gpt2")
def gpt2(name: str, fields: Fields) -> ModelArchitecture:
    """Fields `n_embd`, `n_layer`, `n_head`, `n_positions`; `n_inner` is 4 x `n_embd` where absent."""
    hidden = fields.positive_int("n_embd", "hidden_size")
    heads = fields.positive_int("n_head", "num_attention_heads")
    positions = fields.positive_int("n_positions", "n_ctx", "max_position_embeddings")
    if fields.sound("n_embd", "n_head") and hidden % heads:
        fields.problem(f"n_embd {hidden} is not a multiple of n_head {heads}")
    attention = GroupedAttention(heads, heads, max(1, hidden // heads), rotary=False, qkv_bias=True, output_bias=True)
    mlp = DenseMlp(fields.positive_int("n_inner", default=4 * hidden), gated=False, bias=True)
    layers = fields.positive_int("n_layer", "num_hidden_layers", high=MOST_LAYERS)
    return ModelArchitecture(
        name=name,
        model_type="gpt2",
        hidden_size=hidden,
        runs=(LayerRun(Layer(attention, mlp), layers),),
        vocab_size=fields.positive_int("vocab_size"),
        max_position=positions,
        norm=NormKind.LAYER,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=True),
        position_rows=positions,
    )
