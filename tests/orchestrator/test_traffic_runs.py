"""Whole runs whose traffic depends on what became of earlier requests: what results, files and people are told."""

from __future__ import annotations

import json
import re
import shlex
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UserError
from orchestrator import RunResult, RunSpec, Simulation
from orchestrator.observers.console import Console
from orchestrator.observers.files import ResultFiles
from orchestrator.settings.specification import from_flags

GPT2 = "openai-community/gpt2"


def simulate(*observers: Any, **values: Any) -> RunResult:
    return Simulation(RunSpec.of(model_name=GPT2, **values), observers).run()


def turns(count: int, *, ids: bool, pause: int = 1_000_000) -> dict[str, Any]:
    """Return a session whose every prompt is all that was said before, and 32 tokens more."""
    made, said = [], 0
    for _ in range(count):
        prompt = said + 32
        record: dict[str, Any] = {"input_toks": prompt, "output_toks": 16, "tool_duration_ns": pause}
        if ids:
            record["input_tok_ids"] = list(range(prompt))
            record["output_tok_ids"] = list(range(prompt, prompt + 16))
        made.append(record)
        said = prompt + 16
    return {"session_id": "talk", "arrival_time_ns": 0, "sub_requests": made}


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps(turns(5, ids=True)) + "\n")
    return path


def test_a_session_finds_its_history_in_the_cache(talk: Path, tmp_path: Path) -> None:
    """A turn computes the 32 tokens that are new, and a block of 16: the last token of an answer is never written."""
    found = simulate(dataset=str(talk), scheduling="vllm")
    prompts = [32 + 48 * turn for turn in range(5)]
    assert sorted(found.columns["input"].tolist()) == prompts
    assert found.summary.prompt_tokens == 32 + 4 * (32 + 16)
    unknown = tmp_path / "unknown.jsonl"
    unknown.write_text(json.dumps(turns(5, ids=False)) + "\n")
    lost = simulate(dataset=str(unknown), scheduling="vllm")
    assert lost.summary.prompt_tokens == sum(prompts)
    told = [note for note in lost.notes if "token ids" in note]
    assert told and not [note for note in found.notes if "token ids" in note]


def test_arrivals_of_turns_are_when_they_are_sent(talk: Path) -> None:
    columns = simulate(dataset=str(talk)).columns
    assert columns["id"].tolist() == [0, 1, 2, 3, 4]
    assert columns["arrival"].tolist() == [0, *(columns["end"][:-1] + 1_000_000).tolist()]


def test_turns_that_never_come_are_counted(talk: Path) -> None:
    result = simulate(dataset=str(talk), scheduling="vllm", max_model_len=100)
    assert result.summary.traffic is not None and result.summary.traffic.unreleased == 2
    assert [one.id for one in result.turned_away] == [2] and len(result.columns["id"]) == 2


LOOPS: list[dict[str, Any]] = [
    {"clients": 3, "think_time": 5_000_000},
    {"max_concurrency": 2, "instances": 2},
    {"rag_service": 40_000_000, "rag_servers": 2, "rag_tokens": 64, "ttft_timeout": 0.5},
    {"max_queued_requests": 2, "max_batch": 2, "client_timeout": 0.7},
    {"rate_limit": 3.0, "rate_burst": 2},
    {"max_backlog_tokens": 900},
    {"instances": 3, "autoscaler": "queue", "target_requests": 1, "scale_interval": 0.1, "startup_delay": 0.2},
    {"instances": 2, "autoscaler": "utilization", "target_kv_use": 0.001, "scale_interval": 0.1, "startup_delay": 0.0},
]


@pytest.mark.parametrize("flags", LOOPS, ids=lambda flags: next(iter(flags)))
def test_files_are_the_same_with_stretches_and_without(flags: dict[str, Any], tmp_path: Path) -> None:
    def files(name: str, **more: Any) -> dict[str, str]:
        output = tmp_path / name / "run.csv"
        output.parent.mkdir()
        written = ResultFiles(output, itl="list", report=True)
        simulate(written, req_num=16, output=str(output), **flags, **more)
        compared = ("run.csv", "run-throughput.tsv", "run-summary.json", "run-rejected.tsv")
        return {path.name: path.read_text() for path in written.written if path.name in compared}

    ahead, single = files("ahead"), files("single", macro_steps=1)
    assert ahead == single and len(ahead) >= 3
    assert ahead == files("again")


def test_clients_have_one_request_each_under_way() -> None:
    result = simulate(req_num=20, clients=3, think_time=7_000_000)
    arrivals, ends = sorted(result.columns["arrival"].tolist()), sorted(result.columns["end"].tolist())
    assert arrivals[:3] == [0, 0, 0] and arrivals[3:] == [end + 7_000_000 for end in ends[:17]]


def test_a_closed_loop_is_never_overloaded_and_sessions_may_be(tmp_path: Path) -> None:
    path = tmp_path / "flood.jsonl"
    one = {"input_toks": 200, "output_toks": 60, "tool_duration_ns": 0}
    lines = [{"arrival_time_ns": 1000 * n, "sub_requests": [one, one]} for n in range(30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flood = simulate(dataset=str(path), max_batch=1)
    (said,) = [note for note in flood.notes if note.startswith("overload")]
    assert "29 of 30 had not begun" in said or "30 of 30 had not begun" in said
    calm = simulate(dataset=str(path), max_batch=1, max_concurrency=40)
    assert not [note for note in calm.notes if note.startswith("overload")]


def test_the_summary_tells_of_retrieval_and_of_instances() -> None:
    stream = StringIO()
    result = simulate(
        Console(stream), req_num=40, instances=3, rag_latency=2_000_000, autoscaler="queue", target_requests=1,
        scale_interval=0.2, startup_delay=0.3,
    )  # fmt: skip
    traffic = result.summary.traffic
    assert traffic is not None and traffic.retrieval_ms is not None and traffic.scaling is not None
    assert traffic.retrieval_ms["mean"] == traffic.retrieval_ms["p99"] == 2.0
    assert result.summary.ttft_ms is not None and result.summary.ttft_ms["p50"] > 2
    assert traffic.scaling.npu_seconds == pytest.approx(sum(traffic.scaling.started_s))
    assert traffic.scaling.started_s[0] == result.summary.makespan_s
    spent = result.time
    assert spent.asleep_ns is not None and spent.asleep_ns > 0
    assert spent.busy_ns + spent.waiting_ns + spent.idle_ns + spent.asleep_ns == 3 * spent.makespan_ns
    assert result.summary.simulated_time_s["asleep"] == pytest.approx(
        3 * result.summary.makespan_s - traffic.scaling.npu_seconds
    )
    lines = stream.getvalue().splitlines()
    assert "traffic: retrieval takes 2 ms" in lines
    assert any(line.split() == ["retrieval", "2.000", "ms", "(P99", "2.000", "ms)"] for line in lines)
    assert any(line.split()[:1] == ["instances"] and "NPU-seconds" in line for line in lines)
    assert result.summary.as_json()["traffic"]["scaling"]["events"][0]["state"] == "starting"


def test_a_plain_run_says_nothing_of_traffic() -> None:
    result = simulate(req_num=3)
    assert result.summary.traffic is None and "traffic" not in result.summary.as_json()
    assert result.time.asleep_ns is None and "asleep" not in result.summary.simulated_time_s


def test_retrieval_is_no_time_in_which_engines_wait() -> None:
    """A request is at the engine when it has been retrieved: until then the engine is idle."""
    result = simulate(req_num=1, rag_latency=50_000_000)
    assert result.time.waiting_ns == 0 and result.time.idle_ns == 50_000_000


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "traffic.md").read_text()
    (talk,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / "talk.jsonl").write_text(talk)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^python main.py (.*)$", page, re.MULTILINE)
    assert len(commands) == 6
    results = [Simulation(from_flags(shlex.split(command))).run() for command in commands]
    assert all(result.complete for result in results)
    assert results[0].columns["arrival"].tolist()[-1] == results[0].columns["end"].tolist()[1] + 500_000_000
    retrieved, limited, scaled = results[3:]
    assert retrieved.summary.traffic is not None and retrieved.summary.traffic.retrieval_ms is not None
    assert retrieved.summary.traffic.retrieval_ms["mean"] > 60
    assert limited.summary.rejected_requests > 0
    assert scaled.summary.traffic is not None and scaled.summary.traffic.scaling is not None
    assert scaled.summary.traffic.scaling.events


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"clients": 2, "max_concurrency": 3}, "max_concurrency: conflicts with --clients"),
        ({"think_time": 2}, "think_time: there are no clients"),
        ({"rag_latency": 2, "rag_service": 3}, "rag_service: conflicts with --rag_latency"),
        ({"rag_servers": 2}, "rag_servers: what a server takes is not said"),
        ({"min_instances": 2}, "min_instances: not read by this run"),
        ({"autoscaler": "queue", "min_instances": 2}, "min_instances: 2, but the run has 1"),
        ({"autoscaler": "queue", "max_instances": 3, "instances": 2}, "max_instances: 3, but the run has 2"),
        (
            {"autoscaler": "queue", "max_instances": 2, "min_instances": 3, "instances": 3},
            "max_instances: 2 instances at most, 3 at least",
        ),
        (
            {"max_queued_requests": 3, "rate_limit": 2.0},
            "rate_limit: not read by --admission queue; --admission rate reads it",
        ),
        ({"client_timeout": 0.0}, "client_timeout: .* is not a number above 0"),
        ({"clients": 1, "think_time": 10**15, "req_num": 2000}, "--think_time: 2000 requests of a client would be"),
    ],
)
def test_what_does_not_fit_together(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        simulate(**flags)
