"""Phi-3.5-MoE: a mixture of experts with LayerNorm, biases of all attention's projections and of the LM head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from foundation.fields import Fields
from trace_gen.architecture import Layer, ModelArchitecture, NormKind
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import families
from trace_gen.families.experts import read_experts
from trace_gen.families.llama import read_rotary_decoder
from trace_gen.mlp.dense import DenseMlp


@families.register("phimoe")
def phimoe(name: str, fields: Fields) -> ModelArchitecture:
    """`num_local_experts` experts of width `intermediate_size`; a window as long as the longest sequence is none."""
    experts = read_experts(fields, "num_local_experts", fields.positive_int("intermediate_size"))

    def arrange(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterator[Layer]:
        return (Layer(attention, experts) for _ in range(count))

    window = fields.positive_int("sliding_window", default=None)
    longest = fields.positive_int("max_position_embeddings", default=131072)
    window = None if window is not None and window >= longest else window
    model = read_rotary_decoder(name, fields, window=window, arrange=arrange)
    bias = fields.boolean("lm_head_bias", default=False)
    return replace(model, norm=NormKind.LAYER, head_bias=bias, max_position=longest)
