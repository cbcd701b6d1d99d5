"""StableLM 2 and 3B-4E1T: Llama with LayerNorm, of which a quarter of each head is rotated."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import BlockForm, ModelArchitecture, NormKind
from trace_gen.families import families
from trace_gen.families.llama import all_of_form, read_rotary_decoder, rotated_share


@families.register("stablelm")
def stablelm(name: str, fields: Fields) -> ModelArchitecture:
    """`use_qkv_bias`; attention and MLP are side by side where `use_parallel_residual` is true."""
    parallel = fields.boolean("use_parallel_residual", default=False)
    return read_rotary_decoder(
        name,
        fields,
        norm=NormKind.LAYER,
        qkv_bias=fields.boolean("use_qkv_bias", default=False),
        output_bias=False,
        rotary_share=rotated_share(fields, default=0.25),
        mlp_bias=False,
        arrange=all_of_form(BlockForm.PARALLEL if parallel else BlockForm.PRE_NORM),
    )
