"""Gemma 1 to 3: scaled, tied embeddings; from Gemma 2 on four norms a layer and sliding beside full attention."""

from __future__ import annotations

from dataclasses import replace

from foundation.fields import Fields
from trace_gen.architecture import BlockForm, ModelArchitecture
from trace_gen.attention.grouped import SOFTCAP_FLOPS
from trace_gen.families import families, text_part
from trace_gen.families.llama import Arrangement, read_rotary_decoder
from trace_gen.families.windows import some_sliding

_TEXT_DEFAULTS = {
    "model_type": "gemma3_text",
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}
"""What Gemma 3's multimodal configs leave out of their text part (Transformers' Gemma3TextConfig)."""


@families.register("gemma")
def gemma(name: str, fields: Fields) -> ModelArchitecture:
    """Gemma and CodeGemma."""
    return replace(read_rotary_decoder(name, fields, tied=True), scales_embedding=True)


@families.register("gemma2")
def gemma2(name: str, fields: Fields) -> ModelArchitecture:
    """Gemma 2: every second layer slides, beginning with the first; scores and logits are capped."""
    fields.suppose({"sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0})
    fields.pass_over("sliding_window_size")  # the window again
    return _sandwiched(name, fields, some_sliding(fields, lambda layer: layer % 2 == 0, BlockForm.SANDWICH))


def _sandwiched(name: str, fields: Fields, arrange: Arrangement, *, qk_norm: bool = False) -> ModelArchitecture:
    """Return what Gemma 2 and 3 have in common; scores and logits are capped where the config has a cap."""
    capped = fields.positive_number("attn_logit_softcapping", default=None) is not None
    flops = SOFTCAP_FLOPS if capped else 0
    read = read_rotary_decoder(name, fields, qk_norm=qk_norm, score_flops=flops, tied=True, arrange=arrange)
    caps = fields.positive_number("final_logit_softcapping", default=None) is not None
    return replace(read, scales_embedding=True, caps_logits=caps)


@families.register("gemma3_text")
def gemma3_text(name: str, fields: Fields) -> ModelArchitecture:
    """Gemma 3: five sliding layers, then a full one, unless `sliding_window_pattern` or `layer_types` say otherwise."""
    fields.suppose(_TEXT_DEFAULTS)
    every = fields.positive_int("sliding_window_pattern", "_sliding_window_pattern")
    arrange = some_sliding(fields, lambda layer: (layer + 1) % every != 0, BlockForm.SANDWICH)
    return _sandwiched(name, fields, arrange, qk_norm=True)


@families.register("gemma3")
def gemma3(name: str, fields: Fields) -> ModelArchitecture:
    """Multimodal Gemma 3, whose text part alone is read."""
    return gemma3_text(name, text_part(fields))
