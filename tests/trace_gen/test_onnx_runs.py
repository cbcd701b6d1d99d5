"""ONNX models through the main job: flag, run file and Python, what is recorded, what conflicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto
from onnx_cases import Shape, llama, save

from foundation.errors import UserError
from orchestrator.commands.run import simulate
from orchestrator.deploying import Deploying
from orchestrator.settings.specification import RunSpec

HIDDEN = {"hidden": 256, "heads": 8, "kv_heads": 4, "head_dim": 32, "kinds": (512,) * 6}


def serve(folder: Path, name: str, *flags: str) -> dict[str, Any]:
    """Run two requests on an H100; return the settings of the run, with the model's name and the rows of requests."""
    (folder / "few.tsv").write_text("100\t20\t0\n40\t9\t1000000\n")
    output = folder / name / "out.csv"
    where = ("--dataset", str(folder / "few.tsv"), "--output", str(output), "--hardware", "H100", "--quiet")
    assert simulate([*flags, *where]) == 0
    settings: dict[str, Any] = json.loads((output.parent / "out-settings.json").read_text())
    summary = json.loads((output.parent / "out-summary.json").read_text())
    return {**settings, "model": summary["model"], "rows": output.read_text()}


@pytest.mark.parametrize("npus", [(), ("--npu_num", "2"), ("--npu_num", "4", "--npu_group", "2")])
def test_it_is_served_as_the_model_of_its_config(tmp_path: Path, npus: tuple[str, ...]) -> None:
    path = save(tmp_path, llama(**HIDDEN), "small.onnx")
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text(json.dumps(Shape(**HIDDEN).config()))
    made = serve(tmp_path, "a", "--model_onnx", str(path), *npus)
    described = serve(tmp_path, "b", "--model_name", str(tmp_path / "small"), *npus)
    assert (made["model"], described["model"]) == ("small", "small")
    assert made["rows"] == described["rows"] and made["rows"].count("\n") == 3
    assert made["model_onnx"] == str(path) and "model_name" not in made
    assert "model_onnx" not in described and made["fp"] == described["fp"] == 16


def test_its_record_repeats_the_run(tmp_path: Path) -> None:
    path = save(tmp_path, llama(**HIDDEN), "small.onnx")
    first = serve(tmp_path, "a", "--model_onnx", str(path))
    again = serve(tmp_path, "b", "--settings", str(tmp_path / "a" / "out-settings.json"))
    assert again == first


def test_numbers_are_as_wide_as_the_files_unless_asked_otherwise(tmp_path: Path) -> None:
    path = str(save(tmp_path, llama(**HIDDEN, dtype=TensorProto.FLOAT)))
    wide, auto, narrow = (
        serve(tmp_path, name, "--model_onnx", path, *flags)
        for name, flags in (("a", ()), ("b", ("--dtype", "auto")), ("c", ("--fp", "16")))
    )
    assert (wide["fp"], auto["fp"], narrow["fp"]) == (32, 32, 16)
    assert wide["rows"] == auto["rows"] != narrow["rows"]


def test_quantised_weights_keep_the_width_that_they_are_multiplied_in(tmp_path: Path) -> None:
    path = save(tmp_path, llama(**HIDDEN, weights="qdq", dtype=TensorProto.FLOAT))
    made = Deploying(spec := RunSpec.of(model_onnx=str(path))).deploy(spec.engine)
    assert (made.engine.model.fp, made.model.quantization is not None) == (32, True)
    spec = RunSpec.of(model_onnx=str(path), fp=16)
    with pytest.raises(UserError, match="16 bits for tiny, whose weights are quantised"):
        Deploying(spec).deploy(spec.engine)


def test_an_engine_that_quantises_takes_16_bits(tmp_path: Path) -> None:
    path = save(tmp_path, llama(**HIDDEN, dtype=TensorProto.FLOAT))
    spec = RunSpec.of(model_onnx=str(path), quantization="fp8")
    assert Deploying(spec).deploy(spec.engine).engine.model.fp == 16


def test_a_model_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_onnx: conflicts with --model_name gpt2; leave one out"):
        RunSpec.of(model_name="gpt2", model_onnx="a.onnx")
    assert RunSpec.of(model_onnx="a.onnx").engine.model.model_onnx == Path("a.onnx")


def test_engines_of_a_file_may_differ(tmp_path: Path) -> None:
    path = save(tmp_path, llama(**HIDDEN), "small.onnx")
    spec = RunSpec.of(engines=[{"model_onnx": str(path)}, {"model_name": "gpt2"}])
    deploying = Deploying(spec)
    names = [deploying.deploy(one).model.name for one in spec.engines]
    assert names == ["small", "openai-community/gpt2"]
