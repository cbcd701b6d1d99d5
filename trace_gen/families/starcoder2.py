"""StarCoder2: LayerNorm, rotary positions, a GELU MLP of one projection up and one down, biases everywhere."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import ModelArchitecture, NormKind
from trace_gen.families import families
from trace_gen.families.llama import read_rotary_decoder


@families.register("starcoder2")
def starcoder2(name: str, fields: Fields) -> ModelArchitecture:
    """`use_bias` is that of all projections; `sliding_window` null means full attention."""
    bias = fields.boolean("use_bias", default=True)
    return read_rotary_decoder(
        name,
        fields,
        norm=NormKind.LAYER,
        qkv_bias=bias,
        output_bias=bias,
        window=fields.positive_int("sliding_window", default=None),
        gated=False,
        mlp_bias=bias,
        tied=True,
    )
