"""Latent attention through the main job: every way to a backend and every number of steps gives the same files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from foundation.errors import UserError
from orchestrator.commands.run import simulate
from trace_test.__main__ import main as trace_test

BINARY = os.environ.get("ORRERY_ASTRA_SIM")
REQUESTS = [(300, 6, 0), (40, 9, 1_000_000), (7, 3, 30_000_000)]
CHUNKED = ("--scheduling", "vllm", "--max_num_batched_tokens", "64", "--max_model_len", "512")
"""Chunks of prompts beside decodes."""


def serve(folder: Path, output: str, *flags: str, model: str = "DeepSeek-V2-Lite") -> bytes:
    """Return the CSV of a run on two NPUs."""
    dataset = folder / "few.tsv"
    dataset.write_text("".join("\t".join(map(str, row)) + "\n" for row in REQUESTS))
    common = ("--model_name", model, "--hardware", "H100", "--npu_num", "2", "--dataset", str(dataset))
    assert simulate([*common, "--output", str(folder / output), *flags]) == 0
    return (folder / output).read_bytes()


@pytest.mark.parametrize("flags", [(), ("--ep_size", "2"), CHUNKED, (*CHUNKED, "--mla", "expand")])
def test_memory_text_and_et_agree_and_steps_do_not_matter(tmp_path: Path, flags: tuple[str, ...]) -> None:
    memory = serve(tmp_path, "memory.csv", *flags)
    for name, way in (
        ("text", ("--interface", "text")),
        ("et", ("--interface", "et")),
        ("one", ("--macro_steps", "1")),
    ):
        assert serve(tmp_path, f"{name}.csv", *flags, *way) == memory, name


def test_forms_differ_and_are_recorded(tmp_path: Path) -> None:
    auto = serve(tmp_path, "auto.csv", *CHUNKED)
    others = [serve(tmp_path, f"{mla}.csv", *CHUNKED, "--mla", mla) for mla in ("absorb", "expand")]
    assert len({auto, *others}) == 3
    assert serve(tmp_path, "again.csv", *CHUNKED, "--mla", "auto") == auto
    assert json.loads((tmp_path / "absorb-settings.json").read_text())["mla"] == "absorb"
    again = ["--settings", str(tmp_path / "expand-settings.json"), "--output", str(tmp_path / "more.csv")]
    assert simulate(again) == 0 and (tmp_path / "more.csv").read_bytes() == others[1]


@pytest.mark.parametrize("mla", ["auto", "absorb", "expand"])
def test_traces_that_are_written_keep_the_rules(tmp_path: Path, mla: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, those of the model's shape, too: a text names the form."""
    serve(tmp_path, "out.csv", *CHUNKED, "--mla", mla, "--trace_dir", str(tmp_path / "traces"), "--quiet")
    monkeypatch.setattr(sys, "argv", ["trace_test", str(tmp_path / "traces")])
    assert trace_test() == 0


def test_a_cache_of_8_bits_holds_twice_as_much(tmp_path: Path) -> None:
    blocks = []
    for name, flags in (("wide", ()), ("narrow", ("--kv_cache_dtype", "fp8"))):
        serve(tmp_path, f"{name}.csv", *flags)
        blocks.append(json.loads((tmp_path / f"{name}-summary.json").read_text())["kv_blocks"])
    assert blocks[1] // blocks[0] == 2 or blocks[1] == pytest.approx(2 * blocks[0], rel=0.001)


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        ("Llama-3.1-8B", ("--mla", "absorb"), "--mla: absorb, but meta-llama/Llama-3.1-8B has no latent attention"),
        ("DeepSeek-V2-Lite", ("--mla", "none"), r"--mla: unknown \"none\"; known: absorb, auto, expand"),
        ("DeepSeek-V2-Lite", ("--attention_placement", "requests"), "--attention_placement: .* has latent attention"),
    ],
)
def test_what_is_refused(tmp_path: Path, model: str, flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        serve(tmp_path, "none.csv", *flags, model=model)
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize("model", ["gpt-oss-20b", "Phi-3.5-MoE-instruct"])
def test_the_other_mixtures_run(tmp_path: Path, model: str) -> None:
    flags = ("--npu_mem", "141", *CHUNKED)
    assert serve(tmp_path, "many.csv", *flags, model=model) == serve(
        tmp_path, "one.csv", *flags, "--macro_steps", "1", model=model
    )


@pytest.mark.skipif(BINARY is None, reason="no ASTRA-sim binary here (ORRERY_ASTRA_SIM names it)")
def test_the_real_binary_gives_the_same_cycles(tmp_path: Path) -> None:
    expected = serve(tmp_path, "embedded.csv", *CHUNKED)
    assert serve(tmp_path, "real.csv", *CHUNKED, "--backend", "astra-sim", "--no_cache") == expected
