"""The sizes by which profiles say which model they are of."""

from __future__ import annotations

from collections.abc import Mapping

from trace_gen.architecture import ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.mlp.dense import DenseMlp


def grouped_sizes(model: ModelArchitecture) -> Mapping[str, int]:
    """Return sizes of the model's first layer by their names in a ``config.json``, as far as it has them."""
    layer = model.layers[0]
    found: dict[str, int] = {}
    if isinstance(layer.attention, GroupedAttention):
        found |= {"num_attention_heads": layer.attention.heads, "num_key_value_heads": layer.attention.kv_heads}
    if isinstance(layer.mlp, DenseMlp):
        found["intermediate_size"] = layer.mlp.width
    return found
