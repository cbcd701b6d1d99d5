"""Dense Qwen2 (biased query, key and value projections) and Qwen3 (normalised queries and keys).

With `use_sliding_window` the layers from `max_window_layers` on have a sliding window, or those that `layer_types`
lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from foundation.fields import Fields
from trace_gen.architecture import Layer, ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import families
from trace_gen.families.llama import Arrangement, all_alike, read_rotary_decoder
from trace_gen.mlp.dense import DenseMlp

FULL, SLIDING = "full_attention", "sliding_attention"


@families.register("qwen2")
def qwen2(name: str, fields: Fields) -> ModelArchitecture:
    """Qwen2 and Qwen2.5."""
    return read_rotary_decoder(name, fields, qkv_bias=True, arrange=_windows(fields))


@families.register("qwen3")
def qwen3(name: str, fields: Fields) -> ModelArchitecture:
    """Dense Qwen3."""
    return read_rotary_decoder(name, fields, qk_norm=True, arrange=_windows(fields))


def _windows(fields: Fields) -> Arrangement:
    """Return how the layers are arranged: all with full attention, or some with a sliding window."""
    if not fields.boolean("use_sliding_window", default=False):
        fields.pass_over("sliding_window", "max_window_layers", "layer_types")
        return all_alike
    window = fields.positive_int("sliding_window")
    first = fields.integer("max_window_layers", low=0, default=28)
    listed = fields.texts("layer_types")
    known = not set(listed) - {FULL, SLIDING}
    if not known:
        fields.problem(f"lists something else than {FULL} and {SLIDING}", "layer_types")

    def arrange(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterator[Layer]:
        if known and fields.sound("num_hidden_layers", "layer_types") and listed and len(listed) != count:
            fields.problem(f"lists {len(listed)} layers, but there are {count}", "layer_types")
        kinds = listed or [FULL if index < first else SLIDING for index in range(count)]
        for kind in kinds:
            yield Layer(replace(attention, window=window if kind == SLIDING else None), mlp)

    return arrange
