"""gpt-oss: sliding and full attention take turns, with a learned sink a head; all layers have experts, with biases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from foundation.fields import Fields
from trace_gen.architecture import Layer, ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import families
from trace_gen.families.experts import read_experts
from trace_gen.families.llama import read_rotary_decoder
from trace_gen.families.windows import some_sliding
from trace_gen.mlp.dense import DenseMlp


@families.register("gpt_oss")
def gpt_oss(name: str, fields: Fields) -> ModelArchitecture:
    """gpt-oss-20b and 120b; without `layer_types` every other layer from the first on has the window."""
    experts = read_experts(fields, "num_local_experts", fields.positive_int("intermediate_size"))
    experts = replace(experts, bias=True, router_bias=True)
    bias = fields.boolean("attention_bias", default=True)
    sliding = some_sliding(fields, lambda index: index % 2 == 0, window=128)

    def arrange(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterator[Layer]:
        own = replace(attention, qkv_bias=bias, output_bias=bias, sinks=True)
        return (replace(layer, mlp=experts) for layer in sliding(own, mlp, count))

    return read_rotary_decoder(name, fields, arrange=arrange)
