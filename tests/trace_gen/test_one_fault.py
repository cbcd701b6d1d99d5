"""A file with one fault is refused for that fault alone: what follows from it is not listed beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.reached import Reached

from foundation.errors import UserError
from foundation.fields import Fields
from trace_gen.hardware import HARDWARE_FOLDER, load_hardware
from trace_gen.models import load_model, shipped_models

WRONG = (None, "x", -1, 1.5, {}, [], ["x"], 10**30)
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
WINDOWS = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}


def fp8(layers: int) -> dict[str, Any]:
    """A checkpoint that leaves a module out layer by layer, in every layer."""
    left_out = [f"model.layers.{index}.mlp.down_proj" for index in range(layers)]
    return {"quant_method": "fp8", "weight_block_size": [128, 128], "ignored_layers": left_out}


def configs() -> Iterator[dict[str, Any]]:
    """One shipped model of each family, and two of those whose files say something of every layer."""
    families: dict[str, dict[str, Any]] = {}
    for path in shipped_models().values():
        config = json.loads(path.read_text())
        families[config["model_type"]] = config
    families["qwen2"] = {**families["llama"], "model_type": "qwen2", **WINDOWS}
    for config in families.values():
        yield {**config, "quantization_config": GPTQ}
    layers = families["llama"]["num_hidden_layers"]
    yield {**families["llama"], "quantization_config": fp8(layers)}
    yield {**families["qwen2"], "layer_types": ["full_attention"] * layers}


def with_a_fault(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield `content` with one value changed, at the top or one level below."""
    for name, value in content.items():
        for wrong in WRONG if name != "model_type" else ():
            yield {**content, name: wrong}
        inner = value if isinstance(value, dict) else {}
        for under in inner:
            for wrong in WRONG if under != "quant_method" else ():
                yield {**content, name: {**inner, under: wrong}}
        if isinstance(value, list):
            yield {**content, name: [*value[:-1], 3.5]}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many problems each reading of a file ended with."""
    counts: list[int] = []
    finish = Fields.finish

    def counting(self: Fields) -> None:
        counts.append(len(self.problems))
        finish(self)

    monkeypatch.setattr(Fields, "finish", counting)
    return counts


def refused(path: Path, content: dict[str, Any], load: Callable[[str], object]) -> UserError | None:
    path.write_text(json.dumps(content))
    try:
        load(str(path))
    except UserError as error:
        return error
    return None


def count(reached: Reached, error: UserError | None) -> None:
    """Count a case, and whether it was refused: some of the changes are none to complain of."""
    reached.case()
    if error is not None:
        reached()


def test_models(tmp_path: Path, told: list[int]) -> None:
    reached = Reached()
    for config in configs():
        for content in with_a_fault(config):
            told.clear()
            error = refused(tmp_path / "config.json", content, load_model)
            assert max(told) <= 1, f"{content}: {error}"
            count(reached, error)
    assert reached.cases > 700
    reached.check(0.6)


def test_devices(tmp_path: Path, told: list[int]) -> None:
    reached = Reached()
    content = json.loads((HARDWARE_FOLDER / "RTX3090.json").read_text())
    for changed in with_a_fault(content):
        told.clear()
        error = refused(tmp_path / "mine.json", changed, load_hardware)
        assert max(told) <= 1, f"{changed}: {error}"
        count(reached, error)
    assert reached.cases > 100
    reached.check(0.6)


def test_the_same_fault_is_told_once_where_a_field_is_read_twice(tmp_path: Path) -> None:
    config = json.loads(shipped_models()["mistralai/Mixtral-8x7B-v0.1"].read_text())
    error = refused(tmp_path / "config.json", {**config, "intermediate_size": 0}, load_model)
    assert error is not None and str(error).count("intermediate_size") == 1
