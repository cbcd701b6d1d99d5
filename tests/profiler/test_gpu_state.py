"""What nvidia-smi says, read from a program of that name that is put first on the path."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.gpu_state import CLOCKS, found_busy, others, query


def nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("told", "running", "said"),
    [
        ({}, [], ""),
        ({"utilization.gpu": "5 %", "memory.used": "600 MiB"}, ["12"], ""),
        ({"utilization.gpu": "6 %"}, [], "it is 6 % busy"),
        ({"utilization.gpu": "0 %", "memory.used": "2049 MiB"}, [], "2049 MiB of its memory are in use"),
        ({"utilization.gpu": "0 %"}, ["12", "77"], "processes 77 compute on it"),
        ({"utilization.gpu": "[N/A]"}, ["[N/A]"], ""),
    ],
)
def test_what_counts_as_busy(told: dict[str, str], running: list[str], said: str) -> None:
    assert found_busy(told, running, own=12) == said


def test_clocks_are_read_and_unknown_ones_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = "2370 MHz, 12481 MHz, 3090 MHz, 12481 MHz, 451.20 W, [N/A], 61"
    nvidia_smi(tmp_path, f'echo "$@" > {tmp_path}/asked; echo "{answer}"', monkeypatch)
    told = query("GPU-12", CLOCKS)
    assert told["clocks.sm"] == "2370 MHz" and told["temperature.gpu"] == "61" and "power.limit" not in told
    assert (tmp_path / "asked").read_text().split()[0] == "--id=GPU-12"


def test_others_on_the_gpu_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, 'case "$2" in *compute-apps*) echo 99999999;; *) echo "0 %, 10 MiB";; esac', monkeypatch)
    assert others("0") == "processes 99999999 compute on it"


@pytest.mark.parametrize("script", ["exit 9", "echo", None])
def test_without_an_answer_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        nvidia_smi(tmp_path, script, monkeypatch)
    assert query("0", CLOCKS) == {} and others("0") == ""
