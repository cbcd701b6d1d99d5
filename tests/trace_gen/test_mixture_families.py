"""Families of mixtures of experts: how their config.json is read, which layers are what, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cases import batch, make_generator, rows_named

from foundation.errors import UserError
from trace_gen.architecture import ModelArchitecture
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.attention.interface import KVKind
from trace_gen.attention.latent import LatentAttention
from trace_gen.memory import ModelMemory, parameter_count
from trace_gen.mesh import Mesh
from trace_gen.mlp.dense import DenseMlp
from trace_gen.mlp.experts import Experts
from trace_gen.models import load_model, shipped_models
from trace_gen.operators import Rows
from trace_gen.precision import Precision

V3, V2, LITE = (f"deepseek-ai/DeepSeek-{name}" for name in ("V3", "V2", "V2-Lite"))
SCOUT, MAVERICK = "meta-llama/Llama-4-Scout-17B-16E-Instruct", "meta-llama/Llama-4-Maverick-17B-128E-Instruct"
OSS, PHI = "openai/gpt-oss-20b", "microsoft/Phi-3.5-MoE-instruct"
SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


def changed(folder: Path, name: str, **changes: Any) -> ModelArchitecture:
    """Load a shipped model with other fields; those of Llama 4 are its text part's."""
    config = json.loads(shipped_models()[name].read_text())
    config.pop("quantization_config", None)
    inner = config.get("text_config", config)
    for field, value in changes.items():
        if value is ...:
            inner.pop(field, None)
        else:
            inner[field] = value
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return load_model(str(path))


def experts_in(model: ModelArchitecture) -> list[int]:
    return [index for index, layer in enumerate(model.layers) if isinstance(layer.mlp, Experts)]


def attention_of(model: ModelArchitecture, layer: int) -> GroupedAttention:
    attention = model.layers[layer].attention
    assert isinstance(attention, GroupedAttention)
    return attention


def test_deepseek_v3() -> None:
    model = load_model(V3)
    attention = LatentAttention(128, 1536, 512, 128, 64, 128)
    experts = Experts(256, 8, 2048, shared_width=2048, router_bias=True, groups=8, groups_per_token=4)
    assert [layer.mlp for layer in model.layers] == 3 * [DenseMlp(18432)] + 58 * [experts]
    assert {layer.attention for layer in model.layers} == {attention}
    assert model.max_position == 163840 and not model.tie_word_embeddings


def test_deepseek_v2_and_lite() -> None:
    (experts,) = load_model(V2).mixtures
    assert experts == Experts(160, 6, 1536, shared_width=3072, groups=8, groups_per_token=3)
    (experts,) = load_model(LITE).mixtures
    assert experts == Experts(64, 6, 1408, shared_width=2816)
    assert load_model(LITE).layers[0].attention == LatentAttention(16, None, 512, 128, 64, 128)


def test_kimi_k2() -> None:
    model = load_model("kimi-k2")
    (experts,) = model.mixtures
    assert experts == Experts(384, 8, 2048, shared_width=2048, router_bias=True)
    assert experts_in(model) == list(range(1, 61))
    assert model.model_type == "kimi_k2"


def test_fields_that_deepseek_leaves_out(tmp_path: Path) -> None:
    left_out = ("topk_method", "n_group", "topk_group", "first_k_dense_replace", "moe_layer_freq", "n_shared_experts")
    absent: dict[str, Any] = dict.fromkeys(left_out, ...)
    for name, bias in ((V3, True), (V2, False)):
        model = changed(tmp_path, name, **absent)
        (experts,) = model.mixtures
        assert (experts.router_bias, experts.groups, experts.groups_per_token) == (bias, 1, 1)
        assert experts.shared_width == 0 and len(experts_in(model)) == model.num_layers
    every_other = changed(tmp_path, V2, first_k_dense_replace=3, moe_layer_freq=2)
    assert experts_in(every_other) == list(range(4, 60, 2))
    greedy = changed(tmp_path, V2, topk_method="greedy")
    assert greedy.mixtures[0].groups == 1, "groups limit nothing"
    biased = changed(tmp_path, V3, attention_bias=True).layers[0].attention
    assert isinstance(biased, LatentAttention) and biased.bias


def test_layers_for_several_tokens_are_not_part_of_a_forward_pass(tmp_path: Path) -> None:
    without = changed(tmp_path, V3, num_nextn_predict_layers=0)
    assert parameter_count(without) == parameter_count(load_model(V3)) == 671_026_419_200
    assert load_model(V3).notes == without.notes == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_group": 7}, "n_routed_experts 256 is not a multiple of n_group 7$"),
        ({"topk_group": 9}, "topk_group 9 is more than n_group 8$"),
        ({"num_experts_per_tok": 129}, "num_experts_per_tok 129 is more than topk_group groups hold, 128$"),
        ({"topk_method": "all"}, 'topk_method: "all" is unknown'),
        ({"kv_lora_rank": None}, "kv_lora_rank is missing"),
        ({"qk_nope_head_dim": 0}, "qk_nope_head_dim: 0 is not a whole number from 1"),
        ({"n_routed_experts": None}, "n_routed_experts is missing; give a whole number from 1 to 2048$"),
        ({"index_topk": 2048}, "index_topk: 2048 changes what is computed, and is not modelled"),
        ({"sliding_window": 4096}, "sliding_window: 4096 changes what is computed, and is not modelled"),
        ({"n_shared_experts": 4096}, "n_shared_experts: 4096 is not a whole number from 0 to 2048"),
    ],
)
def test_deepseek_that_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        changed(tmp_path, V3, **changes)


def test_groups_that_just_hold_a_tokens_experts(tmp_path: Path) -> None:
    (experts,) = changed(tmp_path, V3, num_experts_per_tok=128).mixtures
    assert (experts.per_token, experts.groups_per_token) == (128, 4)
    (experts,) = changed(tmp_path, V3, topk_group=8).mixtures
    assert experts.groups_per_token == 8


def test_gpt_oss(tmp_path: Path) -> None:
    model = load_model(OSS)
    assert [attention_of(model, layer).window for layer in range(24)] == [128, None] * 12
    attention = attention_of(model, 1)
    assert attention == GroupedAttention(64, 8, 64, qkv_bias=True, output_bias=True, sinks=True)
    assert model.mixtures == (Experts(32, 4, 2880, bias=True, router_bias=True),)
    for absent in ("layer_types", "attention_bias"):
        plain = changed(tmp_path, OSS, **{absent: ...})
        assert [layer.attention for layer in plain.layers] == [layer.attention for layer in model.layers]
    assert {group.kind for group in ModelMemory(model, Mesh()).kv_groups} == {KVKind.FULL, KVKind.SLIDING}


def test_gpt_oss_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"layer_types: lists something else than full_attention and sliding_attention$"
    ):
        changed(tmp_path, OSS, layer_types=["linear_attention"] * 24)
    with pytest.raises(UserError, match=r"layer_types: lists 3 layers, but there are 24$"):
        changed(tmp_path, OSS, layer_types=["full_attention"] * 3)


@pytest.mark.parametrize(("tensor", "expert"), [(1, 1), (2, 1), (4, 4)])
def test_biases_of_experts_and_routers(tensor: int, expert: int) -> None:
    """gpt-oss-20b in 4 bits: every expert of a rank has its biases in 16 bits; the router's are added to the scores."""
    model = load_model(OSS)
    trace = make_generator(model, tensor, expert=expert, hardware="H200").generate([batch([3])])
    held, inner = (8, 2880) if expert > 1 else (32, 2880 // tensor)
    up, down, router = (rows_named(trace, name)[0] for name in ("expert_gate_up_proj", "expert_down_proj", "router"))
    matrix = 2880 * 2 * inner
    assert trace.weight_bytes[up] == held * (matrix // 2 + matrix // 32 + 2 * 2 * inner)
    assert trace.weight_bytes[down] == held * (matrix // 4 + matrix // 64 + 2 * 2880)
    assert trace.weight_bytes[router] == 2 * (2880 * 32 + 32)
    assert trace.flops[0, router] == 3 * (2 * 2880 * 32 + 32)


def test_blocks_of_mxfp4_stay_whole() -> None:
    """2880 inputs are 90 blocks of 32: the fullest of 4 ranks has 23, of 8 it has 12; both add up to more than 90."""
    for tensor, blocks in ((1, 90), (2, 45), (4, 23), (8, 12)):
        trace = make_generator(load_model(OSS), tensor, hardware="H200").generate([batch([3])])
        row = rows_named(trace, "expert_down_proj")[0]
        assert trace.input_bytes[row] == 3 * 4 * 32 * blocks * 2


def test_sinks_are_weights_of_every_head() -> None:
    for tensor in (1, 8):
        trace = make_generator(load_model(OSS), tensor, hardware="H200").generate([batch([3])])
        row = rows_named(trace, "o_proj")[0]
        heads = 64 // tensor
        assert trace.weight_bytes[row] == 2 * (heads * 64 * 2880 + 2880 + heads)


def test_phi_moe(tmp_path: Path) -> None:
    model = load_model(PHI)
    attention = GroupedAttention(32, 8, 128, qkv_bias=True, output_bias=True)
    assert {layer.attention for layer in model.layers} == {attention}, "a window of all positions is none"
    assert model.mixtures == (Experts(16, 2, 6400),)
    assert model.norm_parameters == 2 * 4096 and model.head_bias
    assert attention_of(changed(tmp_path, PHI, sliding_window=131071), 0).window == 131071
    assert attention_of(changed(tmp_path, PHI, sliding_window=None), 0).window is None
    assert not changed(tmp_path, PHI, lm_head_bias=...).head_bias
    trace = make_generator(model, 2, hardware="H200").generate([batch([3], samples=[1])])
    head = rows_named(trace, "lm_head")[0]
    assert trace.weight_bytes[head] == 2 * (4096 + 1) * 32064 // 2


def test_llama_4_scout() -> None:
    model = load_model(SCOUT)
    local = GroupedAttention(40, 8, 128, qk_norm=True, qk_norm_weights=False, chunk=8192)
    everywhere = GroupedAttention(40, 8, 128, rotary=False, qk_norm_weights=False)
    assert [layer.attention for layer in model.layers] == [local, local, local, everywhere] * 12
    assert {layer.mlp for layer in model.layers} == {Experts(16, 1, 8192, shared_width=8192)}
    assert model.model_type == "llama4" and model.max_position == 10_485_760


def test_llama_4_maverick() -> None:
    model = load_model(MAVERICK)
    assert experts_in(model) == list(range(1, 48, 2))
    assert model.layers[0].mlp == DenseMlp(16384)
    assert not any(attention_of(model, layer).qk_norm for layer in range(48))


def test_what_llama_4_leaves_out(tmp_path: Path) -> None:
    model = load_model(SCOUT)
    for changes in (
        {"no_rope_layers": ...},
        {"no_rope_layers": []},
        {"no_rope_layers": ..., "no_rope_layer_interval": 4},
        {"layer_types": ["chunked_attention"] * 3 + ["full_attention"]},
    ):
        if "layer_types" in changes:
            changes = {"layer_types": changes["layer_types"] * 12}  # type: ignore[operator, dict-item]
        other = changed(tmp_path, SCOUT, **changes)
        assert [layer.attention for layer in other.layers] == [layer.attention for layer in model.layers]
    third = changed(tmp_path, SCOUT, no_rope_layers=..., no_rope_layer_interval=3)
    assert [attention_of(third, layer).rotary for layer in range(6)] == [True, True, False] * 2
    full = changed(tmp_path, SCOUT, attention_chunk_size=None)
    assert {attention_of(full, layer).chunk for layer in range(48)} == {None}
    some = changed(tmp_path, MAVERICK, moe_layers=[3, 40])
    assert experts_in(some) == [3, 40]


def test_the_text_part_alone(tmp_path: Path) -> None:
    text = json.loads(shipped_models()[SCOUT].read_text())["text_config"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(text))
    alone = load_model(str(path))
    assert alone.layers == load_model(SCOUT).layers and alone.model_type == "llama4_text"
    with_vision = {"model_type": "llama4", "text_config": text, "vision_config": {"hidden_size": 1408}}
    path.write_text(json.dumps(with_vision))
    (note,) = load_model(str(path)).notes
    assert "only its text decoder is: vision_config" in note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"no_rope_layers": [1, 0]}, "no_rope_layers: lists 2 layers, but there are 48$"),
        ({"no_rope_layers": [2] * 48}, r"no_rope_layers\[0\]: 2 is not a whole number from 0 to 1"),
        ({"layer_types": ["full_attention"]}, "layer_types: lists 1 layers, but there are 48$"),
        (
            {"layer_types": ["sliding_attention"] * 48},
            "layer_types: lists something else than chunked_attention and",
        ),
        ({"num_experts_per_tok": 17}, "num_experts_per_tok 17 is more than num_local_experts 16$"),
    ],
)
def test_llama_4_that_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        changed(tmp_path, SCOUT, **changes)


def test_llama_4_without_a_text_part(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama4"}))
    with pytest.raises(UserError, match=r"text_config is missing or empty; give an object$"):
        load_model(str(path))


@SETTINGS
@given(
    chunk=st.integers(1, 60),
    requests=st.lists(st.tuples(st.integers(1, 90), st.integers(0, 200)), min_size=1, max_size=4),
)
def test_attention_within_chunks(chunk: int, requests: list[tuple[int, int]]) -> None:
    """Pair by pair: a query attends to the tokens of its own chunk up to itself; what any attends to is read once."""
    attention = GroupedAttention(4, 2, 8, chunk=chunk)
    shape = attention.shapes(1, Precision())[Rows.TOKENS]
    found = shape.work(batch([new for new, _ in requests], [context for _, context in requests]))
    for index, (new, context) in enumerate(requests):
        seen = [
            {key for key in range(position + 1) if key // chunk == position // chunk}
            for position in range(context, context + new)
        ]
        assert found.flops[0, index] == sum(map(len, seen)) * 4 * 32
        read = len(set().union(*seen)) * 2 * 16 * 2
        assert found.mem_bytes[0, index] == read + new * (2 * 16 * 2 + 2 * 32 * 2)


def test_chunks_keep_all_tokens() -> None:
    """As in vLLM by default: one group of layers, for which a request keeps everything."""
    (group,) = ModelMemory(load_model(SCOUT), Mesh()).kv_groups
    assert (group.kind, group.window, sum(group.layers)) == (KVKind.FULL, None, 48)


def test_normalising_without_weights() -> None:
    for name, weights in ((SCOUT, 0), ("Qwen/Qwen3-30B-A3B", 2 * 2 * 128)):
        trace = make_generator(load_model(name), hardware="H200").generate([batch([3])])
        rows = rows_named(trace, "qk_norm")
        assert {int(trace.weight_bytes[row]) for row in rows} == {weights}
        assert len(np.unique(trace.layer[rows])) == (36 if name == SCOUT else 48)


def test_chunks_whose_kv_cache_is_kept_whole_are_told() -> None:
    """vLLM 0.19 and 0.33 give back what earlier chunks hold (`ChunkedLocalAttentionManager`)."""
    for placed in ("heads", "requests"):
        (told,) = make_generator(load_model(SCOUT), 2, hardware="H200", attention_placement=placed).warnings
        assert told.endswith(
            " has a KV cache of chunks of 8192 tokens, which is kept of whole sequences here; "
            "vLLM gives back that of earlier chunks"
        )
