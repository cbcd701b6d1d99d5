"""GLM-4: grouped attention of which half a head is rotated, biased queries, keys and values; in three forms.

`glm` is GLM-4-9B as Transformers has it, `glm4` the models of April 2025 (norms after attention and MLP, too), and
`chatglm` the form in which the first of them, ChatGLM2 and ChatGLM3 were published, with names of its own.
"""

from __future__ import annotations

from foundation.fields import Fields
from trace_gen.architecture import BlockForm, Layer, LayerRun, ModelArchitecture, NormKind
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import MOST_LAYERS, families
from trace_gen.families.llama import Arrangement, all_alike, all_of_form, read_rotary_decoder, rotated_share
from trace_gen.mlp.dense import DenseMlp


@families.register("glm")
def glm(name: str, fields: Fields) -> ModelArchitecture:
    """GLM-4-9B."""
    return _read(name, fields, all_alike)


@families.register("glm4")
def glm4(name: str, fields: Fields) -> ModelArchitecture:
    """GLM-4-0414 and GLM-Z1: four norms a layer."""
    return _read(name, fields, all_of_form(BlockForm.SANDWICH))


def _read(name: str, fields: Fields, arrange: Arrangement) -> ModelArchitecture:
    return read_rotary_decoder(
        name,
        fields,
        output_bias=False,
        rotary_share=rotated_share(fields, default=0.5),
        mlp_bias=False,
        arrange=arrange,
    )


@families.register("chatglm")
def chatglm(name: str, fields: Fields) -> ModelArchitecture:
    """ChatGLM2, ChatGLM3 and GLM-4-9B; half of each head is rotated."""
    hidden, heads = fields.positive_int("hidden_size"), fields.positive_int("num_attention_heads")
    grouped = fields.boolean("multi_query_attention", default=False)
    kv_heads = fields.positive_int("multi_query_group_num", default=1) if grouped else heads
    fields.pass_over("multi_query_group_num")
    if fields.sound("num_attention_heads", "multi_query_group_num") and heads % kv_heads:
        fields.problem(f"num_attention_heads {heads} is not a multiple of multi_query_group_num {kv_heads}")
    bias = fields.boolean("add_bias_linear", default=False)
    width = fields.positive_int("kv_channels", default=128)
    attention = GroupedAttention(
        heads,
        kv_heads,
        width,
        qkv_bias=bias or fields.boolean("add_qkv_bias", default=False),
        output_bias=bias,
        rotary_dim=width // 2,
    )
    mlp = DenseMlp(fields.positive_int("ffn_hidden_size"), bias=bias)
    for field in ("rmsnorm", "post_layer_norm"):
        if not fields.boolean(field, default=True):
            fields.problem("false is not modelled", field, "expected true")
    return ModelArchitecture(
        name=name,
        model_type="chatglm",
        hidden_size=hidden,
        runs=(LayerRun(Layer(attention, mlp), fields.positive_int("num_layers", high=MOST_LAYERS)),),
        vocab_size=fields.positive_int("padded_vocab_size", "vocab_size"),
        max_position=fields.positive_int("seq_length"),
        norm=NormKind.RMS,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=False),
    )
