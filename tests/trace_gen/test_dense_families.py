"""What each family of dense models makes of its config's fields: defaults, limits, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trace_cases import only_layer

from foundation.errors import UserError
from trace_gen.architecture import BlockForm, ModelArchitecture, NormKind
from trace_gen.attention.grouped import ALIBI_FLOPS, GroupedAttention
from trace_gen.families import families
from trace_gen.mlp.dense import DenseMlp
from trace_gen.models import load_model

SIZES = {
    "hidden_size": 96,
    "num_hidden_layers": 7,
    "num_attention_heads": 8,
    "intermediate_size": 200,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
}
CHATGLM = {"num_layers": 2, "ffn_hidden_size": 9, "seq_length": 9}
Read = Callable[..., ModelArchitecture]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def load(model_type: str, **fields: Any) -> ModelArchitecture:
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"model_type": model_type, **SIZES, **fields}))
        return load_model(str(path))

    return load


def windows(architecture: ModelArchitecture) -> list[int | None]:
    attentions = [layer.attention for layer in architecture.layers]
    return [attention.window for attention in attentions if isinstance(attention, GroupedAttention)]


def biases(architecture: ModelArchitecture) -> tuple[bool, bool, bool]:
    """Return whether query, key and value projections are biased, whether attention's output is, and the MLP."""
    attention, mlp = only_layer(architecture)
    assert isinstance(mlp, DenseMlp)
    return attention.qkv_bias, attention.output_bias, mlp.bias


@pytest.mark.parametrize(
    ("model_type", "fields", "expected"),
    [
        ("gpt_neox", {}, (True, True, True)),
        ("gpt_neox", {"attention_bias": False}, (False, False, True)),
        ("phi", {}, (True, True, True)),
        ("phi3", {"attention_bias": False}, (False, False, False)),
        ("gemma", {}, (False, False, False)),
        ("gemma", {"attention_bias": True}, (True, True, False)),
        ("internlm", {}, (True, True, False)),
        ("internlm", {"bias": False}, (False, False, False)),
        ("internlm2", {"bias": True}, (True, True, False)),
        ("internlm3", {}, (False, False, False)),
        ("internlm3", {"qkv_bias": True}, (True, False, False)),
        ("internlm3", {"bias": True}, (False, True, True)),
        ("glm", {"attention_bias": True}, (True, False, False)),
        ("glm4", {}, (False, False, False)),
        ("qwen", {}, (True, False, False)),
        ("starcoder2", {}, (True, True, True)),
        ("starcoder2", {"use_bias": False}, (False, False, False)),
        ("stablelm", {}, (False, False, False)),
        ("stablelm", {"use_qkv_bias": True}, (True, False, False)),
        ("qwen", {"no_bias": False}, (True, True, True)),
        ("falcon", {"bias": True, "intermediate_size": None}, (True, True, True)),
    ],
)
def test_biases(read: Read, model_type: str, fields: dict[str, Any], expected: tuple[bool, bool, bool]) -> None:
    assert biases(read(model_type, **fields)) == expected


@pytest.mark.parametrize(
    ("model_type", "norm", "form", "gated", "tied", "turned"),
    [
        ("gpt_neox", NormKind.LAYER, BlockForm.PARALLEL_NORMS, False, False, 3),
        ("phi", NormKind.LAYER, BlockForm.PARALLEL, False, False, 6),
        ("phi3", NormKind.RMS, BlockForm.PRE_NORM, True, False, None),
        ("gemma", NormKind.RMS, BlockForm.PRE_NORM, True, True, None),
        ("internlm", NormKind.RMS, BlockForm.PRE_NORM, True, False, None),
        ("glm", NormKind.RMS, BlockForm.PRE_NORM, True, False, 6),
        ("glm4", NormKind.RMS, BlockForm.SANDWICH, True, False, 6),
        ("starcoder2", NormKind.LAYER, BlockForm.PRE_NORM, False, True, None),
        ("stablelm", NormKind.LAYER, BlockForm.PRE_NORM, True, False, 3),
        ("llama", NormKind.RMS, BlockForm.PRE_NORM, True, False, None),
    ],
)
def test_shapes(
    read: Read, model_type: str, norm: NormKind, form: BlockForm, gated: bool, tied: bool, turned: int | None
) -> None:
    found = read(model_type)
    attention, mlp = only_layer(found)
    assert isinstance(mlp, DenseMlp)
    assert (found.norm, found.layer_kinds[0].form, found.tie_word_embeddings) == (norm, form, tied)
    assert (attention.rotary, attention.rotary_dim, attention.head_dim, mlp.gated) == (True, turned, 12, gated)
    assert found.layer_kinds[0].reduces_once is False


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, (True, 6)), (1.0, (True, None)), (0.0, (False, None)), (0.4, (True, 4)), (0.05, (False, None))],
)
def test_the_part_of_a_head_that_turns(read: Read, share: float, expected: tuple[bool, int | None]) -> None:
    for model_type, field in (("gpt_neox", "rotary_pct"), ("phi3", "partial_rotary_factor")):
        attention, _ = only_layer(read(model_type, **{field: share}))
        assert (attention.rotary, attention.rotary_dim) == expected
    with pytest.raises(UserError, match=r"rotary_pct: 1\.1 is not a number of at least 0 and at most 1"):
        read("gpt_neox", rotary_pct=1.1)


@pytest.mark.parametrize(("window", "expected"), [(4095, 4095), (4096, None), (9000, None), (None, None)])
def test_a_window_of_phi3_as_long_as_all_positions_is_none(
    read: Read, window: int | None, expected: int | None
) -> None:
    assert windows(read("phi3", sliding_window=window)) == [expected] * 7


def test_gemma_slides(read: Read) -> None:
    two = read("gemma2", sliding_window=64)
    assert windows(two) == [64, None, 64, None, 64, None, 64]
    assert windows(read("gemma2"))[0] == 4096
    three = read("gemma3_text", sliding_window=64)
    assert windows(three) == [64] * 5 + [None, 64]
    assert windows(read("gemma3_text", sliding_window=64, sliding_window_pattern=2)) == [64, None] * 3 + [64]
    kinds = ["full_attention", "sliding_attention"] * 3 + ["full_attention"]
    assert windows(read("gemma3_text", sliding_window=64, layer_types=kinds)) == [None, 64] * 3 + [None]
    assert {layer.form for layer in (*two.layers, *three.layers)} == {BlockForm.SANDWICH}
    normed = {layer.attention.qk_norm for layer in three.layers if isinstance(layer.attention, GroupedAttention)}
    assert normed == {True} and (two.caps_logits, three.caps_logits) == (True, False)
    assert all(each.scales_embedding and each.tie_word_embeddings for each in (two, three, read("gemma")))


def test_the_text_part_of_a_multimodal_gemma(read: Read, tmp_path: Path) -> None:
    text = {"hidden_size": 64, "num_hidden_layers": 6, "sliding_window": 9}
    found = read("gemma3", text_config=text, vision_config={"a": 1}, **dict.fromkeys(SIZES))
    attention = found.layers[0].attention
    assert isinstance(attention, GroupedAttention)
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (8, 4, 256), "what Transformers takes"
    assert (found.model_type, found.hidden_size, found.vocab_size, windows(found)) == (
        *("gemma3_text", 64, 262208),
        [9] * 5 + [None],
    )
    (note,) = found.notes
    assert note.endswith("only its text decoder is: vision_config")
    with pytest.raises(UserError, match=r"text_config\.num_hidden_layers: 0 is not"):
        read("gemma3", text_config={"num_hidden_layers": 0})
    with pytest.raises(UserError, match=r"text_config\.num_local_experts: 4 changes what is computed"):
        read("gemma3", text_config={"num_local_experts": 4})
    (note,) = read("gemma3", text_config={"zap": 4}, **dict.fromkeys(SIZES)).notes
    assert note.endswith("is not simulated: text_config.zap")
    with pytest.raises(UserError, match="text_config is missing; give the fields of its decoder"):
        read("gemma3")


def test_the_text_part_of_a_multimodal_mistral(read: Read) -> None:
    text = {**SIZES, "model_type": "mistral", "sliding_window": 9}
    found = read("mistral3", text_config=text, vision_config={"a": 1}, **dict.fromkeys(SIZES))
    assert found.runs == read("mistral", sliding_window=9).runs and len(found.notes) == 1
    with pytest.raises(UserError, match="text_config is missing; give the fields of its decoder"):
        read("mistral3")


def test_blocks_that_may_be_parallel(read: Read) -> None:
    assert read("stablelm", use_parallel_residual=True).layer_kinds[0].form is BlockForm.PARALLEL
    assert read("gpt_neox", use_parallel_residual=False).layer_kinds[0].form is BlockForm.PRE_NORM
    assert windows(read("starcoder2", sliding_window=9)) == [9] * 7


def test_the_docs_have_every_family() -> None:
    page = (Path(__file__).parents[2] / "docs/models_and_hardware.md").read_text()
    rows = page.partition("| `model_type` |")[2].partition("\n\n")[0].splitlines()[2:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(families)


def falcon(read: Read, **fields: Any) -> tuple[int, BlockForm, bool, bool, int]:
    found = read("falcon", **{"intermediate_size": None, **fields})
    attention, mlp = only_layer(found)
    assert isinstance(mlp, DenseMlp) and not mlp.gated and mlp.width == fields.get("ffn_hidden_size", 4 * 96)
    layer = found.layer_kinds[0]
    return attention.kv_heads, layer.form, layer.reduces_once, attention.rotary, attention.score_flops


def test_falcon(read: Read) -> None:
    new = {"new_decoder_architecture": True}
    assert falcon(read) == (1, BlockForm.PARALLEL, True, True, 0)
    assert falcon(read, num_kv_heads=2) == (1, BlockForm.PARALLEL, True, True, 0), "counts in the new form only"
    assert falcon(read, multi_query=False, ffn_hidden_size=50) == (8, BlockForm.PARALLEL, True, True, 0)
    assert falcon(read, **new, num_kv_heads=2) == (2, BlockForm.PARALLEL_NORMS, True, True, 0)
    assert falcon(read, **new, num_ln_in_parallel_attn=1)[:2] == (8, BlockForm.PARALLEL)
    assert falcon(read, num_ln_in_parallel_attn=2)[1] is BlockForm.PARALLEL_NORMS
    assert falcon(read, alibi=True, parallel_attn=False) == (1, BlockForm.PRE_NORM, False, False, ALIBI_FLOPS)
    assert read("falcon", intermediate_size=None).tie_word_embeddings
    old = {"n_head": 8, "n_layer": 7, "num_attention_heads": None, "num_hidden_layers": None}
    assert read("falcon", intermediate_size=None, **old).runs == read("falcon", intermediate_size=None).runs


@pytest.mark.parametrize(
    ("model_type", "fields", "message"),
    [
        ("falcon", {"num_attention_heads": 7}, "hidden_size 96 is not a multiple of num_attention_heads 7"),
        (
            "falcon",
            {"new_decoder_architecture": True, "num_kv_heads": 3},
            "num_attention_heads 8 is not a multiple of num_kv_heads 3",
        ),
        (
            "falcon",
            {"new_decoder_architecture": True, "parallel_attn": False},
            "parallel_attn: false beside new_decoder_architecture is not modelled; expected true",
        ),
        ("falcon", {"num_ln_in_parallel_attn": 3}, "num_ln_in_parallel_attn: 3 is not a whole number from 1 to 2"),
        ("qwen", {"intermediate_size": 201}, "intermediate_size: 201 is odd, but it is the width of two projections"),
        ("chatglm", {**CHATGLM, "rmsnorm": False}, "rmsnorm: false is not modelled; expected true"),
        ("chatglm", {**CHATGLM, "post_layer_norm": False}, "post_layer_norm: false is not modelled"),
        (
            "chatglm",
            {**CHATGLM, "multi_query_attention": True, "multi_query_group_num": 3},
            "num_attention_heads 8 is not a multiple of multi_query_group_num 3",
        ),
        ("gemma2", {"layer_types": ["full_attention"] * 6}, "layer_types: lists 6 layers, but there are 7"),
        ("phi", {"qk_layernorm": True}, "qk_layernorm: true changes what is computed"),
        ("opt", {"ffn_dim": 9, "layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine: false is not"),
        ("opt", {"ffn_dim": 9, "_remove_final_layer_norm": True}, "_remove_final_layer_norm: true changes"),
    ],
)
def test_what_is_refused(read: Read, model_type: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(model_type, **fields)


def test_the_first_qwen(read: Read) -> None:
    found = read("qwen", kv_channels=10)
    attention, mlp = only_layer(found)
    assert attention == GroupedAttention(8, 8, 10, qkv_bias=True)
    assert mlp == DenseMlp(100) and not found.tie_word_embeddings
    half, _ = only_layer(read("qwen", kv_channels=10, rotary_pct=0.5))
    assert half.rotary_dim == 5
    assert read("qwen", max_position_embeddings=None).max_position == 8192
    assert read("qwen", max_position_embeddings=None, seq_length=99).max_position == 99


def test_chatglm(read: Read) -> None:
    names = {"num_layers": 3, "ffn_hidden_size": 70, "seq_length": 99, "num_hidden_layers": None}
    own = {**names, "kv_channels": 10, "intermediate_size": None, "max_position_embeddings": None}
    attention, mlp = only_layer(read("chatglm", **own))
    assert attention == GroupedAttention(8, 8, 10, rotary_dim=5) and mlp == DenseMlp(70)
    grouped, _ = only_layer(
        read("chatglm", **own, multi_query_attention=True, multi_query_group_num=2, add_qkv_bias=True)
    )
    assert grouped == GroupedAttention(8, 2, 10, rotary_dim=5, qkv_bias=True)
    biased, mlp = only_layer(read("chatglm", **own, add_bias_linear=True))
    assert biased.qkv_bias and biased.output_bias and mlp == DenseMlp(70, bias=True)
    padded = read("chatglm", **own, padded_vocab_size=1024)
    assert (padded.vocab_size, padded.max_position, padded.num_layers) == (1024, 99, 3)
