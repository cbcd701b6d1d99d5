"""GPT-NeoX and Pythia: attention and MLP side by side, each with its LayerNorm; a part of each head is rotated."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import BlockForm, ModelArchitecture, NormKind
from trace_gen.families import families
from trace_gen.families.llama import all_of_form, read_rotary_decoder, rotated_share


@families.register("gpt_neox")
def gpt_neox(name: str, fields: Fields) -> ModelArchitecture:
    """Biases everywhere but in the LM head; blocks follow each other where `use_parallel_residual` is false."""
    fields.suppose({"attention_bias": True})
    parallel = fields.boolean("use_parallel_residual", default=True)
    return read_rotary_decoder(
        name,
        fields,
        norm=NormKind.LAYER,
        rotary_share=rotated_share(fields, "rotary_pct", 0.25),
        gated=False,
        mlp_bias=True,
        arrange=all_of_form(BlockForm.PARALLEL_NORMS if parallel else BlockForm.PRE_NORM),
    )
