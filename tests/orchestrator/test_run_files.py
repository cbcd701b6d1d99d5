"""Several run files, one table: each row is the run's own summary, and its files are as of a run alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from dying_backend import DyingBackend, register

from foundation.commands import run_command
from foundation.errors import UserError
from orchestrator.commands.run import simulate
from orchestrator.run_files import COLUMNS, main


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run files of one NPU and of two, with an output; and one without."""
    monkeypatch.chdir(tmp_path)
    Path("w.tsv").write_text("30\t4\t0\n20\t1\t1000\n")
    shared = {"model_name": "gpt2", "dataset": "w.tsv"}
    runs = {"one": {"output": "out/one.csv"}, "two": {"npu_num": 2, "output": "out/two.csv"}, "none": {"req_num": 1}}
    for name, values in runs.items():
        Path(f"{name}.json").write_text(json.dumps(shared | values))
    return [f"{name}.json" for name in runs]


def test_a_row_a_run(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files, "--table", "out/table.csv"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "Runs" and printed[2].split("  ")[1] == "run"
    with Path("out/table.csv").open(newline="") as stream:
        header, *rows = list(csv.reader(stream))
    assert tuple(header) == COLUMNS and [row[0] for row in rows] == ["one", "two", "none"]
    for row, shown in zip(rows, printed[3:], strict=True):
        assert shown.split() == row
    for row in rows[:2]:
        summary = json.loads(Path(f"out/{row[0]}-summary.json").read_text())
        latencies = [
            summary[name][figure] for name in ("ttft_ms", "tpot_ms", "latency_ms") for figure in ("mean", "p99")
        ]
        rates = [summary["requests_per_s"], summary["generated_tokens_per_s"]]
        assert row[1:] == [str(summary["finished_requests"]), *(f"{one:.3f}" for one in latencies),
                           *(f"{one:.2f}" for one in rates), row[-1]]  # fmt: skip
    parts = json.loads(Path("out/two-summary.json").read_text())["simulated_time_s"]
    busy = sum(spent for name, spent in parts.items() if name not in ("idle", "waiting"))
    assert float(rows[1][-1]) == pytest.approx(100 * parts["exposed communication"] / busy, abs=0.05) and busy
    assert rows[0][-1] == "0.0" and float(rows[1][-1]) > 1
    assert rows[2][1] == "1"


def test_files_of_a_run_are_as_of_the_run_alone(files: list[str]) -> None:
    assert main([files[1]]) == 0
    together = Path("out/two.csv").read_bytes()
    assert simulate(["--settings", files[1], "--output", "alone/two.csv"]) == 0
    assert Path("alone/two.csv").read_bytes() == together


def test_a_run_without_figures_has_dashes(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("w.tsv").write_text("20\t1\t0\n")
    assert main([files[2]]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[0:2] == ["none", "1"] and row[4:6] == ["-", "-"]


def test_all_files_are_read_before_anything_is_simulated(files: list[str]) -> None:
    Path("none.json").write_text('{"npu_nmu": 2}')
    with pytest.raises(UserError, match=r"none.json, line 1, npu_nmu: unknown setting; did you mean npu_num"):
        main(files)
    assert not Path("out").exists()


def test_a_run_that_fails_does_not_stop_the_others(
    files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DyingBackend, "lifetime", 1)
    register(monkeypatch, "dying", DyingBackend)
    content = json.loads(Path("two.json").read_text())
    Path("two.json").write_text(json.dumps({**content, "backend": "dying"}))
    assert run_command(lambda: main(files)) == 1
    told = capsys.readouterr()
    assert told.err.startswith("error: two.json: ") and told.err.count("\n") == 1
    rows = [line.split() for line in told.out.splitlines()[3:]]
    assert [row[0] for row in rows] == ["one", "two", "none"]
    assert rows[1][1:] == ["-"] * (len(COLUMNS) - 1) and "-" not in rows[0]
