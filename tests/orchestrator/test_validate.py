"""`orrery validate`: a recording of what was simulated has no error, known distortions are found, noise is noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from foundation.commands import run_command
from foundation.errors import UserError
from orchestrator.commands.validate import validate
from orchestrator.validation.comparison import compare
from orchestrator.validation.errors import COUNTED_STATISTICS, METRICS
from orchestrator.validation.over_time import over_time
from orchestrator.validation.recording import Recording, TimeSeries
from tests.orchestrator.recordings import bench, read, refused, run, server_log
from tests.orchestrator.test_report import Page

MEASURED = Path(__file__).parents[3] / "shared" / "measured" / "RTX4090__Llama-3.1-8B"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("validate")


@pytest.fixture(scope="module")
def simulated(folder: Path) -> Path:
    return run(folder)


@pytest.fixture(scope="module")
def recorded(folder: Path, simulated: Path) -> Path:
    return server_log(simulated, folder / "truth" / "requests.jsonl")


def call(*words: object) -> int:
    return run_command(lambda: validate([str(word) for word in words]))


def errors(simulated: Path, recorded: Path) -> dict[tuple[str, str], float]:
    found = compare(read(simulated), read(recorded)).figures
    return {one.name: one.error for one in found if one.error is not None}


def latencies(*metrics: str) -> set[tuple[str, str]]:
    return {(metric, statistic) for metric in metrics for statistic in COUNTED_STATISTICS}


def test_a_recording_of_the_simulation_has_no_error(simulated: Path, recorded: Path, folder: Path) -> None:
    throughputs = {("requests_per_s", "mean"), ("tokens_per_s", "mean")}
    logged, from_client, itself = (
        errors(simulated, path) for path in (recorded, bench(simulated, folder / "bench.json"), simulated)
    )
    assert set(logged) == latencies("ttft", "tpot", "latency") | throughputs
    assert set(from_client) == set(itself) == latencies(*METRICS) | throughputs
    assert max(map(abs, logged.values())) < 1e-3 and max(map(abs, from_client.values())) < 1e-3
    assert set(itself.values()) == {0.0}


def test_requests_are_counted_from_queued_against_a_server_and_from_arrival_against_a_client(
    simulated: Path, recorded: Path, folder: Path
) -> None:
    one = read(simulated)
    assert bool((one.moments["queued"] > one.moments["arrival"]).any()), "the two differ in this run"
    assert compare(one, read(recorded)).origin == "queued"
    assert compare(one, read(bench(simulated, folder / "bench.json"))).origin == "arrival"
    with pytest.raises(
        UserError, match=r"--count_from: arrival, which is on no clock of a recording in requests\.jsonl"
    ):
        compare(one, read(recorded), "arrival")
    assert compare(one, one, "queued").origin == "queued"


def test_a_server_that_is_slower_by_a_tenth_is_found(simulated: Path, folder: Path) -> None:
    slower = server_log(simulated, folder / "slower" / "requests.jsonl", stretched=1.1)
    found = errors(simulated, slower)
    assert {name: round(found[name], 2) for name in latencies("ttft", "tpot", "latency")} == dict.fromkeys(
        latencies("ttft", "tpot", "latency"), round(100 * (1 / 1.1 - 1), 2)
    )


def test_the_exit_code_and_which_figure_is_to_blame(
    simulated: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slower = server_log(simulated, folder / "slow" / "requests.jsonl", stretched=1.1)
    words = ("--recorded", slower, "--simulated", simulated)
    assert call(*words) == 0 and call(*words, "--max_error", 9.2) == 0
    assert (
        "within 9.2 %: all of TTFT, TPOT, end-to-end (mean, P50, P90, P95, P99), throughput" in capsys.readouterr().out
    )
    assert call(*words, "--max_error", 9) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("beyond 9 %: ") and last.count("-9.09 %") == 15 and "ITL" not in last


def test_itl_is_shown_and_does_not_count(simulated: Path, folder: Path) -> None:
    one = read(simulated)
    assert one.gaps is not None
    gaps = [(2 * one.gaps[row] / 1e9).tolist() for row in np.argsort(one.position)]
    whole = ((one.moments["end"] - one.moments["arrival"])[np.argsort(one.position)] / 1e9).tolist()
    path = bench(simulated, folder / "chunks.json", itls=gaps, latencies=whole)
    found = compare(one, read(path))
    assert {one.error for one in found.figures if one.metric == "itl"} == {-50.0}
    assert call("--recorded", path, "--simulated", simulated, "--max_error", 0.01) == 0


def test_a_client_of_an_older_version_has_no_clock(simulated: Path, folder: Path) -> None:
    """Without `start_times` throughput is over the duration, and nothing else is missing."""
    found = errors(simulated, bench(simulated, folder / "old.json", start_times=None))
    assert found == pytest.approx(errors(simulated, bench(simulated, folder / "new.json")), abs=1e-6)


def test_requests_that_failed_are_left_out_and_said(simulated: Path, folder: Path) -> None:
    count = len(read(simulated))
    failed = bench(simulated, folder / "failed.json", errors=["timeout", *[""] * (count - 1)])
    comparison = compare(read(simulated), read(failed))
    assert len(comparison.pairs.simulated) == count - 1
    assert any("1 of 60 requests failed" in note for note in comparison.notes)
    assert any("60 requests were simulated and 59 recorded; the 59" in note for note in comparison.notes)


def test_lengths_that_differ_are_said(simulated: Path, folder: Path) -> None:
    one = read(simulated)
    lengths = one.output_tokens[np.argsort(one.position)].tolist()
    lengths[0] += 4
    comparison = compare(one, read(bench(simulated, folder / "longer.json", output_lens=lengths)))
    assert "1 of 60 outputs differ in length, by 4 tokens at most" in comparison.notes
    assert any("some chunks brought several tokens" in note for note in comparison.notes)


def test_ids_that_say_nothing_are_matched_all_the_same(simulated: Path, folder: Path) -> None:
    opaque = server_log(simulated, folder / "opaque" / "requests.jsonl", opaque=True)
    assert max(map(abs, errors(simulated, opaque).values())) < 1e-3


def test_requests_in_another_order_are_matched_by_their_lengths(simulated: Path, folder: Path) -> None:
    one = read(simulated)
    moved = (one.position + 17) % len(one)
    comparison = compare(one, _at(one, moved))
    assert len(comparison.pairs.simulated) == len(one)
    assert {figure.error for figure in comparison.figures} == {0.0}


def test_another_workload_is_refused(simulated: Path, folder: Path) -> None:
    other = server_log(run(_made(folder / "other"), req_num=30), folder / "other" / "truth" / "requests.jsonl")
    with pytest.raises(UserError, match=r"its 30 requests are not the 60 of .*most differ in length"):
        compare(read(simulated), read(other))


def test_kv_blocks_that_differ_are_said(folder: Path, simulated: Path, recorded: Path) -> None:
    fewer = run(folder, "fewer", "--num_gpu_blocks_override", "801")
    [said] = [note for note in compare(read(fewer), read(recorded)).notes if "KV blocks" in note]
    assert said.startswith("800 KV blocks were simulated, the recording's server had ")


def test_the_state_over_time(simulated: Path, recorded: Path, folder: Path) -> None:
    same = over_time(read(simulated), read(recorded))
    assert same is not None and set(same.recorded) == {
        "prompt_per_s",
        "generation_per_s",
        "running",
        "waiting",
        "kv_used",
    }
    assert max(same.mean_difference(name) for name in same.recorded) < 1e-2
    half = over_time(read(simulated), read(run(folder, "half", "--log_interval", "0.25")))
    assert half is not None
    states = [side["running"][1::2].tolist() for side in (half.simulated, half.recorded)]
    assert states[0] == states[1] and max(states[0]) > 5, "at the ends that both have"
    tokens = [float(side["generation_per_s"].sum() * 0.25) for side in (half.simulated, half.recorded)]
    assert tokens[0] == pytest.approx(tokens[1], rel=1e-6), "no token is lost on another grid"


def test_idle_time_has_no_rows_and_nothing_runs_in_it() -> None:
    sparse = TimeSeries(np.array([10, 20, 100]), 10, {"running": np.array([3.0, 4.0, 5.0]), "prompt_per_s": np.ones(3)})
    full = TimeSeries(np.arange(10, 111, 10), 10, {"running": np.zeros(11), "prompt_per_s": np.zeros(11)})
    found = over_time(_with_series(sparse), _with_series(full))
    assert found is not None
    assert found.simulated["running"].tolist() == [3, 4, 4, 0, 0, 0, 0, 0, 0, 5, 5]
    assert found.simulated["prompt_per_s"].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]


def test_noise_stands_beside_the_errors(simulated: Path, recorded: Path, folder: Path) -> None:
    words = ("--recorded", recorded, "--simulated", simulated, "--jitter", 3, "--json", folder / "noise.json")
    assert call(*words) == 0
    found = json.loads((folder / "noise.json").read_text())
    assert found["jitter"] == {"runs": 3, "arrivals_ms": 3.0, "steps_percent": 0.5, "seed": 0}
    noise = {(one["metric"], one["statistic"]): one["noise"] for one in found["errors"]}
    spread = [one["standard_deviation_percent"] for one in noise.values()]
    assert len(spread) == 17 and all(0 < value < 20 for value in spread)
    assert all(one["explains_the_error"] for one in noise.values()), "there is no error"
    assert all(one["least_error_percent"] < one["greatest_error_percent"] for one in noise.values())
    assert call(*words, "--jitter_arrivals_ms", 0, "--jitter_steps", 0) == 0
    still = json.loads((folder / "noise.json").read_text())
    assert {one["noise"]["standard_deviation_percent"] for one in still["errors"]} == {0.0}


def test_the_same_command_gives_the_same_bytes(simulated: Path, recorded: Path, folder: Path) -> None:
    words = ("--recorded", recorded, "--simulated", simulated, "--jitter", 2)
    for name in ("a", "b"):
        assert call(*words, "--json", folder / f"{name}.json", "--report", folder / f"{name}.html") == 0
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()
    assert (folder / "a.html").read_bytes() == (folder / "b.html").read_bytes()


def test_the_page_is_whole_and_its_figures_are_those_of_the_json(simulated: Path, folder: Path) -> None:
    path = bench(simulated, folder / "page.json")
    words = ("--recorded", path, "--simulated", simulated, "--report", folder / "p.html", "--json", folder / "p.json")
    assert call(*words) == 0
    shown, found = Page((folder / "p.html").read_text()), json.loads((folder / "p.json").read_text())
    assert shown.sections == ["errors", "distributions", "over-time", "terms"] and shown.links == []
    rows = [(row[1], row[2], row[4]) for row in shown.tables["error-table"][1:]]
    said = [
        (f"{one['simulated']:.3f}", f"{one['measured']:.3f}", f"{one['error_percent']:+.2f}") for one in found["errors"]
    ]
    assert rows == said and len(rows) == 22
    assert len(shown.charts) == 4, "a client's recording has no time series"


def test_the_page_has_both_sides_over_time(simulated: Path, recorded: Path, folder: Path) -> None:
    assert call("--recorded", recorded, "--simulated", simulated, "--report", folder / "t.html") == 0
    shown = Page((folder / "t.html").read_text())
    assert "Running requests" in shown.charts and "Waiting requests" in shown.charts and len(shown.charts) == 8


def test_what_a_recording_lacks_is_said_with_its_place(simulated: Path, recorded: Path, folder: Path) -> None:
    lines = recorded.read_text().splitlines()
    path = _made(folder / "wrong") / "requests.jsonl"
    first = json.loads(lines[0])
    path.write_text("\n".join([*lines[:2], json.dumps({**first, "last_token_ts": 1.0, "output_toks": "x"})]))
    said = refused(path)
    assert said.startswith(f'{path}: line 3, output_toks: "x" is not a whole number from 1 to')
    assert "line 3, last_token_ts: 1.0 is before first_token_ts" in said
    plain = bench(simulated, folder / "plain.json", ttfts=None, itls=None)
    assert refused(plain) == (
        f"{plain}: per-request data is missing: ttfts, itls; run vllm bench serve with --save-result --save-detailed"
    )
    shorter = bench(simulated, folder / "shorter.json", ttfts=[0.1])
    assert "ttfts: 1 entries, input_lens has 60; give one a request" in refused(shorter)


@pytest.mark.skipif(not MEASURED.is_dir(), reason="the recordings are not beside the repository")
def test_a_real_recording_is_read() -> None:
    one = read(MEASURED / "truth" / "requests.jsonl")
    assert len(one) == 300 and one.facts["KV blocks"] == "2587" and one.facts["vLLM"] == "0.19.0"
    assert sorted(one.position.tolist()) == list(range(300))
    found = one.latencies("queued", np.arange(300))
    # What stands beside it in llmservingsim_error.txt, of vLLM.
    means = [round(float(found[name].mean()) / 1e6, 1) for name in ("ttft", "tpot", "latency")]
    assert means == [65456.6, 32.4, 86578.3]
    assert one.series is not None and float(one.series.columns["running"].max()) > 40


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _at(one: Recording, position: np.ndarray) -> Recording:
    return Recording(one.path, one.kind, position, one.prompt_tokens, one.output_tokens, one.moments, one.origins)


def _with_series(series: TimeSeries) -> Recording:
    none = np.zeros(0, dtype=np.int64)
    return Recording(Path("x"), "none", none, none, none, {}, ("arrival",), series=series)


def test_what_a_run_lacks_is_noted(folder: Path, recorded: Path) -> None:
    bare = run(folder, "bare", "--itl", "none")
    summary = folder / "bare-summary.json"
    summary.write_text(summary.read_text().replace('"complete": true', '"complete": false'))
    notes = compare(read(bare), read(recorded)).notes
    assert "the simulation's CSV has no ITL lists (--itl list writes them)" in notes
    assert "the simulated run ended early: requests are missing" in notes
