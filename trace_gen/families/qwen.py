"""Dense Qwen2 (biased query, key and value projections) and Qwen3 (normalised queries and keys)."""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import ModelArchitecture
from trace_gen.families import families
from trace_gen.families.llama import read_rotary_decoder


@families.register("qwen2")
def qwen2(name: str, fields: Fields) -> ModelArchitecture:
    """Qwen2 and Qwen2.5; a config that uses a sliding window on some layers only is refused."""
    _refuse_mixed_window(fields)
    return read_rotary_decoder(name, fields, qkv_bias=True)


@families.register("qwen3")
def qwen3(name: str, fields: Fields) -> ModelArchitecture:
    """Dense Qwen3."""
    _refuse_mixed_window(fields)
    return read_rotary_decoder(name, fields, qk_norm=True)


def _refuse_mixed_window(fields: Fields) -> None:
    if fields.boolean("use_sliding_window", default=False):
        fields.problem("use_sliding_window is true (expected false: layers of different attention are not supported)")
