"""`--profile_dir` through the main job: which device it decides, what is said of lookups, and recorded servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.small_mixture import small_mixture
from helpers.small_profile import add_skew, bundle, small_model, vidur

from foundation.errors import UserError
from orchestrator.commands.run import simulate
from orchestrator.settings.specification import from_flags
from orchestrator.simulation import Simulation, prepare

ROOT = Path(__file__).parents[2]
MEASURED = Path(os.environ.get("ORRERY_SHARED", Path(__file__).parents[3] / "shared")) / "measured"
ROWS = [(100, 8, 0), (40, 15, 1_000), (300, 6, 20_000), (7, 1, 3_000_000), (64, 16, 3_001_000)]
TABLE = "hardware,model,layer_name,input,kv_cache,latency(ns)"
LAYERS = ("embedding", "input_layernorm", "q_proj", "k_proj", "v_proj", "rope", "attn", "o_proj", "post_layernorm")
LAYERS += ("gate_proj", "up_proj", "act_fn", "down_proj", "final_layernorm", "lm_head")


def dataset(folder: Path) -> str:
    path = folder / "few.tsv"
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in ROWS))
    return str(path)


def flags(folder: Path, *more: str) -> list[str]:
    model = ["--model_name", small_model(folder), "--dataset", dataset(folder)]
    return [*model, "--scheduling", "vllm", "--max_num_seqs", "8", *more]


def profiled(folder: Path, *more: str) -> list[str]:
    return flags(folder, "--profile_dir", str(bundle(folder / "profile")), *more)


def summary(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "out-summary.json").read_text())
    return found


def test_a_whole_run_from_the_command_line(tmp_path: Path) -> None:
    """The folder decides the performance model and the device; what was looked up is said."""
    command = [sys.executable, str(ROOT / "main.py"), *profiled(tmp_path, "--output", str(tmp_path / "out.csv"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "small on 1 x RTX4090" in done.stdout
    assert "times looked up" in done.stdout and "% measured" in done.stdout
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + len(ROWS)
    found = summary(tmp_path)["lookups"]
    assert isinstance(found, dict)
    operators = found.pop("operators")
    assert set(operators) >= {"attention", "qkv_proj", "lm_head"} and "router" not in operators
    assert found == {kind: sum(counts[kind] for counts in operators.values()) for kind in found}
    assert min(found["measured"], found["interpolated"]) > 0
    settings = json.loads((tmp_path / "out-settings.json").read_text())
    assert settings["hardware"] == "RTX4090" and settings["perf_model"] == "profile"


def test_what_was_extrapolated_is_said_once_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "long.tsv"
    rows.write_text("1500\t4\t0\n")
    assert simulate([*profiled(tmp_path), "--dataset", str(rows), "--output", str(tmp_path / "out.csv")]) == 0
    said = capsys.readouterr().out
    assert said.count("outside the measured sizes, so extrapolated, were") == 1
    assert said.index("outside the measured sizes") > said.index("Latency")
    page = (tmp_path / "out-report.html").read_text()
    assert page.count("outside the measured sizes") == 1


def test_within_the_table_nothing_is_noted(tmp_path: Path) -> None:
    rows = tmp_path / "short.tsv"
    rows.write_text("64\t4\t0\n")
    result = Simulation(from_flags([*profiled(tmp_path), "--dataset", str(rows)])).run()
    assert not [note for note in result.notes if "extrapolated" in note]
    assert result.summary.lookups is not None and result.summary.lookups.extrapolated == 0


def test_the_roofline_looks_nothing_up(tmp_path: Path) -> None:
    result = Simulation(from_flags(flags(tmp_path))).run()
    assert result.summary.lookups is None and "lookups" not in result.summary.as_json()


def test_compiled_loops_look_up_what_runs(tmp_path: Path) -> None:
    """They look a step up when it comes, as engines do one step at a time; others look up more than may come."""
    rows = tmp_path / "uneven.tsv"
    rows.write_text("".join(f"{40 + place}\t{30 + 7 * place}\t{place**2 * 1_000_000}\n" for place in range(12)))
    given = [*profiled(tmp_path), "--dataset", str(rows)]
    ways = (["--compiled_engines", "always"], ["--exact_steps"], ["--compiled_engines", "never"])
    compiled, by_step, ahead = (Simulation(from_flags([*given, *way])).run() for way in ways)
    assert compiled.columns["end"].tolist() == by_step.columns["end"].tolist() == ahead.columns["end"].tolist()
    found = [result.summary.lookups for result in (compiled, by_step, ahead)]
    assert found[0] is not None and found[2] is not None
    assert found[0] == found[1] and found[0].interpolated < found[2].interpolated


def test_older_tables_tell_of_lookups_too(tmp_path: Path) -> None:
    path = tmp_path / "t" / "old.csv"
    path.parent.mkdir()
    rows = [f"RTX3090,small,{layer},{size},0,{size * 1000}" for layer in LAYERS for size in (1, 32)]
    path.write_text("\n".join([TABLE, *rows]) + "\n")
    runs = [
        Simulation(from_flags(flags(tmp_path, *given))).run()
        for given in (("--perf_table", str(path)), ("--profile_dir", str(path)), ("--profile_dir", str(path.parent)))
    ]
    for result in runs:
        assert result.columns["end"].tolist() == runs[0].columns["end"].tolist()
        lookups = result.summary.lookups
        assert lookups is not None and lookups.extrapolated > 0 and lookups.measured > 0
        (note,) = [note for note in result.notes if "extrapolated" in note]
        assert note.startswith(f"{path}: ") and "q_proj" in note
        assert result.summary.hardware == "RTX3090"


def test_the_device_is_what_was_asked_for_or_its_nodes_or_the_profiles(tmp_path: Path) -> None:
    def device(*more: str) -> str:
        return prepare(from_flags(profiled(tmp_path, *more))).deployments[0].hardware.name

    assert device() == device("--hardware", "rtx-4090") == "RTX4090"
    with pytest.raises(UserError, match="hardware: RTX4090, but A100-80G is simulated"):
        device("--hardware", "A100")
    with pytest.raises(UserError, match="hardware: RTX4090, but H100"):
        device("--node", "dgx-h100")


def test_a_device_that_no_file_describes(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "other", meta={"hardware": "RTX4095"})
    given = flags(tmp_path, "--profile_dir", str(folder))
    with pytest.raises(UserError, match="--profile_dir: unknown hardware 'RTX4095'; did you mean RTX4090"):
        prepare(from_flags(given))


def test_vidurs_tables_run_and_say_what_they_lack(tmp_path: Path) -> None:
    given = flags(tmp_path, "--profile_dir", str(vidur(tmp_path / "v")), "--hardware", "A100")
    run = prepare(from_flags(given))
    assert run.deployments[0].hardware.name == "A100-80G"
    result = Simulation(from_flags(given)).run()
    assert len([note for note in result.notes if "LM head and sampler" in note]) == 1
    assert result.summary.finished_requests == len(ROWS)


@pytest.mark.parametrize("mixed", [False, True], ids=["dense", "mixture"])
def test_written_traces_hold_and_give_the_same_times(tmp_path: Path, mixed: bool) -> None:
    folder = tmp_path / "profile"
    if mixed:
        model, rows = small_mixture(tmp_path)
        bundle(folder, experts=True, degrees=(1, 2), meta={"architecture": "qwen3_moe"})
        spread = ["--npu_num", "2", "--ep_size", "2", "--expert_routing", "random"]
    else:
        model, rows, spread = small_model(tmp_path), dataset(tmp_path), []
        bundle(folder, meta={"skew_fit": {"enabled": True}})
        add_skew(folder, 0.01, 0.005)
    plain = ["--model_name", model, "--dataset", rows, "--profile_dir", str(folder), "--scheduling", "vllm", *spread]
    plain += ["--no-report", "--quiet"]
    ways = {"plain": [], "one": ["--macro_steps", "1"], "text": ["--interface", "text", "--macro_steps", "1"]}
    ways["written"] = ["--trace_dir", str(tmp_path / "traces")]
    found = {}
    for name, way in ways.items():
        assert simulate([*plain, *way, "--output", str(tmp_path / f"{name}.csv")]) == 0
        found[name] = (tmp_path / f"{name}.csv").read_bytes()
    assert len(set(found.values())) == 1
    traces = sorted((tmp_path / "traces").rglob("*.txt"))
    assert traces
    checked = subprocess.run(
        [sys.executable, "-m", "trace_test", *map(str, traces[:12])],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def inputs(folder: Path) -> list[str]:
    files = {"cluster_config": "cluster_config.json", "engine_config": "engine.json"}
    files |= {"model_config": "model_config.json", "dataset": "workload.jsonl", "profile_dir": "profile"}
    return [text for flag, name in files.items() for text in (f"--{flag}", str(folder / "input" / name))]


@pytest.mark.skipif(not MEASURED.is_dir(), reason="shared/measured, recordings of real engines, is not there")
@pytest.mark.parametrize("folder", sorted(MEASURED.glob("*")), ids=lambda path: path.name)
def test_bundles_that_were_measured_load(folder: Path) -> None:
    run = prepare(from_flags([*inputs(folder), "--req_num", "1"]))
    assert {one.engine.names["perf_model"] for one in run.deployments} == {"profile"}
    assert {one.hardware.name for one in run.deployments} == {folder.name.partition("__")[0]}


@pytest.mark.skipif(not MEASURED.is_dir(), reason="shared/measured, recordings of real engines, is not there")
@pytest.mark.parametrize(
    ("name", "middle", "most"), [("RTX4090__Llama-3.1-8B", 0.015, 0.03), ("RTXPRO6000__Llama-3.1-8B", 0.04, 0.04)]
)
def test_recorded_servers_are_met(name: str, middle: float, most: float) -> None:
    """TTFT and end-to-end latency from when the engine saw a request, and TPOT: means and medians, and percentiles."""
    folder = MEASURED / name
    result = Simulation(from_flags(inputs(folder))).run()
    ours = {int(number): row for row, number in enumerate(result.columns["id"])}
    recorded = [json.loads(line) for line in (folder / "truth" / "requests.jsonl").read_text().splitlines()]
    rows = [ours[int(one["request_id"].split("-")[1])] for one in recorded]
    queued, first, last = (result.columns[column][rows] / 1e9 for column in ("queued", "first_token", "end"))
    times = [np.array([one[stamp] for one in recorded]) for stamp in ("queued_ts", "first_token_ts", "last_token_ts")]
    further = np.array([one["output_toks"] for one in recorded]) - 1
    errors = {}
    for what, simulated, measured in (
        ("ttft", first - queued, times[1] - times[0]),
        ("tpot", (last - first) / further, (times[2] - times[1]) / further),
        ("latency", last - queued, times[2] - times[0]),
    ):
        errors[f"{what} mean"] = float(np.mean(simulated) / np.mean(measured) - 1)
        for percent in (50, 90, 95, 99):
            found, truth = (np.percentile(values, percent) for values in (simulated, measured))
            errors[f"{what} p{percent}"] = float(found / truth - 1)
    assert len(rows) == result.summary.finished_requests
    assert max(map(abs, errors.values())) < most, errors
    central = [error for kind, error in errors.items() if kind.endswith(("mean", "p50"))]
    assert max(map(abs, central)) < middle, errors
