"""Mixtures of experts that are Llama-like otherwise: Mixtral, Qwen2-MoE and Qwen3-MoE.

What differs between them is data: field names, biases, normalised queries and keys, shared experts, dense layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from foundation.fields import Fields
from trace_gen.architecture import Layer, ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import families
from trace_gen.families.llama import Arrangement, read_rotary_decoder
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.experts import Experts

MOST_EXPERTS = 2048
"""No model comes near; the bytes of all experts of a block stay within 64 bits."""


@families.register("mixtral")
def mixtral(name: str, fields: Fields) -> ModelArchitecture:
    """Mixtral: `num_local_experts` experts of width `intermediate_size`; `sliding_window` null means full attention."""
    experts = read_experts(fields, "num_local_experts", fields.positive_int("intermediate_size"))

    def arrange(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterator[Layer]:
        return (Layer(attention, experts) for _ in range(count))

    window = fields.positive_int("sliding_window", default=None)
    return read_rotary_decoder(name, fields, window=window, arrange=arrange)


@families.register("qwen2_moe")
def qwen2_moe(name: str, fields: Fields) -> ModelArchitecture:
    """Qwen1.5-MoE and Qwen2-MoE: biased query, key and value projections, gated shared experts."""
    width, shared = (fields.positive_int(f"{kind}_intermediate_size") for kind in ("moe", "shared_expert"))
    experts = replace(read_experts(fields, "num_experts", width), shared_width=shared, shared_gate=True)
    return read_rotary_decoder(name, fields, qkv_bias=True, arrange=_sparse_layers(fields, experts))


@families.register("qwen3_moe")
def qwen3_moe(name: str, fields: Fields) -> ModelArchitecture:
    """Qwen3-MoE: normalised queries and keys, no shared experts."""
    experts = read_experts(fields, "num_experts", fields.positive_int("moe_intermediate_size"))
    return read_rotary_decoder(name, fields, qk_norm=True, arrange=_sparse_layers(fields, experts))


def read_experts(fields: Fields, count_field: str, width: int) -> Experts:
    """Return the mixture of `fields[count_field]` experts of `width`, `num_experts_per_tok` of them for a token."""
    count, chosen = fields.positive_int(count_field, high=MOST_EXPERTS), fields.positive_int("num_experts_per_tok")
    if fields.sound(count_field, "num_experts_per_tok") and chosen > count:
        fields.problem(f"num_experts_per_tok {chosen} is more than {count_field} {count}")
    return Experts(count, chosen, width)


def _sparse_layers(fields: Fields, experts: Experts) -> Arrangement:
    """Every `decoder_sparse_step`-th layer has experts, but for `mlp_only_layers`; the others have an MLP."""
    if fields.boolean("use_sliding_window", default=False):
        fields.problem("true is not supported for mixtures of experts", "use_sliding_window", "expected false")
    fields.pass_over("sliding_window", "max_window_layers")
    step = fields.positive_int("decoder_sparse_step", default=1)
    dense = frozenset(fields.integers("mlp_only_layers", low=0))

    def arrange(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterator[Layer]:
        for index in range(count):
            sparse = index not in dense and (index + 1) % step == 0
            yield Layer(attention, experts if sparse else mlp)

    return arrange
