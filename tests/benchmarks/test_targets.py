"""`python -m benchmarks` measures what it says, on a run that is small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.measuring import ROOT
from benchmarks.targets import WORK


def test_it_lists_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [work.name for work in WORK]


@pytest.mark.parametrize(
    "wrong", [["--only", "none"], ["--profile", "none"], ["--peer", "none=true"], ["--scale", "0"], ["--repeat", "0"]]
)
def test_wrong_flags_are_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(wrong) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_checkouts_and_a_peer_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other checkout is this one: the files are the same, and the ratio is about one."""
    told = tmp_path / "told.json"
    flags = ["--only", "tp8", "--scale", "0.001", "--repeat", "1", "--json", str(told), "--markdown"]
    assert main([*flags, "--checkout", str(ROOT), "--peer", "tp8=python3 -c pass"]) == 0
    (row,) = json.loads(told.read_text())["rows"]
    assert row["same files"] is True and row["CPU s"] > 0 and row["MB"] > 10 and 0.1 < row["ratio"] < 10
    assert row["peer CPU s"] >= 0
    shown = capsys.readouterr().out
    assert "| 5,000 requests, TP 8 |" in shown and "0.001 times the requests" in shown


def test_a_command_that_fails_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "help", "--repeat", "1", "--peer", "help=false"]) == 1
    assert "false: exit 1" in capsys.readouterr().err


def test_what_is_not_there_is_skipped_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    gone = [replace(work, folder=tmp_path / "gone") for work in WORK if work.name == "recorded"]
    monkeypatch.setattr("benchmarks.__main__.WORK", gone)
    assert main(["--only", "recorded"]) == 0
    assert "gone is not there" in capsys.readouterr().out


def test_a_profile_says_where_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--profile", "tp8", "--scale", "0.001"]) == 0
    assert "cumulative time" in capsys.readouterr().out
