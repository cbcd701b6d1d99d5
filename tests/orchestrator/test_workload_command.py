"""`orrery workload`: what is written is what a run would be served, and is read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from generated import made

from orchestrator.commands.workload import run
from orchestrator.describing.sharing import prefix_sharing
from orchestrator.request_source import read_workload_of
from orchestrator.request_table import RequestTable
from orchestrator.requests.formats import read_requests
from orchestrator.settings.record import repeating
from orchestrator.settings.specification import RunSpec, from_flags
from orchestrator.simulation import Simulation

MIXTURE = """\
model_name: gpt2
req_num: 120
workload:
  request_rate: 30
  output_tokens: 4
  mixture:
    - {share: 3, input_tokens: 40}
    - {share: 1, burstiness: 0.3, input_mean: 60, input_cv: 1, input_max: 500, priority: 2}
    - {share: 1, sessions: multi-turn, session_turns: 2, prefix_len: 32, input_tokens: 9, output_tokens: 6}
"""


def rows(table: RequestTable) -> list[tuple[object, ...]]:
    pauses = [0] * len(table) if table.sessions is None else table.sessions.pause_ns.tolist()
    return [
        (one.arrival_ns, one.prompt_tokens, one.output_tokens, one.session, one.priority, pause,
         list(one.prompt_token_ids or ()), list(one.output_token_ids or ()))
        for one, pause in zip(table, pauses, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--request_rate inf --random_input_len 9",
        "--sessions multi-turn --prefix_len 10 --prefix_share 0.5",
        "--tool_calls 2 --priority 3",
    ],
)
def test_what_is_written_is_what_is_generated(flags: str, tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    assert run([str(path), *flags.split(), "--req_num", "90", "--seed", "3"]) == 0
    assert rows(read_requests(path).requests) == rows(made(flags, 90))


def test_a_million_rows_go_out_in_blocks_and_small_files_are_the_same(tmp_path: Path) -> None:
    assert run([str(tmp_path / "many.tsv"), "--req_num", "20000"]) == 0
    assert run([str(tmp_path / "few.tsv"), "--req_num", "10"]) == 0
    many, few = ((tmp_path / name).read_text().splitlines() for name in ("many.tsv", "few.tsv"))
    assert len(many) == 20_001 and many[:11] == few


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    path = tmp_path / "mixture.yaml"
    path.write_text(MIXTURE)
    return path


def test_a_mixture_of_a_run_file_is_written_and_simulated(mixture: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    assert run([str(path), "--settings", str(mixture)]) == 0
    spec = from_flags(["--settings", str(mixture)])
    served = read_workload_of(spec.workload).requests
    # Sessions stand in a file where they begin, with all their turns; single requests have no session's number.
    assert sorted(map(str, rows(read_requests(path).requests))) == sorted(map(str, rows(served)))
    assert len(served) == 120 and served.priority is not None and set(served.priority.tolist()) == {0, 2}
    assert Simulation(spec).run().summary.finished_requests == 120
    again = RunSpec.of(**repeating(spec))
    assert again == spec, "a mixture is part of what repeats a run"


def test_flags_win_over_a_run_file_and_hold_for_all_clients(mixture: Path) -> None:
    spec = from_flags(["--settings", str(mixture), "--output_tokens", "5"])
    assert set(read_workload_of(spec.workload).requests.output_tokens.tolist()) == {5}


def test_a_section_and_flat_settings_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("request_rate: 3\nburstiness: 0.5\nreq_num: 7\n")
    (tmp_path / "b.yaml").write_text("req_num: 7\nworkload:\n  request_rate: 3\n  burstiness: 0.5\n")
    one, other = (from_flags(["--settings", str(tmp_path / name)]) for name in ("a.yaml", "b.yaml"))
    assert one == other == RunSpec.of(request_rate=3, burstiness=0.5, req_num=7)


def test_vllms_flags_work_without_a_file() -> None:
    flags = "--request-rate inf --num-prompts 30 --max-concurrency 4 --random-input-len 50 --random-output-len 8 " \
            "--random-range-ratio 0.2 --random-prefix-len 16 --model_name gpt2"  # fmt: skip
    result = Simulation(from_flags(flags.split())).run()
    assert result.summary.finished_requests == 30
    prompts, outputs = result.columns["input"], result.columns["output"]
    assert prompts.min() >= 16 + 40 and prompts.max() <= 16 + 60
    assert outputs.min() >= 6 and outputs.max() <= 10, "floor(8 * 0.8) to ceil(8 * 1.2)"


def test_lengths_of_vllms_benchmark_are_its_defaults_where_one_is_given() -> None:
    table = read_workload_of(RunSpec.of(random_input_len=9, req_num=5).workload).requests
    assert set(table.prompt_tokens.tolist()) == {9} and set(table.output_tokens.tolist()) == {128}
    table = read_workload_of(RunSpec.of(random_output_len=9, req_num=5).workload).requests
    assert set(table.prompt_tokens.tolist()) == {1024} and set(table.output_tokens.tolist()) == {9}


def test_a_dataset_keeps_its_times_unless_others_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "w.tsv"
    path.write_text("5\t2\t900\n6\t2\t100\n7\t2\t500\n")

    def arrivals(**given: object) -> list[int]:
        return read_workload_of(RunSpec.of(dataset=str(path), **given).workload).requests.arrival_ns.tolist()

    assert arrivals() == [900, 100, 500]
    assert arrivals(arrivals="static", request_rate=1) == [2 * 10**9, 0, 10**9]
    assert arrivals(request_rate="inf") == [0, 0, 0]
    assert arrivals(rate_scale=2) == [400, 0, 200]
    assert arrivals(arrivals="trace", request_rate=1e6) == [2000, 0, 1000]
    poisson = arrivals(request_rate=5)
    assert poisson[1] == 0 < poisson[2] < poisson[0]


def test_a_dataset_is_rewritten_with_its_sessions(tmp_path: Path) -> None:
    path, out = tmp_path / "w.jsonl", tmp_path / "out.jsonl"
    turns = [{"input_toks": 4, "output_toks": 2, "tool_duration_ns": 7}, {"input_toks": 9, "output_toks": 3}]
    single = {"arrival_time_ns": 20, "input_toks": 3, "output_toks": 1, "priority": -4, "input_tok_ids": [8, 8, 9]}
    lines = [{"session_id": "1", "arrival_time_ns": 50, "sub_requests": turns}, single]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run([str(out), "--dataset", str(path)]) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == lines
    assert run([str(out), "--dataset", str(path), "--arrivals", "static", "--request_rate", "1000"]) == 0
    assert [json.loads(line)["arrival_time_ns"] for line in out.read_text().splitlines()] == [10**6, 0]


def test_adapters_go_into_the_file(tmp_path: Path) -> None:
    assert run([str(tmp_path / "w.tsv"), "--req_num", "4", "--lora_adapters", "3"]) == 0
    found = read_requests(tmp_path / "w.tsv").requests.adapter
    assert found is not None and found.tolist() == [1, 2, 3, 1]


def test_block_hashes_become_token_ids_that_are_alike_where_they_are(tmp_path: Path) -> None:
    """A Mooncake trace is written as LLMServingSim's lines, and as much is shared as before."""
    trace, out = tmp_path / "mooncake.jsonl", tmp_path / "out.jsonl"
    hashes = ([2**40, 5, 6], [2**40, 5, 7], [2**40, 8, 6])
    rows = [{"timestamp": 9 * at, "input_length": 1500, "output_length": 3, "hash_ids": one}
            for at, one in enumerate(hashes)]  # fmt: skip
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run([str(out), "--dataset", str(trace)]) == 0
    shared = [prefix_sharing(read_requests(path).requests) for path in (trace, out)]
    assert shared[0] == shared[1] and shared[0] is not None and shared[0].found_tokens[256] == 1024 + 512
