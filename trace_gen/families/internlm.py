"""InternLM 1 to 3: Llama with biases where the config has them, under names of its own."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import ModelArchitecture
from trace_gen.families import families
from trace_gen.families.llama import read_rotary_decoder


@families.register("internlm")
def internlm(name: str, fields: Fields) -> ModelArchitecture:
    """InternLM: `bias` is that of all projections of attention."""
    bias = fields.boolean("bias", default=True)
    return read_rotary_decoder(name, fields, qkv_bias=bias, output_bias=bias, mlp_bias=False)


@families.register("internlm2")
def internlm2(name: str, fields: Fields) -> ModelArchitecture:
    """InternLM2 and 2.5: the same."""
    return internlm(name, fields)


@families.register("internlm3")
def internlm3(name: str, fields: Fields) -> ModelArchitecture:
    """InternLM3: `qkv_bias` of the query, key and value projections, `bias` of all others."""
    qkv, other = fields.boolean("qkv_bias", default=False), fields.boolean("bias", default=False)
    return read_rotary_decoder(name, fields, qkv_bias=qkv, output_bias=other, mlp_bias=other)
