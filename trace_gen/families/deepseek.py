"""DeepSeek-V2, DeepSeek-V3 and R1, and Kimi-K2, which has V3's form: latent attention, dense first layers, then
mixtures of experts with shared ones.

Layers for multi-token prediction (`num_nextn_predict_layers`) stand behind the model's own. They have no part in a
forward pass without speculative decoding and are not counted among its parameters (DeepSeek-V3: 671 billion without).
"""

from __future__ import annotations

from collections.abc import Iterator

from foundation.fields import Fields
from trace_gen.architecture import Layer, ModelArchitecture, NormKind, layer_runs
from trace_gen.attention.latent import LatentAttention
from trace_gen.families import MOST_LAYERS, families
from trace_gen.families.experts import MOST_EXPERTS, read_experts
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.experts import Experts

_TOPK = ("greedy", "group_limited_greedy", "noaux_tc")
"""How experts are chosen; the last adds a learned number to each expert's score, for the choice alone."""


@families.register("deepseek_v2")
def deepseek_v2(name: str, fields: Fields) -> ModelArchitecture:
    """DeepSeek-V2 and V2-Lite, whose `q_lora_rank` is null: queries are not compressed."""
    return _read(name, fields, default_topk="greedy")


@families.register("deepseek_v3")
def deepseek_v3(name: str, fields: Fields) -> ModelArchitecture:
    """DeepSeek-V3 and R1."""
    return _read(name, fields, default_topk="noaux_tc")


@families.register("kimi_k2")
def kimi_k2(name: str, fields: Fields) -> ModelArchitecture:
    """Kimi-K2: more experts, fewer heads, one group."""
    return _read(name, fields, default_topk="noaux_tc")


def _read(name: str, fields: Fields, default_topk: str) -> ModelArchitecture:
    fields.pass_over("num_nextn_predict_layers", "num_key_value_heads", "head_dim", "ep_size")
    attention, experts = _attention(fields), _experts(fields, default_topk)
    mlp = DenseMlp(fields.positive_int("intermediate_size"))
    count = fields.positive_int("num_hidden_layers", high=MOST_LAYERS)
    return ModelArchitecture(
        name=name,
        model_type=fields.text("model_type"),
        hidden_size=fields.positive_int("hidden_size"),
        runs=layer_runs(_layers(fields, attention, mlp, experts, count)),
        vocab_size=fields.positive_int("vocab_size"),
        max_position=fields.positive_int("max_position_embeddings", default=2048),
        norm=NormKind.RMS,
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=False),
    )


def _attention(fields: Fields) -> LatentAttention:
    return LatentAttention(
        heads=fields.positive_int("num_attention_heads"),
        q_rank=fields.positive_int("q_lora_rank", default=None),
        kv_rank=fields.positive_int("kv_lora_rank"),
        nope_dim=fields.positive_int("qk_nope_head_dim"),
        rope_dim=fields.positive_int("qk_rope_head_dim"),
        v_dim=fields.positive_int("v_head_dim"),
        bias=fields.boolean("attention_bias", default=False),
    )


def _experts(fields: Fields, default_topk: str) -> Experts:
    width = fields.positive_int("moe_intermediate_size")
    experts = read_experts(fields, "n_routed_experts", width)
    shared = fields.integer("n_shared_experts", low=0, high=MOST_EXPERTS, default=0)
    topk = fields.choice("topk_method", _TOPK, default=default_topk)
    groups, reached = (fields.positive_int(field, default=1) for field in ("n_group", "topk_group"))
    if topk == "greedy":
        groups = reached = 1
    if fields.sound("n_group", "topk_group", "n_routed_experts", "num_experts_per_tok"):
        _check_groups(fields, experts, groups, reached)
    return Experts(
        experts.count,
        experts.per_token,
        width,
        shared_width=shared * width,
        router_bias=topk == "noaux_tc",
        groups=groups,
        groups_per_token=reached,
    )


def _check_groups(fields: Fields, experts: Experts, groups: int, reached: int) -> None:
    """Report groups that are not equal, or that cannot give a token as many experts as it has."""
    within = experts.count // groups * reached
    if experts.count % groups:
        fields.problem(f"n_routed_experts {experts.count} is not a multiple of n_group {groups}")
    elif reached > groups:
        fields.problem(f"topk_group {reached} is more than n_group {groups}")
    elif experts.per_token > within:
        fields.problem(f"num_experts_per_tok {experts.per_token} is more than topk_group groups hold, {within}")


def _layers(fields: Fields, attention: LatentAttention, mlp: DenseMlp, experts: Experts, count: int) -> Iterator[Layer]:
    """The first layers have an MLP; from `first_k_dense_replace` on, every `moe_layer_freq`-th has experts."""
    first = fields.integer("first_k_dense_replace", low=0, default=0)
    step = fields.positive_int("moe_layer_freq", default=1)
    for index in range(count):
        sparse = index >= first and index % step == 0
        yield Layer(attention, experts if sparse else mlp)
