"""`python -m orchestrator.replay` from outside: what it prints, what it compares and how it fails."""

import gzip
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from foundation.commands import run_command
from orchestrator.replay.__main__ import main
from orchestrator.replay.case import LatencyModel
from orchestrator.replay.compare import first_difference

ROOT = Path(__file__).parents[2]
CASE: dict[str, Any] = {
    "name": "two",
    "max_num_seqs": 4,
    "max_num_batched_tokens": 64,
    "block_size": 16,
    "num_gpu_blocks": 20,
    "max_model_len": 128,
    "enable_prefix_caching": True,
    "async_scheduling": False,
    "latency_model": {"a_us": 1000, "b_us_per_token": 10, "c_us_per_kv_token": 0.5},
    "requests": [
        {"id": "a", "arrival": 0, "prompt_segments": [[1, 33]], "output_len": 2},
        {"id": "b", "arrival": 5000, "prompt_segments": [[1, 33]], "output_len": 1},
    ],
}
# 1,000 + 33 x 10 + 33 x 0.5 = 1,346.5; 1,000 + 10 + 34 x 0.5 = 1,027; b finds two blocks and computes one token.
STEPS = [
    [0, 1346, {"a": 33}, {"a": 0}, [], 16, 16, 1, 0, []],
    [1346, 1027, {"a": 1}, {}, [], 16, 19, 0, 0, ["a"]],
    [5000, 1026, {"b": 1}, {"b": 32}, [], 16, 19, 0, 0, ["b"]],
]
REQUESTS = [["a", 1346, 2373, 0, 0, 2, "length"], ["b", 6026, 6026, 0, 32, 1, "length"]]


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


def command(*arguments: object) -> Result:
    output, errors = StringIO(), StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        code = run_command(lambda: main([str(argument) for argument in arguments]))
    return Result(code, output.getvalue(), errors.getvalue())


@pytest.fixture
def case(tmp_path: Path) -> Path:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(CASE))
    return path


def test_it_prints_every_step_and_request(case: Path) -> None:
    result = command(case)
    document = json.loads(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")
    assert document["steps"] == STEPS
    assert document["requests"] == REQUESTS
    assert {key: document[key] for key in ("stalled", "num_steps", "end_us", "max_running", "min_free_blocks")} == {
        "stalled": False,
        "num_steps": 3,
        "end_us": 6026,
        "max_running": 1,
        "min_free_blocks": 16,
    }


def test_it_runs_as_a_module(case: Path) -> None:
    arguments = [sys.executable, "-m", "orchestrator.replay", str(case)]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == command(case).stdout


def test_asynchronous_steps_tell_when_they_were_decided(case: Path) -> None:
    case.write_text(json.dumps({**CASE, "async_scheduling": True}))
    document = json.loads(command(case).stdout)
    assert document["step_columns"][-1] == "decided_us"
    assert [step[-1] for step in document["steps"]] == [0, 0, 5000]


def test_a_check_against_its_own_output_is_equal(case: Path) -> None:
    (case.parent / "expected.json.gz").write_bytes(gzip.compress(command(case).stdout.encode()))
    result = command(case, "--check")
    assert (result.returncode, result.stdout) == (0, f"{case}: 3 steps and 2 requests are equal\n")


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "message"),
    [
        ("steps", 1, 1, 7, "step 1, dur_us: expected 7, got 1027"),
        ("steps", 2, 3, {"b": 16}, "step 2, admitted{id:cached_tokens}: expected {'b': 16}, got {'b': 32}"),
        ("requests", 0, 3, 1, "request 0, num_preemptions: expected 1, got 0"),
    ],
)
def test_the_first_difference_is_named(
    case: Path, table: str, row: int, column: int, value: object, message: str
) -> None:
    document = json.loads(command(case).stdout)
    document[table][row][column] = value
    other = case.parent / "other.json"
    other.write_text(json.dumps(document))
    result = command(case, "--check", other)
    assert (result.returncode, result.stdout) == (1, f"{case}: {message}\n")


def test_a_missing_step_is_a_difference(case: Path) -> None:
    document = json.loads(command(case).stdout)
    document["steps"].pop()
    (case.parent / "expected.json").write_text(json.dumps(document))
    result = command(case, "--check")
    assert (result.returncode, result.stdout) == (1, f"{case}: step 2: expected 2 steps, got 3\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_sise": 3}, "block_sise: unknown field; did you mean block_size"),
        ({"max_num_seqs": 100}, "max_num_batched_tokens: 64 tokens a step cannot serve max_num_seqs (100)"),
        ({"requests": 5}, "requests: 5 is not a list"),
        ({"requests": [{"id": "a", "arrival": 0}]}, "requests[0]: output_len is missing"),
        (
            {"requests": [{"id": "a", "arrival": 0, "output_len": 1}]},
            "requests[0]: prompt_token_ids or prompt_segments or prompt_len is missing",
        ),
        ({"latency_model": {"a_us": 1}}, "latency_model: b_us_per_token is missing"),
        ({"requests": [CASE["requests"][0]] * 2}, "requests: id 'a' occurs twice"),
        (
            {"requests": [{"id": "a", "arrival": 0, "output_len": 1, "prompt_segments": [[1]]}]},
            "requests[0].prompt_segments: [[1]] is not a list of [segment, tokens], whole numbers",
        ),
        ({"requests": [{**CASE["requests"][0], "arrival": -10}]}, "requests[0].arrival: "),
        ({"requests": [{**CASE["requests"][0], "prompt_len": 3}]}, "prompt_segments and prompt_len are both given"),
        ({"num_gpu_blocks": 10**9}, "num_gpu_blocks: 1000000000 is not a whole number from 0 to 16777216"),
        (
            {"max_model_len": 2**24, "requests": [{**CASE["requests"][0], "prompt_segments": [[1, 2**24 - 1]]}]},
            "the requests up to this one have more than 8388608 token ids",
        ),
        ({"requests": [{**CASE["requests"][0], "prompt_segments": [[1, 2**24]] * 9}]}, "more than any prompt has"),
        (
            {"requests": [{**CASE["requests"][0], "output_len": 2**20}]},
            "requests: the requests ask for up to 1048577 steps, but 1048576 can be kept; give shorter answers",
        ),
        ({"enable_prefix_caching": "maybe"}, "enable_prefix_caching: "),
        ({"latency_model": {**CASE["latency_model"], "a_us": float("nan")}}, "NaN"),
    ],
)
def test_a_wrong_case_is_one_line_and_exit_code_2(case: Path, change: dict[str, Any], message: str) -> None:
    case.write_text(json.dumps({**CASE, **change}))
    result = command(case)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_request_that_is_too_long_is_rejected_and_the_others_are_served(case: Path) -> None:
    long = {"id": "long", "arrival": 10, "output_len": 1, "prompt_len": 128}
    case.write_text(json.dumps({**CASE, "requests": [CASE["requests"][0], long, CASE["requests"][1]]}))
    document = json.loads(command(case).stdout)
    assert document["steps"] == STEPS
    assert document["requests"] == [REQUESTS[0], ["long", None, None, 0, 0, 0, "rejected"], REQUESTS[1]]


def test_a_client_that_goes_away_gets_no_more(case: Path) -> None:
    gone = {**CASE["requests"][0], "abort_at": 1500}
    case.write_text(json.dumps({**CASE, "requests": [gone, CASE["requests"][1]]}))
    document = json.loads(command(case).stdout)
    assert document["steps"] == [STEPS[0], [*STEPS[1][:-1], []], STEPS[2]]
    assert document["requests"] == [["a", 1346, 2373, 0, 0, 1, "aborted"], REQUESTS[1]]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 5, "steps: 5 is not a list of rows, each a list"),
        ("steps", [5], "steps: [5] is not a list of rows, each a list"),
        ("requests", None, "requests is missing; give a list"),
        ("step_columns", None, "step_columns is missing; give a list"),
        ("request_columns", [5], "request_columns[0]: 5 is not a string"),
    ],
)
def test_a_wrong_recording_is_one_line_and_exit_code_2(case: Path, name: str, value: object, message: str) -> None:
    recording = case.parent / "expected.json"
    recording.write_text(json.dumps({**json.loads(command(case).stdout), name: value}))
    result = command(case, "--check")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr in (f"error: {recording}{where}{message}\n" for where in (", line 1, ", ": "))


def test_files_that_are_not_there(case: Path) -> None:
    assert "the case does not exist" in command(case.parent / "none.json").stderr
    result = command(case, "--check")
    assert result.returncode == 2
    assert "no expected.json or expected.json.gz beside the case" in result.stderr


def test_what_vllm_would_repeat_for_ever_ends_as_stalled(case: Path) -> None:
    """Five blocks of prompt, four usable: computed in chunks and driven out, again and again."""
    change = {"num_gpu_blocks": 5, "max_num_batched_tokens": 16, "scheduler_reserve_full_isl": False}
    change["enable_prefix_caching"] = False
    request = {"id": "a", "arrival": 0, "output_len": 1, "prompt_len": 70}
    case.write_text(json.dumps({**CASE, **change, "requests": [request]}))
    document = json.loads(command(case).stdout)
    assert document["stalled"] is True
    assert document["requests"][0][-1] == "unfinished"
    assert document["total_preemptions"] > 10


def test_a_step_that_computes_nothing_takes_no_time() -> None:
    model = LatencyModel(step_ns=5_999, token_ns=1_000, kv_token_ns=250)
    assert [model.step_us(*of) for of in ((0, 0), (0, 400), (1, 0), (2, 8))] == [0, 0, 6, 9]


def test_differences_of_small_recordings() -> None:
    def recording(*steps: list[int], **more: object) -> dict[str, object]:
        columns = {"step_columns": ["step", "tokens"], "request_columns": ["id"]}
        return {**columns, "steps": list(steps), "requests": [["a"]], "end_us": 5, **more}

    same = recording([0, 4], [1, 2])
    for other, said in (
        (recording([0, 4], [1, 2]), None),
        (recording([0, 4], [1, 3]), "step 1, tokens: expected 2, got 3"),
        (recording([0, 4]), "step 1: expected 2 steps, got 1"),
        (recording([0, 4], [1, 2], requests=[["b"]]), "request 0, id: expected 'a', got 'b'"),
        (recording([0, 4], [1, 2], end_us=6), "end_us: expected 5, got 6"),
        (recording([0, 4], [1, 2], step_columns=["step"]), "step_columns: expected ['step', 'tokens'], got ['step']"),
    ):
        assert first_difference(same, other) == said
    short = recording([0], [1, 2])
    assert first_difference(short, same) == "step 0: expected 1 columns, got 2"


def test_as_many_token_ids_as_may_be_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.replay.case.MOST_TOKEN_IDS", 24)
    path = tmp_path / "case.json"
    one = {"id": "a", "arrival": 0, "prompt_token_ids": [1] * 11, "output_len": 1}
    for second, code in ((11, 0), (12, 0), (13, 0), (14, 2)):
        more = {**one, "id": "b", "prompt_token_ids": [2] * second}
        content = {
            "max_num_seqs": 4, "max_num_batched_tokens": 64, "block_size": 16, "num_gpu_blocks": 20,
            "max_model_len": 128, "latency_model": {"a_us": 1000, "b_us_per_token": 10, "c_us_per_kv_token": 0.5},
            "requests": [one, more],
        }  # fmt: skip
        path.write_text(json.dumps(content))
        monkeypatch.setattr("sys.argv", ["replay", str(path)])
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            assert run_command(main) == code, second
