"""`orrery pipeline`: a result for each pair, the same as the steps one by one, and nothing done twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filled import contents

from foundation.errors import UserError
from foundation.settings.catalogue import catalogue
from foundation.settings.reading import Layers, read
from orchestrator.commands.pipeline import PipelineSettings, pipeline, together
from orchestrator.commands.run import simulate
from orchestrator.pipeline import running
from orchestrator.pipeline.lengths import ROWS, TASKS, lengths_of
from orchestrator.pipeline.table import COLUMNS
from orchestrator.requests.formats import read_requests
from tests.trace_gen.test_llmcompass import DEVICE
from trace_gen.kernels.layout import read_meta

ROOT = Path(__file__).parents[2]
SYSTEM = """\
model: llama70b
system: {device: A100, num_devices: 8, io_algo: ring, attention_parallelism: tp8, batching_algo: mixed-sarathi}
system_sim: {end_reqs: 4}
trace_gen: {random_seed: 5, end_time: 60, tasks: code, request_rates: 2}
"""
FEW = ("--max_tokens", "2048", "--max_context", "2048", "--max_requests", "8", "--processes", "1")
SLOW = """\
import sys, time
from orchestrator.pipeline import running
plain = running.simulated
def slow(spec):
    time.sleep(0.3)
    return plain(spec)
running.simulated = slow
from orchestrator.commands.pipeline import pipeline
pipeline(sys.argv[1:])
"""
ENGINE = "llama70b-tp8-mixed-sarathi-chunk2048"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "system.yaml"
    path.write_text(SYSTEM)
    return path


def simulations(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that grows with each simulation of a pipeline."""
    found: list[object] = []
    plain = running.simulated
    monkeypatch.setattr(running, "simulated", lambda spec: (found.append(spec), plain(spec))[1])
    return found


def test_one_result_a_pair_and_none_twice(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = simulations(monkeypatch)
    command = ["system.yaml", "--task", "code", "conv", "--rate", "1", "3", "--output", "out", *FEW]
    assert pipeline(command) == 0 and len(done) == 4
    rows = json.loads(Path("out/results.json").read_text())
    assert [(row["engine"], row["task"], row["rate"]) for row in rows] == [
        (ENGINE, task, rate) for task in ("code", "conv") for rate in (1, 3)
    ]
    for row in rows:
        own = json.loads(Path(f"out/results/{ENGINE}-{row['task']}-rate{row['rate']:g}-summary.json").read_text())
        assert own["finished_requests"] == row["requests"] == 4
        assert own["ttft_ms"]["p99"] == row["TTFT_p99_ms"] and own["makespan_s"] == row["makespan_s"]
        counts = [row[f"lookups_{what}"] for what in ("measured", "interpolated", "extrapolated")]
        assert counts == [own["lookups"][what] for what in ("measured", "interpolated", "extrapolated")]
        assert counts[1] > 0
    with Path("out/results.tsv").open() as stream:
        table = list(csv.reader(stream, delimiter="\t"))
    assert tuple(table[0]) == COLUMNS and len(table) == 5
    assert [float(row[4]) for row in table[1:]] == pytest.approx([row["makespan_s"] for row in rows], rel=1e-5)

    before, own = contents(Path("out")), f"{ENGINE}-conv-rate1"
    assert pipeline(command) == 0 and len(done) == 4, "all is done"
    Path(f"out/results/{own}.result.json").unlink()
    assert pipeline(command) == 0 and len(done) == 5, "what lacks is done"
    after = contents(Path("out"))
    assert {name for name in before if before[name] != after[name]} <= {f"results/{own}-simulation-time.tsv"}
    assert pipeline([*command[:2], "code", *command[4:]]) == 0 and len(done) == 5, "a part of it is done"
    changed = [*command, "--max_requests", "9"]
    assert pipeline(changed) == 0 and len(done) == 9, "by another table all is another"


def test_it_is_what_the_steps_make_one_by_one(system: Path) -> None:
    """The run file that a pipeline leaves, simulated by `main.py`, writes the very same requests."""
    assert pipeline(["system.yaml", "--output", "out", *FEW]) == 0
    name = f"{ENGINE}-code-rate2"
    assert simulate(["--settings", f"out/{name}.yaml", "--output", "again.csv", "--quiet"]) == 0
    assert Path("again.csv").read_bytes() == Path(f"out/results/{name}.csv").read_bytes()
    assert json.loads(Path("out/results.json").read_text())[0]["rate"] == 2, "the file's own tasks and rates"


def test_a_device_file_of_reallms(system: Path) -> None:
    """Found where ReaLLM keeps it; a run by the table takes its device from there, too."""
    for folder in ("configs/system", "configs/device"):
        Path(folder).mkdir(parents=True)
    Path("configs/device/GA100.json").write_text(json.dumps(DEVICE))
    Path("configs/system/mine.yaml").write_text(SYSTEM.replace("A100", "GA100"))
    assert pipeline(["configs/system/mine.yaml", "--output", "out", *FEW]) == 0
    meta = read_meta(Path("out/kernels"))
    assert (meta.hardware, meta.device) == ("GA100", "configs/device/GA100.json")
    flags = ["--model_name", "meta-llama/Llama-3.1-70B", "--npu_num", "8", "--req_num", "1", "--quiet"]
    assert simulate([*flags, "--profile_dir", "out/kernels", "--output", "again.csv"]) == 0
    settings = json.loads(Path("again-settings.json").read_text())
    assert settings["hardware"] == "configs/device/GA100.json"


def test_a_killed_pipeline_goes_on(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["system.yaml", "--task", "code", "conv", "--rate", "1", "3", *FEW, "--output"]
    assert pipeline([*arguments, "whole"]) == 0
    command, environment = [sys.executable, "-c", SLOW, *arguments, "killed"], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        ends = time.monotonic() + 60
        while not list(Path("killed/results").glob("*.result.json")):
            assert process.poll() is None and time.monotonic() < ends
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    kept = len(list(Path("killed/results").glob("*.result.json")))
    assert 0 < kept < 4 and not Path("killed/results.tsv").exists()
    done = simulations(monkeypatch)
    assert pipeline([*arguments, "killed"]) == 0
    assert len(done) == 4 - kept
    assert Path("killed/results.tsv").read_bytes() == Path("whole/results.tsv").read_bytes()
    assert contents(Path("killed/kernels")) == contents(Path("whole/kernels"))
    assert contents(Path("killed/workloads")) == contents(Path("whole/workloads"))


def test_lengths_of_a_trace_that_is_given(system: Path) -> None:
    Path("azure.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:01,321,7\n")
    assert pipeline(["system.yaml", "--code", "azure.csv", "--output", "out", *FEW]) == 0
    drawn = read_requests(Path("out/workloads/code-rate2.tsv")).requests
    assert {*drawn.prompt_tokens.tolist()} == {321} and {*drawn.output_tokens.tolist()} == {7}


@pytest.mark.parametrize("task", TASKS)
def test_lengths_of_the_distribution(task: str) -> None:
    """Its medians are the published ones, within what 10,000 draws tell; a seed is one set of lengths."""
    drawn = lengths_of(task, 3)
    assert len(drawn) == ROWS
    for found, of in zip((drawn.prompt_tokens, drawn.output_tokens), TASKS[task], strict=True):
        assert np.median(found) == pytest.approx(of.median, rel=0.05)
        assert found.min() >= 1 and found.max() <= of.most
    again, other = lengths_of(task, 3), lengths_of(task, 4)
    assert again.prompt_tokens.tolist() == drawn.prompt_tokens.tolist() != other.prompt_tokens.tolist()


def test_words_after_a_flag_are_one() -> None:
    line = ["s.yaml", "--task", "code", "conv", "--rate=2", "--output", "o", "--rate", "1", "3", "5"]
    assert together(line, ("task", "rate")) == [
        "s.yaml", "--task", "code,conv", "--rate=2", "--output", "o", "--rate", "1,3,5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"task": "code,chat"}, "--task: 'chat' is unknown; known: code, conv"),
        ({"rate": "1,x"}, "--rate: 'x'; expected requests/s from 1e-06 to 1e+06"),
        ({"rate": "0"}, "--rate: '0'; expected"),
        ({"rate": "3,3"}, "--rate: one of them comes twice; leave one out"),
        ({"output": None}, "--output: is missing; give a folder"),
        ({"system": None}, "is missing; give a system file of ReaLLM's"),
    ],
)
def test_wrong_flags(flags: dict[str, str | None], message: str) -> None:
    from foundation.settings.command_line import parse

    given = {"system": "s.yaml", "output": "o", **flags}
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
    with pytest.raises(UserError) as error:
        read(PipelineSettings, Layers(flags=parse(words, catalogue(PipelineSettings), first="system")))
    assert message in str(error.value)
