"""The files of a run: rows on disk as requests finish, names at the end, full disks, cells that are no formulas."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from full_disk import largest_file
from helpers.reached import Reached, reaches
from hypothesis import strategies as st

from foundation.commands import run_command
from foundation.errors import UserError
from orchestrator import Observer, RunSpec, Simulation
from orchestrator.commands.run import simulate
from orchestrator.engine.records import CompletedBatch
from orchestrator.observers import files
from orchestrator.observers.files import ResultFiles, companions, csv_cell, request_lines
from orchestrator.observers.finished import COLUMNS
from orchestrator.observers.interface import FinishedRows, Stop

ROWS = [(100, 8, 0), (40, 15, 1_000_000), (300, 6, 2_000_000), (7, 1, 30_000_000), (64, 16, 31_000_000)]
GPT2 = ("--model_name", "openai-community/gpt2")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "few.tsv"
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in ROWS))
    return path


def spec(dataset: Path, **values: Any) -> RunSpec:
    return RunSpec.of(model_name="openai-community/gpt2", dataset=str(dataset), **values)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rows_are_on_disk_while_the_run_goes_on(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "out.csv"
    seen: list[list[str]] = []

    class Looking(Observer):
        def interval(self, interval: object) -> None:
            part = output.with_name("out.csv.part")
            seen.append([line.split(",")[0] for line in part.read_text().splitlines()[1:]])
            assert not output.exists()

    Simulation(spec(dataset, log_interval=0.005), [ResultFiles(output, itl=None, report=False), Looking()]).run()
    assert seen[0] == [] and 0 < len(seen[len(seen) // 2]) < 5
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(seen))
    assert seen[-1] == [line.split(",")[0] for line in output.read_text().splitlines()[1:]]
    assert names(output.parent) == [
        "out-settings.json", "out-simulation-time.tsv", "out-summary.json", "out-throughput.tsv", "out.csv"
    ]  # fmt: skip


def test_a_defect_in_mid_run_leaves_the_part_files(dataset: Path, tmp_path: Path) -> None:
    class Broken(Observer):
        count = 0

        def finished(self, rows: FinishedRows) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Simulation(spec(dataset), [ResultFiles(tmp_path / "new" / "out.csv", itl=None, report=True), Broken()]).run()
    assert names(tmp_path / "new") == ["out-throughput.tsv.part", "out.csv.part"]
    assert (tmp_path / "new" / "out.csv.part").read_text().startswith("request id,")


def test_a_stopped_run_has_its_files(dataset: Path, tmp_path: Path) -> None:
    class Enough(Observer):
        def batch(self, done: CompletedBatch) -> None:
            if done.outcome.finished:
                raise Stop("one is enough")

    Simulation(spec(dataset), [ResultFiles(tmp_path / "new" / "out.csv", itl=None, report=True), Enough()]).run()
    summary = json.loads((tmp_path / "new" / "out-summary.json").read_text())
    assert summary["complete"] is False and summary["error"] == "one is enough"
    assert len(pd.read_csv(tmp_path / "new" / "out.csv")) == summary["finished_requests"] >= 1


@pytest.mark.parametrize("size", [200, 900, 3_000])
def test_a_full_disk_is_told_once_and_everything_else_goes_on(
    dataset: Path, tmp_path: Path, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "out.csv"
    flags = [*GPT2, "--dataset", str(dataset), "--output", str(output), "--log_interval", "0.001"]
    with largest_file(size):
        code = run_command(lambda: simulate(flags))
    out, err = capsys.readouterr()
    assert code == 2 and "Traceback" not in err
    failed = [line for line in err.splitlines() if line.startswith("error: ")]
    assert failed == err.splitlines() and len(failed) == len(set(failed))
    assert all("cannot write" in line for line in failed)
    assert "finished requests     " in out.replace("finished requests   ", "finished requests     "), (
        "the summary is printed"
    )
    assert "TTFT" in out
    for line in failed:
        if "kept in" in line:
            kept = Path(line.split("kept in ")[1].split(")")[0])
            assert kept.exists() and kept.name in names(output.parent)
    whole = {path.name for path in output.parent.iterdir() if not path.name.endswith(".part")}
    assert all(not (output.parent / f"{name}.part").exists() for name in whole)


def test_a_place_that_cannot_be_written_is_refused_before_the_run(dataset: Path, tmp_path: Path) -> None:
    heard: list[str] = []

    class Ears(Observer):
        def batch(self, done: CompletedBatch) -> None:
            heard.append("batch")

    for output in (Path("/proc/x.csv"), tmp_path / "few.tsv" / "out.csv", tmp_path / ("a" * 300 + ".csv")):
        with pytest.raises(UserError, match="cannot write"):
            Simulation(spec(dataset), [ResultFiles(output, itl=None, report=True), Ears()]).run()
    assert heard == [] and names(tmp_path) == ["few.tsv"]


def test_what_a_failed_run_left_is_replaced_by_the_next(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv.part").write_text("half a ro")
    Simulation(spec(dataset), [ResultFiles(tmp_path / "out.csv", itl=None, report=False)]).run()
    assert not (tmp_path / "out.csv.part").exists() and len(pd.read_csv(tmp_path / "out.csv")) == 5


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("plain", "plain"),
        ("=1+1", "'=1+1"),
        ("+x", "'+x"),
        ("-x", "'-x"),
        ("@x", "'@x"),
        ("a,b", '"a,b"'),
        ('a"b', '"a""b"'),
        ("=a,b", '"\'=a,b"'),
        ("two\nlines", "two\\nlines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("org/name-1.5", "org/name-1.5"),
    ],
)
def test_a_cell_is_one_line_and_no_formula(text: str, cell: str) -> None:
    assert csv_cell(text) == cell


def test_a_model_of_an_odd_name_breaks_no_row(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "=cmd(),\x1b[31m"
    folder.mkdir()
    shape = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 1024, "vocab_size": 100}
    (folder / "config.json").write_text(json.dumps(shape))
    flags = ["--model_name", str(folder), "--dataset", str(dataset), "--output", str(tmp_path / "out.csv")]
    assert simulate(flags) == 0
    assert set(pd.read_csv(tmp_path / "out.csv")["model"]) == {"'=cmd(),\\x1b[31m"}
    assert "\x1b" not in capsys.readouterr().out
    assert "\x1b" not in (tmp_path / "out-report.html").read_text()


@reaches(
    0.5,
    examples=100,
    rows=st.lists(st.tuples(*[st.integers(1, 10**12)] * 5, st.integers(1, 5)), min_size=1, max_size=5),
)
def test_rows_read_back_as_they_were(reached: Reached, rows: list[tuple[int, ...]]) -> None:
    """Against the CSV module: what is written by hand is what it would write."""
    import csv
    import io

    ordered = [sorted(row[:5]) for row in rows]
    outputs = [row[5] for row in rows]
    columns = dict(zip(COLUMNS, np.zeros((len(COLUMNS), len(rows)), dtype=np.int64), strict=True))
    for place, (moments, output) in enumerate(zip(ordered, outputs, strict=True)):
        for name, value in zip(("arrival", "queued", "scheduled", "first_token", "end"), moments, strict=True):
            columns[name][place] = value
        columns["id"][place], columns["input"][place], columns["output"][place] = place, 7, output
    gaps = [np.arange(output - 1, dtype=np.int64) for output in outputs]
    written = "".join(request_lines(FinishedRows(columns, gaps), [csv_cell("a,b")], itl=True))
    table = list(csv.reader(io.StringIO(written)))
    assert len(table) == len(rows) and all(len(row) == 14 and row[1] == "a,b" for row in table)
    for row, output, (arrival, _, scheduled, first, end) in zip(table, outputs, ordered, strict=True):
        assert list(map(int, row[9:12])) == [end - arrival, scheduled - arrival, first - arrival]
        assert row[12] == (f"{(end - first) / (output - 1):.3f}" if output > 1 else "")
        assert row[13] == (str(list(range(output - 1))) if output > 1 else "")
    again = io.StringIO()
    csv.writer(again, lineterminator="\n").writerows(table)
    assert again.getvalue() == written
    if max(outputs) > 2:
        reached()


def test_lists_of_gaps_are_left_out_where_they_are_many_and_it_is_said(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [*GPT2, "--dataset", str(dataset), "--output", str(tmp_path / "out.csv")]
    said = "note: the CSV is without ITL lists of 46 output tokens (--itl list writes them)\n"
    assert simulate(base) == 0
    assert pd.read_csv(tmp_path / "out.csv")["ITL"].notna().sum() == 4 and said not in capsys.readouterr().out
    monkeypatch.setattr(files, "MOST_ITL_TOKENS", 46)
    assert simulate(base) == 0
    assert said not in capsys.readouterr().out, "46 are not too many"
    monkeypatch.setattr(files, "MOST_ITL_TOKENS", 45)
    assert simulate(base) == 0
    assert pd.read_csv(tmp_path / "out.csv")["ITL"].isna().all() and said in capsys.readouterr().out
    assert simulate([*base, "--itl", "list"]) == 0
    assert pd.read_csv(tmp_path / "out.csv")["ITL"].notna().sum() == 4 and said not in capsys.readouterr().out
    assert simulate([*base, "--itl", "none"]) == 0
    assert pd.read_csv(tmp_path / "out.csv")["ITL"].isna().all() and said not in capsys.readouterr().out


def test_companions_stand_beside_the_csv() -> None:
    named = companions(Path("out/run.v2.csv"))
    assert named["throughput"] == Path("out/run.v2-throughput.tsv")
    assert named["simulation-time"] == Path("out/run.v2-simulation-time.tsv")
    assert companions(Path("run.v2"))["summary"] == Path("run.v2-summary.json")


def test_a_second_file_that_cannot_be_begun_takes_the_first_back(dataset: Path, tmp_path: Path) -> None:
    """Also where the disk is so full that the first does not hold even its header."""
    (tmp_path / "new" / "out-throughput.tsv.part").mkdir(parents=True)
    made = ResultFiles(tmp_path / "new" / "out.csv", itl=None, report=False)
    with pytest.raises(UserError, match=r"out-throughput\.tsv: cannot write"):
        Simulation(RunSpec.of(model_name="openai-community/gpt2", dataset=str(dataset)), [made]).run()
    assert names(tmp_path / "new") == ["out-throughput.tsv.part"]
    assert not made.written and not made.failed
    again = ResultFiles(tmp_path / "new" / "out.csv", itl=None, report=False)
    with largest_file(0), pytest.raises(UserError, match=r"out-throughput\.tsv: cannot write"):
        Simulation(RunSpec.of(model_name="openai-community/gpt2", dataset=str(dataset)), [again]).run()
    assert names(tmp_path / "new") == ["out-throughput.tsv.part"]
