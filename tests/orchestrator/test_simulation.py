"""A run from Python: what it returns, what observers hear, how it is stopped, how several engines share the work."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dying_backend import DyingBackend, register

from foundation.errors import SimulationError, UserError
from orchestrator import EngineSpec, Observer, RunResult, RunSpec, Simulation, Stop
from orchestrator.engine.records import CompletedBatch
from orchestrator.observers.console import Console
from orchestrator.observers.files import ResultFiles
from orchestrator.observers.interface import FinishedRows, Run
from orchestrator.observers.intervals import Interval
from orchestrator.settings.record import repeating

ROWS = [(100, 8, 0), (40, 15, 1_000_000), (300, 6, 2_000_000), (7, 1, 30_000_000), (64, 16, 31_000_000)]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "few.tsv"
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in ROWS))
    return path


def spec(dataset: Path, **values: Any) -> RunSpec:
    return RunSpec.of(model_name="openai-community/gpt2", dataset=str(dataset), **values)


class Ears(Observer):
    """Notes everything it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.rows: list[int] = []
        self.tokens = 0
        self.gaps: list[list[int]] = []
        self.ends: list[int] = []

    def begin(self, run: Run) -> None:
        self.told.append(f"begin {run.source.count}")

    def batch(self, done: CompletedBatch) -> None:
        self.told.append("batch")
        self.tokens += done.outcome.step_tokens * done.batch.steps

    def finished(self, rows: FinishedRows) -> None:
        self.told.append("finished")
        self.rows += rows.columns["id"].tolist()
        self.gaps += [gaps.tolist() for gaps in rows.itl or ()]

    def interval(self, interval: Interval) -> None:
        self.told.append("interval")
        self.ends.append(interval.end_ns)

    def end(self, result: RunResult) -> None:
        self.told.append(f"end {result.complete}")


def test_a_result_has_requests_summary_intervals_and_time(dataset: Path) -> None:
    result = Simulation(spec(dataset, log_interval=0.01)).run()
    table = result.requests
    assert isinstance(table, pd.DataFrame) and list(table["id"]) == list(result.columns["id"])
    assert sorted(table["input"]) == sorted(row[0] for row in ROWS)
    assert (table["ttft"] == table["first_token"] - table["arrival"]).all()
    assert result.summary.ttft_ms is not None
    assert result.summary.ttft_ms["mean"] == pytest.approx(table["ttft"].mean() / 1e6)
    assert result.summary.tpot_ms is not None
    assert result.summary.tpot_ms["mean"] == pytest.approx(table["tpot"].mean() / 1e6)
    assert table["tpot"].isna().tolist() == (table["output"] == 1).tolist()
    assert sum(one.generation_per_s for one in result.intervals) * 0.01 == pytest.approx(sum(row[1] for row in ROWS))
    time = result.time
    assert time.busy_ns + time.waiting_ns + time.idle_ns == time.makespan_ns == round(result.summary.makespan_s * 1e9)
    assert time.idle_ns > 0, "between the third and the fourth request nothing is there"
    assert result.complete and result.error is None and result.stopped is None and not result.turned_away
    assert len(result.unfinished["id"]) == 0 and result.wall_ms["total"] > 0


def test_without_pandas_requests_are_columns(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = Simulation(spec(dataset)).run()
    with_pandas = result.requests
    monkeypatch.setitem(sys.modules, "pandas", None)
    table = result.requests
    assert isinstance(table, dict) and list(table) == list(with_pandas.columns)
    assert table["latency"].tolist() == with_pandas["latency"].tolist()


def test_the_specification_of_a_result_gives_the_same_result(dataset: Path) -> None:
    first = Simulation(spec(dataset, npu_num=2, scheduling="vllm")).run()
    second = Simulation(RunSpec.of(**repeating(first.spec))).run()
    assert second.summary == first.summary and second.spec == first.spec
    for name, values in first.columns.items():
        assert (second.columns[name] == values).all()


def test_observers_hear_everything_in_order(dataset: Path) -> None:
    ears = Ears()
    result = Simulation(spec(dataset, log_interval=0.01), [ears]).run()
    assert ears.told[0] == "begin 5" and ears.told[-1] == "end True"
    assert ears.rows == result.columns["id"].tolist() and ears.tokens == sum(row[1] for row in ROWS)
    assert ears.ends == [one.end_ns for one in result.intervals] == sorted(ears.ends)
    assert ears.gaps == [], "nobody asked for them"
    assert ears.told.index("finished") < len(ears.told) - 1 - ears.told[::-1].index("batch"), "rows come as they finish"


def test_an_observer_may_ask_for_the_times_between_tokens(dataset: Path) -> None:
    class Wanting(Ears):
        wants_itl = True

    ears = Wanting()
    result = Simulation(spec(dataset), [ears]).run()
    assert [len(gaps) for gaps in ears.gaps] == [output - 1 for output in result.columns["output"].tolist()]
    spans = (result.columns["end"] - result.columns["first_token"]).tolist()
    assert [sum(gaps) for gaps in ears.gaps] == spans


@pytest.mark.parametrize("hook", ["batch", "finished", "interval"])
def test_an_observer_may_stop_a_run(dataset: Path, hook: str) -> None:
    class Stopping(Ears):
        pass

    def stop(self: Observer, told: object) -> None:
        raise Stop("enough was seen")

    setattr(Stopping, hook, stop)
    ears, after = Stopping(), Ears()
    result = Simulation(spec(dataset, log_interval=0.001), [ears, after]).run()
    assert result.stopped == "enough was seen" and not result.complete and result.error is None
    assert result.summary.error == "enough was seen" and not result.summary.complete
    assert 0 <= result.summary.finished_requests < 5
    assert after.told[-1] == "end False" and after.rows == result.columns["id"].tolist()
    finished_or_open = sorted([*result.columns["id"].tolist(), *result.unfinished["id"].tolist()])
    assert finished_or_open == sorted(set(finished_or_open)), "nobody is both"


def test_what_fails_in_mid_run_leaves_its_result(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "dying", DyingBackend)
    ears = Ears()
    simulation = Simulation(spec(dataset, backend="dying", macro_steps=1), [ears])
    with pytest.raises(SimulationError, match="batch 20: the process was killed"):
        simulation.run()
    assert simulation.result is not None and isinstance(simulation.result.error, SimulationError)
    assert 0 < simulation.result.summary.finished_requests < 5 and ears.told[-1] == "end False"
    assert ears.rows == simulation.result.columns["id"].tolist()


def test_wrong_input_is_told_before_anything_begins(dataset: Path) -> None:
    ears = Ears()
    with pytest.raises(UserError, match="unknown model"):
        Simulation(RunSpec.of(model_name="nobody/knows"), [ears]).run()
    with pytest.raises(UserError, match="npu_group: 3 groups do not divide 4 NPUs"):
        RunSpec.of(npu_num=4, npu_group=3)
    assert ears.told == []


def test_a_record_made_by_hand_is_checked(dataset: Path) -> None:
    from orchestrator.settings.engine import ParallelismSettings

    with pytest.raises(UserError, match="npu_num: 0 is not a whole number from 1"):
        Simulation(RunSpec((EngineSpec(parallelism=ParallelismSettings(npu_num=0)),))).run()


def test_several_engines_take_turns_and_are_told_apart(dataset: Path, tmp_path: Path) -> None:
    files = ResultFiles(tmp_path / "out.csv", itl=None, report=True)
    result = Simulation(spec(dataset, instances=3), [files]).run()
    by_id = dict(zip(result.columns["id"].tolist(), result.columns["engine"].tolist(), strict=True))
    assert by_id == {identity: identity % 3 for identity in range(5)}
    assert result.summary.engines == 3 and result.summary.npus == 3 and result.time.engines == 3
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["instance id"].tolist() == result.columns["engine"].tolist()
    alone = Simulation(spec(dataset)).run()
    assert result.summary.kv_blocks == 3 * alone.summary.kv_blocks
    timeline = json.loads((tmp_path / "out-trace.json").read_text())["traceEvents"]
    names = {event["args"]["name"] for event in timeline if event.get("name") == "process_name"}
    assert names == {"engine 0", "engine 1", "engine 2", "requests"}
    assert "3 engines together" in (tmp_path / "out-report.html").read_text()


def test_one_engine_of_several_kinds_each(dataset: Path) -> None:
    engines = [{"hardware": "H100"}, {"hardware": "RTX3090", "scheduling": "vllm", "instances": 2}]
    result = Simulation(spec(dataset, engines=engines)).run()
    assert result.summary.hardware == "H100, RTX3090" and result.summary.npus == 3
    assert result.summary.step_limits == {}, "they share none"
    assert sorted(set(result.columns["engine"].tolist())) == [0, 1, 2]
    written = repeating(result.spec)
    assert [one["hardware"] for one in written["engines"]] == ["H100", "RTX3090"]
    again = Simulation(RunSpec.of(**written)).run()
    assert again.summary == result.summary


def test_each_kind_of_engine_is_shown_with_its_parallelism(dataset: Path, tmp_path: Path) -> None:
    engines = [{"npu_num": 2, "instances": 2}, {"hardware": "L40S"}]
    out = io.StringIO()
    files = ResultFiles(tmp_path / "out.csv", itl=None, report=True)
    summary = Simulation(spec(dataset, engines=engines), [files, Console(out)]).run().summary
    assert (summary.tensor, summary.pipeline, summary.expert) == (None, 1, 1)
    told = [line.split(maxsplit=1)[1] for line in out.getvalue().splitlines() if line.split()[:1] == ["NPUs"]]
    assert told == list(summary.deployed) == ["4 x RTX3090 (2 x TP 2 x PP 1)", "1 x L40S (TP 1 x PP 1)"]
    page = (tmp_path / "out-report.html").read_text()
    shown = re.findall(r'<table id="deployment-\d"[^>]*>\s*<thead><tr><th scope="col">([^<]*)</th>', page)
    assert shown == ["engines 0 to 1", "engine 2", "altogether"]
    assert "2 x RTX3090 (TP 2 x PP 1)" in page and "1 x L40S (TP 1 x PP 1)" in page


def test_engines_alone_on_their_requests_are_runs_of_their_own(dataset: Path, tmp_path: Path) -> None:
    """Round robin of two is two runs of every second request."""
    result = Simulation(spec(dataset, instances=2)).run()
    for engine in range(2):
        own = tmp_path / f"{engine}.tsv"
        own.write_text("".join("\t".join(map(str, row)) + "\n" for row in ROWS[engine::2]))
        alone = Simulation(spec(own)).run()
        mine = result.columns["engine"] == engine
        for name in ("arrival", "queued", "scheduled", "first_token", "end", "output"):
            assert result.columns[name][mine].tolist() == alone.columns[name].tolist()


def test_kinds_of_engines_may_time_operators_differently_and_keep_files_apart(dataset: Path, tmp_path: Path) -> None:
    engines = [{"perf_model": "backend"}, {"npu_num": 2}]
    traces = tmp_path / "traces"
    result = Simulation(spec(dataset, engines=engines, trace_dir=str(traces))).run()
    assert {"computation", "matrix products", "exposed communication"} <= {
        n for n, t in result.time.by_class.items() if t
    }
    kept = [len(list((traces / f"engine{number}").glob("*.txt"))) for number in range(2)]
    assert sum(kept) == result.summary.iterations and min(kept) > 0
    assert (traces / "engine1" / "network.yml").is_file() and not list(traces.glob("*.txt"))


def test_engines_that_compute_prompts_and_such_that_do_not_are_no_one_run(dataset: Path) -> None:
    with pytest.raises(UserError, match=r"--gen: some engines compute prompts and some do not; give it for all"):
        Simulation(spec(dataset, engines=[{"gen": True}, {}])).run()
    assert Simulation(spec(dataset, engines=[{"gen": True}, {"npu_num": 2}], gen=True)).run().complete


def test_rows_are_told_while_a_long_interval_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When many have finished, or some time has passed: here it stands still, and then it flies."""
    many = tmp_path / "many.tsv"
    many.write_text("".join(f"10\t2\t{10_000_000 * index}\n" for index in range(400)))
    for second, least in ((0.0, 2), (1.0, 100)):
        clock = iter(range(10**9))
        monkeypatch.setattr("orchestrator.observers.finished.monotonic", lambda c=clock, s=second: s * next(c))
        ears = Ears()
        Simulation(spec(many, log_interval=1000), [ears]).run()
        assert ears.told.count("interval") == 1 and ears.rows == list(range(400))
        assert ears.told.count("finished") >= least
        assert ears.told.index("finished") < len(ears.told) - 1 - ears.told[::-1].index("batch")
