"""Mistral: Llama with an optional sliding window on every layer."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import ModelArchitecture
from trace_gen.families import families
from trace_gen.families.llama import read_rotary_decoder


@families.register("mistral")
def mistral(name: str, fields: Fields) -> ModelArchitecture:
    """Mistral 7B and its like; `sliding_window` null means full attention."""
    return read_rotary_decoder(name, fields, window=fields.positive_int("sliding_window", default=None))
