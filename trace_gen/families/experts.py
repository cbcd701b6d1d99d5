"""Mixtures of experts that are Llama-like otherwise: Mixtral, Qwen2-MoE and Qwen3-MoE.

What differs between them is data: field names, biases, normalised queries and keys, shared experts.
"""

from __future__ import annotations

from dataclasses import replace

from foundation.fields import Fields
from trace_gen.architecture import Experts, ModelArchitecture
from trace_gen.families import families
from trace_gen.families.llama import read_rotary_decoder

MOST_EXPERTS = 2048
"""No model comes near; the bytes of all experts of a block stay within 64 bits."""


@families.register("mixtral")
def mixtral(name: str, fields: Fields) -> ModelArchitecture:
    """Mixtral: `num_local_experts` experts of width `intermediate_size`; `sliding_window` null means full attention."""
    window = fields.positive_int("sliding_window") if fields.has("sliding_window") else None
    dense = read_rotary_decoder(name, fields, sliding_window=window)
    return replace(dense, experts=_read_experts(fields, "num_local_experts", dense.intermediate_size))


@families.register("qwen2_moe")
def qwen2_moe(name: str, fields: Fields) -> ModelArchitecture:
    """Qwen1.5-MoE and Qwen2-MoE: biased query, key and value projections, gated shared experts."""
    _refuse_mixed_layers(fields)
    width, shared = (fields.positive_int(f"{kind}_intermediate_size") for kind in ("moe", "shared_expert"))
    experts = replace(_read_experts(fields, "num_experts", width), shared_intermediate_size=shared, shared_gate=True)
    return replace(read_rotary_decoder(name, fields, qkv_bias=True), experts=experts)


@families.register("qwen3_moe")
def qwen3_moe(name: str, fields: Fields) -> ModelArchitecture:
    """Qwen3-MoE: normalised queries and keys, no shared experts."""
    _refuse_mixed_layers(fields)
    experts = _read_experts(fields, "num_experts", fields.positive_int("moe_intermediate_size"))
    return replace(read_rotary_decoder(name, fields, qk_norm=True), experts=experts)


def _read_experts(fields: Fields, count_field: str, width: int) -> Experts:
    count, chosen = fields.positive_int(count_field), fields.positive_int("num_experts_per_tok")
    if chosen > count:
        fields.problem(f"num_experts_per_tok {chosen} is more than {count_field} {count}")
    if count > MOST_EXPERTS:
        fields.problem(f"{count_field} is {count} (expected at most {MOST_EXPERTS})")
    return Experts(count, chosen, width)


def _refuse_mixed_layers(fields: Fields) -> None:
    """Report what makes layers differ; blocks are worked out once."""
    if fields.boolean("use_sliding_window", default=False):
        fields.problem("use_sliding_window is true (expected false: layers of different attention are not supported)")
    if fields.positive_int("decoder_sparse_step", default=1) != 1:
        fields.problem("decoder_sparse_step is not 1 (dense layers between the experts are not supported)")
    if fields.values.get("mlp_only_layers"):
        fields.problem("mlp_only_layers is not empty (dense layers between the experts are not supported)")
