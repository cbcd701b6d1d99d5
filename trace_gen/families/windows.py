"""Layers of which some have a sliding window: those that a config lists, or those of the family's own pattern."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from foundation.fields import Fields
from trace_gen.architecture import BlockForm, Layer
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families.llama import Arrangement
from trace_gen.mlp.dense import DenseMlp

FULL, SLIDING = "full_attention", "sliding_attention"


def some_sliding(
    fields: Fields, slides: Callable[[int], bool], form: BlockForm = BlockForm.PRE_NORM, window: int | None = None
) -> Arrangement:
    """Return how layers of `form` are arranged whose window is `sliding_window`, where they have one.

    `slides` says of a layer's number whether it has, unless `layer_types` lists what each layer has; `window` is what
    holds where the config says nothing of it (None: then that is a problem).
    """
    size = (
        fields.positive_int("sliding_window")
        if window is None
        else fields.positive_int("sliding_window", default=window)
    )
    listed = fields.texts("layer_types")
    known = not set(listed) - {FULL, SLIDING}
    if not known:
        fields.problem(f"lists something else than {FULL} and {SLIDING}", "layer_types")

    def arrange(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterator[Layer]:
        if known and fields.sound("num_hidden_layers", "layer_types") and listed and len(listed) != count:
            fields.problem(f"lists {len(listed)} layers, but there are {count}", "layer_types")
        sliding = [kind == SLIDING for kind in listed] or [slides(index) for index in range(count)]
        for one in sliding:
            yield Layer(replace(attention, window=size if one else None), mlp, form)

    return arrange
