"""No field that changes the work is left out in silence: refusals, notes, and what passes without a word."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from trace_cases import batch, make_generator

from foundation.errors import UserError
from trace_gen.architecture import ModelArchitecture
from trace_gen.models import load_model

Load = Callable[..., ModelArchitecture]
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 1000,
}
USUAL = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-5,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "use_cache": True,
}
"""The other fields of Llama 3.1's own config.json."""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def read(**changes: object) -> ModelArchitecture:
        (tmp_path / "config.json").write_text(json.dumps(LLAMA | changes))
        return load_model(str(tmp_path))

    return read


def test_the_usual_fields_pass_without_a_word(load: Load) -> None:
    assert load(**USUAL).notes == ()
    assert load(**USUAL) == load()


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("sliding_window", 4096, "4096 "),
        ("attn_logit_softcapping", 30.0, "30.0 "),
        ("final_logit_softcapping", 30.0, "30.0 "),
        ("num_local_experts", 8, "8 "),
        ("num_nextn_predict_layers", 1, "1 "),
        ("layer_types", ["sliding_attention", "full_attention"], ""),
        ("kv_lora_rank", 512, "512 "),
        ("qk_layernorm", True, "true "),
        ("partial_rotary_factor", 0.5, "0.5 "),
        ("compression_config", {"quant_method": "fp8"}, ""),
    ],
)
def test_what_changes_the_work_is_refused(load: Load, field: str, value: object, shown: str) -> None:
    with pytest.raises(UserError) as error:
        load(**{field: value})
    said = f"line 1, {field}: {shown}changes what is computed, and is not modelled for this model_type"
    assert str(error.value).endswith(f"config.json, {said}; use a model without it")


@pytest.mark.parametrize(
    "off",
    [
        {"sliding_window": None},
        {"sliding_window": 4096, "use_sliding_window": False},
        {"qk_layernorm": False},
        {"num_nextn_predict_layers": 0},
        {"mlp_only_layers": []},
        {"layer_types": ["full_attention"] * 2},
        {"partial_rotary_factor": 1.0},
        {"rotary_pct": 1},
        {"a_field_that_is_null": None},
    ],
)
def test_what_the_model_has_not_is_no_matter(load: Load, off: dict[str, object]) -> None:
    assert load(**off) == load()


def test_all_of_them_at_once_and_beside_wrong_values(load: Load) -> None:
    with pytest.raises(UserError) as error:
        load(sliding_window=7, num_experts=4, vocab_size="many")
    assert str(error.value).count("changes what is computed") == 2 and 'vocab_size: "many"' in str(error.value)


def test_unknown_fields_are_named_in_a_note(load: Load) -> None:
    said = "has fields that are unknown; whatever they mean is not simulated:"
    (note,) = load(frobnicate=False, zap={"a": 1}).notes
    assert note.endswith(f" {said} frobnicate, zap")
    (note,) = load(**{f"field_{number}": 1 for number in range(8)}).notes
    assert note.endswith("field_6, field_7")
    (note,) = load(**{f"field_{number}": 1 for number in range(10)}).notes
    assert note.endswith("field_7 and 2 more")
    (note,) = load(**{"a\nb\x1b": 1}).notes
    assert note.endswith(": a\\nb\\x1b") and note.isprintable()


def test_the_other_parts_of_a_model_are_told(load: Load) -> None:
    (note,) = load(vision_config={"hidden_size": 9}, mm_tokens_per_image=256, image_token_index=3).notes
    assert note.endswith(" has parts that are not simulated, only its text decoder is: vision_config")
    assert load(image_token_id=9).notes == ()


def test_a_run_says_the_notes(load: Load) -> None:
    architecture = load(zap=1)
    generator = make_generator(architecture)
    assert generator.warnings == architecture.notes and generator.generate([batch([3])]).rows
