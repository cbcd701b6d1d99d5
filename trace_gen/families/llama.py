"""Llama-like families: RMSNorm, rotary positions, a gated MLP; Llama 1 to 3.1, Mistral, Qwen2 and Qwen3.

What differs between them is data: biases, normalised queries and keys, a sliding window, tied embeddings.
"""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import ModelArchitecture, NormKind, PositionKind
from trace_gen.families import families


def read_rotary_decoder(
    name: str, fields: Fields, *, qkv_bias: bool = False, qk_norm: bool = False, sliding_window: int | None = None
) -> ModelArchitecture:
    """Return the architecture of a Llama-like config; the keyword arguments are what the family fixes."""
    heads = fields.positive_int("num_attention_heads")
    kv_heads = fields.positive_int("num_key_value_heads", default=heads)
    hidden = fields.positive_int("hidden_size")
    if not fields.has("head_dim") and hidden % heads:
        fields.problem(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and head_dim is absent")
    if heads % kv_heads:
        fields.problem(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    attention_bias = fields.boolean("attention_bias", default=False)
    return ModelArchitecture(
        name=name,
        model_type=fields.text("model_type"),
        hidden_size=hidden,
        num_layers=fields.positive_int("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=fields.positive_int("head_dim", default=max(1, hidden // heads)),
        intermediate_size=fields.positive_int("intermediate_size"),
        vocab_size=fields.positive_int("vocab_size"),
        max_position=fields.positive_int("max_position_embeddings", default=2048),
        gated_mlp=True,
        norm=NormKind.RMS,
        positions=PositionKind.ROTARY,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=False),
        qkv_bias=qkv_bias or attention_bias,
        output_bias=attention_bias,
        mlp_bias=fields.boolean("mlp_bias", default=False),
        qk_norm=qk_norm,
        sliding_window=sliding_window,
    )


@families.register("llama")
def llama(name: str, fields: Fields) -> ModelArchitecture:
    """Llama 1, 2, 3 and 3.1."""
    return read_rotary_decoder(name, fields)
