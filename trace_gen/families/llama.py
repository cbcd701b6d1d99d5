"""Llama and all that is like it: rotary positions, an MLP, fields by the same names.

What differs between them is data: norms, biases, normalised queries and keys, a sliding window, how much of a head is
rotated, tied embeddings; and how layers are arranged that are not all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat

from foundation.fields import Fields
from trace_gen.architecture import BlockForm, Layer, ModelArchitecture, NormKind, layer_runs
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import MOST_LAYERS, families
from trace_gen.mlp.dense import DenseMlp

Arrangement = Callable[[GroupedAttention, DenseMlp, int], Iterable[Layer]]
"""Makes all layers of a model, in order, from what a config says of attention and MLP, and their number."""


def all_alike(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterable[Layer]:
    """Return `count` like layers."""
    return repeat(Layer(attention, mlp), count)


def all_of_form(form: BlockForm) -> Arrangement:
    """Return the arrangement of like layers whose blocks have `form`."""

    def arrange(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterable[Layer]:
        return repeat(Layer(attention, mlp, form), count)

    return arrange


def read_rotary_decoder(
    name: str,
    fields: Fields,
    *,
    norm: NormKind = NormKind.RMS,
    qkv_bias: bool = False,
    output_bias: bool | None = None,
    qk_norm: bool = False,
    rotary_share: float = 1.0,
    window: int | None = None,
    score_flops: int = 0,
    gated: bool = True,
    mlp_bias: bool | None = None,
    tied: bool = False,
    arrange: Arrangement = all_alike,
) -> ModelArchitecture:
    """Return the architecture of a Llama-like config; the keyword arguments are what the family fixes.

    `output_bias`, `mlp_bias`: None for what `attention_bias` and `mlp_bias` of the config say; `rotary_share`: the part
    of each head that is rotated; `tied`: what holds where the config says nothing of tied embeddings.
    """
    hidden, heads, kv_heads, width = _heads(fields)
    turned = int(width * rotary_share)
    attention_bias = fields.boolean("attention_bias", default=False)
    attention = GroupedAttention(
        heads,
        kv_heads,
        width,
        rotary=turned > 0,
        qkv_bias=qkv_bias or attention_bias,
        output_bias=attention_bias if output_bias is None else output_bias,
        qk_norm=qk_norm,
        window=window,
        rotary_dim=None if turned in (0, width) else turned,
        score_flops=score_flops,
    )
    bias = fields.boolean("mlp_bias", default=False) if mlp_bias is None else mlp_bias
    mlp = DenseMlp(fields.positive_int("intermediate_size"), gated, bias)
    count = fields.positive_int("num_hidden_layers", high=MOST_LAYERS)
    return ModelArchitecture(
        name=name,
        model_type=fields.text("model_type"),
        hidden_size=hidden,
        runs=layer_runs(arrange(attention, mlp, count)),
        vocab_size=fields.positive_int("vocab_size"),
        max_position=fields.positive_int("max_position_embeddings", default=2048),
        norm=norm,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=tied),
    )


def _heads(fields: Fields) -> tuple[int, int, int, int]:
    """Return the hidden size, the numbers of heads and of KV heads, and the width of a head."""
    heads = fields.positive_int("num_attention_heads")
    kv_heads = fields.positive_int("num_key_value_heads", default=heads)
    hidden = fields.positive_int("hidden_size")
    both = fields.sound("hidden_size", "num_attention_heads")
    if both and not fields.has("head_dim") and hidden % heads:
        fields.problem(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and head_dim is absent")
    if fields.sound("num_attention_heads", "num_key_value_heads") and heads % kv_heads:
        fields.problem(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    return hidden, heads, kv_heads, fields.positive_int("head_dim", default=max(1, hidden // heads))


def rotated_share(fields: Fields, name: str = "partial_rotary_factor", default: float = 1.0) -> float:
    """Return the part of each head that is rotated, as the field `name` says."""
    return fields.number(name, low=0, high=1, default=default)


@families.register("llama")
def llama(name: str, fields: Fields) -> ModelArchitecture:
    """Llama 1 to 3.3, Code Llama, Yi, and other models published in their form."""
    return read_rotary_decoder(name, fields)
