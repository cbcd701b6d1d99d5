"""Phi: 1, 1.5 and 2 (attention and MLP side by side after one LayerNorm, biases everywhere), and 3 to 4 (Llama-like).

Phi-3's checkpoints fuse the query, key and value projections, and gate and up: the same weights and work.
"""

from __future__ import annotations

from dataclasses import replace

from foundation.fields import Fields
from trace_gen.architecture import BlockForm, ModelArchitecture, NormKind
from trace_gen.families import families
from trace_gen.families.llama import all_of_form, read_rotary_decoder, rotated_share


@families.register("phi")
def phi(name: str, fields: Fields) -> ModelArchitecture:
    """Phi-1, Phi-1.5 and Phi-2; the LM head has a bias, too."""
    read = read_rotary_decoder(
        name,
        fields,
        norm=NormKind.LAYER,
        qkv_bias=True,
        output_bias=True,
        rotary_share=rotated_share(fields, default=0.5),
        gated=False,
        mlp_bias=True,
        arrange=all_of_form(BlockForm.PARALLEL),
    )
    return replace(read, head_bias=True)


@families.register("phi3")
def phi3(name: str, fields: Fields) -> ModelArchitecture:
    """Phi-3, Phi-3.5-mini, Phi-4 and Phi-4-mini; a window as long as all positions is none."""
    window = fields.positive_int("sliding_window", default=None)
    positions = fields.positive_int("max_position_embeddings", default=2048)
    if window is not None and window >= positions:
        window = None
    return read_rotary_decoder(
        name, fields, output_bias=False, rotary_share=rotated_share(fields), window=window, mlp_bias=False
    )
