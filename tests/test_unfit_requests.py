"""Requests that can never fit: refused with their line, or dropped and counted; `wrong_inputs` has other faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundation.commands import run_command
from orchestrator.commands.run import simulate


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a workload of two requests, one of which is too long."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "long.tsv").write_text("10\t5\t0\n900000\t5\t0\n")
    return tmp_path


def test_requests_that_never_fit_can_be_dropped_and_are_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", "long.tsv", "--skip_unfit", "--output", "out.csv"]
    assert run_command(lambda: simulate(flags)) == 0
    assert json.loads((folder / "out-summary.json").read_text())["skipped"] == 1
    assert "1 requests that can never fit are skipped" in capsys.readouterr().out
    assert len((folder / "out.csv").read_text().splitlines()) == 2


def test_a_workload_of_which_nothing_fits_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "long.tsv").write_text("900000\t5\t0\n")
    assert run_command(lambda: simulate(["--dataset", "long.tsv", "--skip_unfit"])) == 2
    assert "none of the 1 requests fits" in capsys.readouterr().err
