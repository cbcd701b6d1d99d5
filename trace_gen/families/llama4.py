"""Llama 4 Scout and Maverick, their text decoder: experts in every or every other layer, one of them and a shared one
for each token.

Three layers of four rotate positions and attend within chunks of a sequence; the fourth has no positions and attends to
all (Hugging Face `Llama4TextConfig`: `no_rope_layers`, `attention_chunk_size`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from foundation.fields import Fields
from trace_gen.architecture import Layer, ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import families
from trace_gen.families.experts import read_experts
from trace_gen.families.llama import Arrangement, read_rotary_decoder
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.experts import Experts

CHUNKED, FULL = "chunked_attention", "full_attention"


@families.register("llama4")
def llama4(name: str, fields: Fields) -> ModelArchitecture:
    """Both parts; the decoder is in `text_config`."""
    text = fields.object("text_config")
    if not text.values and fields.sound("text_config"):
        fields.problem("text_config is missing")
        fields.finish()  # of an empty one, nothing else is to be said
    return replace(llama4_text(name, text), model_type="llama4")


@families.register("llama4_text")
def llama4_text(name: str, fields: Fields) -> ModelArchitecture:
    """The decoder alone. Its queries and keys are normalised without weights."""
    width = fields.positive_int("intermediate_size")
    experts = replace(read_experts(fields, "num_local_experts", width), shared_width=width)
    dense = DenseMlp(fields.positive_int("intermediate_size_mlp", default=width))
    return read_rotary_decoder(name, fields, arrange=_arrangement(fields, experts, dense))


def _arrangement(fields: Fields, experts: Experts, dense: DenseMlp) -> Arrangement:
    step = fields.positive_int("interleave_moe_layer_step", default=1)
    listed_sparse = fields.integers("moe_layers", low=0)
    chunk = fields.positive_int("attention_chunk_size", default=None)
    normed = fields.boolean("use_qk_norm", default=True)
    rotates = _rotating(fields)
    kinds = fields.texts("layer_types")
    if set(kinds) - {CHUNKED, FULL}:
        fields.problem(f"lists something else than {CHUNKED} and {FULL}", "layer_types")
        kinds = ()

    def arrange(attention: GroupedAttention, mlp: DenseMlp, count: int) -> Iterator[Layer]:
        for field, listed in (("no_rope_layers", rotates), ("layer_types", kinds)):
            if fields.sound("num_hidden_layers", field) and listed and len(listed) != count:
                fields.problem(f"lists {len(listed)} layers, but there are {count}", field)
                return
        for index in range(count):
            rotary = rotates[index] if rotates else (index + 1) % _interval(fields) != 0
            chunked = kinds[index] == CHUNKED if kinds else rotary
            own = replace(attention, rotary=rotary, chunk=chunk if chunked else None)
            own = replace(own, qk_norm=normed and rotary, qk_norm_weights=False)
            sparse = index in listed_sparse if listed_sparse else (index + 1) % step == 0
            yield Layer(own, experts if sparse else dense)

    return arrange


def _rotating(fields: Fields) -> tuple[bool, ...]:
    """Return for each layer whether it rotates positions; the field `no_rope_layers` has 1 for those that do."""
    return tuple(map(bool, fields.integers("no_rope_layers", low=0, high=1)))


def _interval(fields: Fields) -> int:
    return fields.positive_int("no_rope_layer_interval", default=4)
