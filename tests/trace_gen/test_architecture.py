"""Model shapes: published parameter counts, names and paths, and what is said of a wrong config.json."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from trace_cases import only_layer

from foundation.errors import UserError
from trace_gen.architecture import BlockForm
from trace_gen.attention.grouped import GroupedAttention
from trace_gen.families import families
from trace_gen.memory import parameter_count
from trace_gen.models import load_model, shipped_models


def test_gpt3_175b_by_hand() -> None:
    model = load_model("gpt3-175b")
    block = 12 * 12288**2 + 13 * 12288
    assert parameter_count(model) == 96 * block + (50257 + 2048) * 12288 + 2 * 12288


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_every_shipped_model_loads_under_its_own_name(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    for layer in model.layer_kinds:
        if isinstance(layer.attention, GroupedAttention):
            assert layer.attention.heads % layer.attention.kv_heads == 0


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("llama-7B", "huggyllama/llama-7b"),
        ("opt-6.7b", "facebook/opt-6.7b"),
        ("gpt3-6.7b", "gpt3-7b"),
        ("META-LLAMA/llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("GPT-2", "openai-community/gpt2"),
    ],
)
def test_aliases_and_spelling(alias: str, name: str) -> None:
    assert load_model(alias).name == name


def test_every_alias_names_a_shipped_model() -> None:
    aliases = json.loads((Path(__file__).parents[2] / "configs/models/aliases.json").read_text())
    assert {load_model(alias).name for alias in aliases} == set(aliases.values())


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(UserError, match=r"unknown model 'llama-3\.1-8c'.*Llama-3\.1-8B"):
        load_model("llama-3.1-8c")


def write(folder: Path, **config: object) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


LLAMA_FIELDS = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 1000,
}


def test_a_file_or_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    path = write(folder, **LLAMA_FIELDS)
    assert load_model(path) == load_model(str(folder))
    assert load_model(path).name == "my-model"
    assert only_layer(load_model(path))[0].kv_heads == 4


def test_all_wrong_fields_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, **{**LLAMA_FIELDS, "hidden_size": -1, "vocab_size": "many", "intermediate_size": None})
    with pytest.raises(UserError) as error:
        load_model(path)
    for field in ("hidden_size: -1 is not", 'vocab_size: "many" is not', "intermediate_size is missing", path):
        assert field in str(error.value)


def test_heads_that_do_not_divide(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="num_attention_heads 4 is not a multiple of num_key_value_heads 3"):
        load_model(write(tmp_path, **LLAMA_FIELDS, num_key_value_heads=3))


def test_unsupported_model_type(tmp_path: Path) -> None:
    """No other architecture is suggested: GPT-J is no GPT-2, and BERT no Llama."""
    for name in ("lama", "gptj", "bert"):
        path = write(tmp_path, **{**LLAMA_FIELDS, "model_type": name})
        with pytest.raises(UserError) as error:
            load_model(path)
        assert str(error.value) == (
            f'{path}, model_type: "{name}" is not a supported architecture; supported: {", ".join(families)}'
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1]", r"is \[1\], not an object of named fields"), ('{\n"a": }', "line 2: not valid JSON")],
)
def test_not_an_object(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_model(str(path))


def test_missing_file() -> None:
    with pytest.raises(UserError, match=r"nowhere/config\.json: the model configuration does not exist"):
        load_model("nowhere/config.json")


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        load_model(str(tmp_path))
    fix = "name a checkpoint's folder, or its config.json"
    assert str(error.value) == f"{tmp_path}: the folder holds no config.json; {fix}"


def test_a_folder_called_as_a_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a config.json it is not meant; with one it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    assert load_model("gpt2").name == "openai-community/gpt2"
    write(tmp_path / "gpt2", **LLAMA_FIELDS)
    assert load_model("gpt2").model_type == "llama"


def test_a_folder_whose_name_is_not_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"model\xff\x1b[2J")
    folder.mkdir()
    for path in (write(folder, **LLAMA_FIELDS), str(folder)):
        name = load_model(path).name
        assert name == "model\\udcff\\x1b[2J" and name.encode()
    (folder / "config.json").rename(folder / os.fsdecode(b"\xfe.json"))
    assert load_model(str(next(folder.iterdir()))).name == "\\udcfe"


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "m/" * 3000, "/dev/null", "llama-\x1b[31m"])
def test_names_that_are_nothing(name: str) -> None:
    with pytest.raises(UserError, match=r"unknown model|it is a device") as error:
        load_model(name)
    assert str(error.value).isprintable() and len(str(error.value)) < 600


def test_only_what_is_wrong_is_told(tmp_path: Path) -> None:
    """What follows from a wrong field alone is not a fault of its own."""
    for field, value in (("hidden_size", 0), ("num_attention_heads", "4"), ("num_key_value_heads", 2.5)):
        with pytest.raises(UserError) as error:
            load_model(write(tmp_path, **{**LLAMA_FIELDS, field: value}))
        assert str(error.value).count(";") == 0 and "multiple" not in str(error.value)
    gpt2 = {"model_type": "gpt2", "n_embd": 0, "n_layer": 2, "n_head": 3, "n_positions": 64, "vocab_size": 9}
    with pytest.raises(UserError, match=r"n_embd: 0 is not a whole number from 1 to 16777216$"):
        load_model(write(tmp_path, **gpt2))


def test_families_that_differ_by_data(tmp_path: Path) -> None:
    qwen2 = load_model(write(tmp_path, **{**LLAMA_FIELDS, "model_type": "qwen2"}))
    qwen3 = load_model(write(tmp_path, **{**LLAMA_FIELDS, "model_type": "qwen3", "head_dim": 32}))
    mistral = load_model(write(tmp_path, **{**LLAMA_FIELDS, "model_type": "mistral", "sliding_window": 16}))
    biased, normed, windowed = (only_layer(model)[0] for model in (qwen2, qwen3, mistral))
    assert biased.qkv_bias and not biased.output_bias
    assert normed.qk_norm and normed.heads * normed.head_dim == 128
    assert windowed.window == 16


def test_layouts_of_opt(tmp_path: Path) -> None:
    opt = {
        "model_type": "opt",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "ffn_dim": 4096,
        "max_position_embeddings": 2048,
        "vocab_size": 50272,
    }
    projected = load_model(write(tmp_path, **opt, word_embed_proj_dim=512))
    assert (projected.embedding_size, projected.embedding_width, projected.final_norm) == (512, 512, True)
    assert projected.layer_kinds[0].form is BlockForm.PRE_NORM
    alike = load_model(write(tmp_path, **opt, word_embed_proj_dim=1024))
    assert alike == load_model(write(tmp_path, **opt)) and alike.embedding_size is None
    with pytest.raises(UserError, match="do_layer_norm_before: false is modelled with projected embeddings only"):
        load_model(write(tmp_path, **opt, do_layer_norm_before=False))
