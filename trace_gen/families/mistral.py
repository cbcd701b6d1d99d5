"""Mistral: Llama with an optional sliding window on every layer."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import ModelArchitecture
from trace_gen.families import families, text_part
from trace_gen.families.llama import read_rotary_decoder


@families.register("mistral")
def mistral(name: str, fields: Fields) -> ModelArchitecture:
    """Mistral 7B, Nemo, Small, Large and Ministral 8B; `sliding_window` null means full attention."""
    return read_rotary_decoder(name, fields, window=fields.positive_int("sliding_window", default=None))


@families.register("mistral3")
def mistral3(name: str, fields: Fields) -> ModelArchitecture:
    """Multimodal Mistral Small 3.1 and 3.2, whose text part alone is read."""
    return mistral(name, text_part(fields))
