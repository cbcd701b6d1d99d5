"""Llama-like families: RMSNorm, rotary positions, a gated MLP; Llama 1 to 3.1, Mistral, Qwen2 and Qwen3.

What differs between them is data: biases, normalised queries and keys, a sliding window, tied embeddings; and how
layers are arranged that are not all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat

from foundation.fields import Fields
from trace_gen.architecture import Layer, ModelArchitecture, NormKind, layer_runs
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import MOST_LAYERS, families
from trace_gen.mlp.dense import DenseMlp

Arrangement = Callable[[GroupedAttention, DenseMlp, int], Iterable[Layer]]
"""Makes all layers of a model, in order, from what a config says of attention and MLP, and their number."""


def all_alike(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterable[Layer]:
    """Return `count` like layers."""
    return repeat(Layer(attention, mlp), count)


def read_rotary_decoder(
    name: str,
    fields: Fields,
    *,
    qkv_bias: bool = False,
    qk_norm: bool = False,
    window: int | None = None,
    arrange: Arrangement = all_alike,
) -> ModelArchitecture:
    """Return the architecture of a Llama-like config; the keyword arguments are what the family fixes."""
    heads = fields.positive_int("num_attention_heads")
    kv_heads = fields.positive_int("num_key_value_heads", default=heads)
    hidden = fields.positive_int("hidden_size")
    both = fields.sound("hidden_size", "num_attention_heads")
    if both and not fields.has("head_dim") and hidden % heads:
        fields.problem(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and head_dim is absent")
    if fields.sound("num_attention_heads", "num_key_value_heads") and heads % kv_heads:
        fields.problem(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    attention_bias = fields.boolean("attention_bias", default=False)
    attention = GroupedAttention(
        heads,
        kv_heads,
        fields.positive_int("head_dim", default=max(1, hidden // heads)),
        qkv_bias=qkv_bias or attention_bias,
        output_bias=attention_bias,
        qk_norm=qk_norm,
        window=window,
    )
    mlp = DenseMlp(fields.positive_int("intermediate_size"), bias=fields.boolean("mlp_bias", default=False))
    count = fields.positive_int("num_hidden_layers", high=MOST_LAYERS)
    return ModelArchitecture(
        name=name,
        model_type=fields.text("model_type"),
        hidden_size=hidden,
        runs=layer_runs(arrange(attention, mlp, count)),
        vocab_size=fields.positive_int("vocab_size"),
        max_position=fields.positive_int("max_position_embeddings", default=2048),
        norm=NormKind.RMS,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=False),
    )


@families.register("llama")
def llama(name: str, fields: Fields) -> ModelArchitecture:
    """Llama 1, 2, 3 and 3.1."""
    return read_rotary_decoder(name, fields)
