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
from trace_gen.families.qwen import FULL, SLIDING
from trace_gen.mlp.dense import DenseMlp


@families.register("gpt_oss")
def gpt_oss(name: str, fields: Fields) -> ModelArchitecture:
    """gpt-oss-20b and 120b; without `layer_types` every other layer from the first on has the window."""
    experts = read_experts(fields, "num_local_experts", fields.positive_int("intermediate_size"))
    experts = replace(experts, bias=True, router_bias=True)
    window = fields.positive_int("sliding_window", default=128)
    listed = fields.texts("layer_types")
    known = not set(listed) - {FULL, SLIDING}
    if not known:
        fields.problem(f"lists something else than {FULL} and {SLIDING}", "layer_types")

    def arrange(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterator[Layer]:
        if known and fields.sound("num_hidden_layers", "layer_types") and listed and len(listed) != count:
            fields.problem(f"lists {len(listed)} layers, but there are {count}", "layer_types")
        kinds = listed or [FULL if index % 2 else SLIDING for index in range(count)]
        biased = replace(attention, qkv_bias=bias, output_bias=bias, sinks=True)
        for kind in kinds:
            yield Layer(replace(biased, window=window if kind == SLIDING else None), experts)

    bias = fields.boolean("attention_bias", default=True)
    return read_rotary_decoder(name, fields, arrange=arrange)
