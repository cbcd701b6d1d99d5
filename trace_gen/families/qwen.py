"""Dense Qwen: Qwen2 (biased query, key and value projections), Qwen3 (normalised queries and keys), and the first Qwen.

With `use_sliding_window` the layers of Qwen2 and Qwen3 from `max_window_layers` on have a sliding window, or those that
`layer_types` lists.
"""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import Layer, LayerRun, ModelArchitecture, NormKind
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import MOST_LAYERS, families
from trace_gen.families.llama import Arrangement, all_alike, read_rotary_decoder, rotated_share
from trace_gen.families.windows import some_sliding
from trace_gen.mlp.dense import DenseMlp


@families.register("qwen2")
def qwen2(name: str, fields: Fields) -> ModelArchitecture:
    """Qwen1.5, Qwen2 and Qwen2.5."""
    return read_rotary_decoder(name, fields, qkv_bias=True, arrange=_windows(fields))


@families.register("qwen3")
def qwen3(name: str, fields: Fields) -> ModelArchitecture:
    """Dense Qwen3."""
    return read_rotary_decoder(name, fields, qk_norm=True, arrange=_windows(fields))


def _windows(fields: Fields) -> Arrangement:
    """Return how the layers are arranged: all with full attention, or some with a sliding window."""
    if not fields.boolean("use_sliding_window", default=False):
        fields.pass_over("sliding_window", "max_window_layers", "layer_types")
        return all_alike
    first = fields.integer("max_window_layers", low=0, default=28)
    return some_sliding(fields, lambda index: index >= first)


@families.register("qwen")
def qwen(name: str, fields: Fields) -> ModelArchitecture:
    """Qwen 1: `intermediate_size` is that of gate and up projection together, `kv_channels` the width of a head.

    The query, key and value projections are biased, the others unless `no_bias` (modeling_qwen.py of the model's own).
    """
    hidden, heads = fields.positive_int("hidden_size"), fields.positive_int("num_attention_heads")
    width = fields.positive_int("kv_channels", default=128)
    both = fields.positive_int("intermediate_size")
    if fields.sound("intermediate_size") and both % 2:
        fields.problem(f"{both} is odd, but it is the width of two projections", "intermediate_size")
    bias = not fields.boolean("no_bias", default=True)
    turned = int(width * rotated_share(fields, "rotary_pct"))
    attention = GroupedAttention(
        heads,
        heads,
        width,
        rotary=turned > 0,
        qkv_bias=True,
        output_bias=bias,
        rotary_dim=None if turned in (0, width) else turned,
    )
    layers = fields.positive_int("num_hidden_layers", high=MOST_LAYERS)
    return ModelArchitecture(
        name=name,
        model_type="qwen",
        hidden_size=hidden,
        runs=(LayerRun(Layer(attention, DenseMlp(max(1, both // 2), bias=bias)), layers),),
        vocab_size=fields.positive_int("vocab_size"),
        max_position=fields.positive_int("max_position_embeddings", "seq_length", default=8192),
        norm=NormKind.RMS,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=False),
    )
