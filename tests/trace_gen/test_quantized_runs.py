"""Quantised checkpoints through the main job: what is recorded, what conflicts, and that they are faster."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from test_quantization import AWQ, FLOAT, FP8, tensors

from foundation.errors import UserError
from orchestrator.commands.run import simulate
from trace_gen.models import shipped_models
from trace_test.__main__ import main as trace_test

BASE = json.loads(shipped_models()["meta-llama/Llama-3.1-8B"].read_text()) | {"num_hidden_layers": 4}


def serve(folder: Path, name: str, config: dict[str, object] | None, *flags: str) -> dict[str, object]:
    """Run two requests on an H100 and return the settings that the run was made with, and its mean TPOT."""
    (folder / "config.json").write_text(json.dumps(BASE | {"quantization_config": config}))
    (folder / "few.tsv").write_text("100\t20\t0\n40\t9\t1000000\n")
    output = folder / name / "out.csv"
    where = ("--model_name", str(folder / "config.json"), "--dataset", str(folder / "few.tsv"), "--output", str(output))
    assert simulate([*where, "--hardware", "H100", *flags]) == 0
    settings = json.loads((output.parent / "out-settings.json").read_text())
    tpot = json.loads((output.parent / "out-summary.json").read_text())["tpot_ms"]["mean"]
    return {**settings, "tpot": tpot}


def test_fewer_bytes_are_faster_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, eight, four = (serve(tmp_path, name, config) for name, config in (("a", None), ("b", FP8), ("c", AWQ)))
    assert plain["tpot"] > 1.1 * eight["tpot"] > 1.1 * four["tpot"]  # type: ignore[operator]
    told = capsys.readouterr().out
    assert "is quantised: fp8, matrices of 8 bits" in told and "is quantised: awq, matrices of 4 bits" in told
    assert plain["fp"] == eight["fp"] == 16


def test_vllm_quantises_a_checkpoint_to_fp8_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = serve(tmp_path, "a", FP8)
    said = capsys.readouterr().out
    made = serve(tmp_path, "b", None, "--quantization", "fp8")
    assert (made.pop("quantization"), made) == ("fp8", stored)
    told = capsys.readouterr().out
    assert "is quantised: fp8, matrices of 8 bits" in said
    assert "is quantised: fp8 while it is loaded, matrices of 8 bits with their scales, multiplied in FP8" in told
    settings = tmp_path / "b" / "out-settings.json"
    assert simulate(["--settings", str(settings), "--output", str(tmp_path / "again.csv")]) == 0
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "b" / "out.csv").read_text()


def test_a_trace_of_weights_quantised_by_the_engine_keeps_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the model's shape, which have to know of it: the model that is shipped is not quantised."""
    (tmp_path / "few.tsv").write_text("100\t3\t0\n")
    where = ["--dataset", str(tmp_path / "few.tsv"), "--trace_dir", str(tmp_path / "traces"), "--quantization", "fp8"]
    assert simulate(["--model_name", "openai-community/gpt2", *where, "--quiet"]) == 0
    first = (tmp_path / "traces" / "batch000000.txt").read_text()
    for method, broken in (("fp8", 0), ("none", 1)):
        (tmp_path / "trace.txt").write_text(first.replace('"quantization": "fp8"', f'"quantization": "{method}"'))
        monkeypatch.setattr(sys, "argv", ["trace_test", str(tmp_path / "trace.txt")])
        assert trace_test() == broken


def test_a_checkpoints_kv_cache_is_its_own(tmp_path: Path) -> None:
    config = tensors(FLOAT, kv_cache_scheme={"num_bits": 8, "type": "float"})
    assert serve(tmp_path, "a", config)["kv_cache_dtype"] == "fp8"
    assert serve(tmp_path, "b", config, "--kv_cache_dtype", "bfloat16")["kv_cache_dtype"] == "bfloat16"
    assert serve(tmp_path, "c", FP8)["kv_cache_dtype"] == "auto"


@pytest.mark.parametrize("flags", [("--fp", "8"), ("--dtype", "float32")])
def test_a_width_for_all_numbers_contradicts_a_quantised_checkpoint(tmp_path: Path, flags: tuple[str, str]) -> None:
    message = rf"^{flags[0]}: (8|32) bits for .*, whose weights are quantised \(awq\) to 4; leave it out"
    with pytest.raises(UserError, match=message):
        serve(tmp_path, "a", AWQ, *flags)


@pytest.mark.parametrize(
    ("config", "fix"), [(AWQ, "NPUs$"), (None, r"NPUs, or fewer bits \(--fp, --quantization fp8\)$")]
)
def test_fewer_bits_are_advised_where_there_may_be_fewer(
    tmp_path: Path, config: dict[str, object] | None, fix: str
) -> None:
    with pytest.raises(UserError, match=rf"GB an NPU for its weights, .*; give more memory or more {fix}"):
        serve(tmp_path, "a", config, "--npu_mem", "0.5")
