"""The command line, with a device that computes its times: it writes, says so, and the simulator runs on it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers.fake_device import FakeDevice
from helpers.small_profile import small_model

from foundation.commands import run_command
from orchestrator.cli import main as simulate
from profiler.command import main

SIZES = "--max_tokens 16 --max_sequences 4 --max_context 64"


def call(line: str, monkeypatch: pytest.MonkeyPatch, device: FakeDevice | None = None) -> int:
    monkeypatch.setattr("sys.argv", ["profiler", *line.split()])
    return run_command(lambda: main(None if device is None else lambda name, dtype: device))


def test_a_profile_is_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = small_model(tmp_path), tmp_path / "out"
    line = f"--model {model} --out {out} --hardware RTX4090 --tensor 2 {SIZES}"
    assert call(line, monkeypatch, FakeDevice()) == 0
    assert f"{out}: " in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} >= {"tp1", "tp2", "meta.yaml", "RTX4090.csv", "kernels.csv"}
    for flags in (
        f"--profile_dir {out} --npu_num 2",
        f"--perf_table {out}/RTX4090.csv --hardware RTX4090",
    ):
        words = f"main --model_name {model} {flags} --req_num 2 --output {tmp_path}/run.csv"
        monkeypatch.setattr("sys.argv", words.split())
        assert run_command(simulate) == 0, capsys.readouterr().err
        assert (tmp_path / "run.csv").read_text().count("\n") == 3


def test_the_device_names_the_hardware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"--model {small_model(tmp_path)} --out {tmp_path}/out {SIZES}"
    assert call(line, monkeypatch, FakeDevice()) == 0
    assert (tmp_path / "out" / "Fake-9000.csv").is_file()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--tensor 2,x", '--tensor: "2,x" is no list of degrees; write 1,2,4'),
        ("--tensor 0", '--tensor: "0" is no list of degrees; write 1,2,4'),
        ("--tensor 3", "which 3 ranks do not share; give degrees that divide them"),
        ("--device tpu", '--device: "tpu" is no device; give cuda:0, or cpu'),
        ("--hardware a/b", '--hardware: "a/b" cannot name a device; use letters, digits, dots and dashes'),
        ("--chunk_factor 1", '--chunk_factor: "1" is not a number from 1.1 to 16; see --help'),
        ("--max_tokens 0", "--max_tokens: "),
        ("--collectives 1", "--collectives: "),
        ("--max_token 5", "--max_token: unknown flag; did you mean --max_tokens"),
    ],
)
def test_wrong_flags_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: str,
    said: str,
) -> None:
    line = f"--model {small_model(tmp_path)} --out {tmp_path}/out {flags}"
    assert call(line, monkeypatch, FakeDevice()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert not (tmp_path / "out").exists()


def test_without_pytorch_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert call(f"--model {small_model(tmp_path)} --out {tmp_path}/out --device cpu", monkeypatch) == 2
    assert "PyTorch is not installed; install it: pip install 'orrery-sim[profiler]'" in capsys.readouterr().err
