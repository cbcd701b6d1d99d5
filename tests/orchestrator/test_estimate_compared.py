"""The formulas beside the full simulation, which differ by terms that are stated here, and the commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.small_profile import MODEL, bundle

from foundation.commands import run_command
from foundation.errors import UserError
from orchestrator.cli import dispatch
from orchestrator.estimating.comparison import Comparison, compare, shown_tokens
from orchestrator.estimating.entries import known
from orchestrator.estimating.estimate import Asked, estimator
from orchestrator.estimating.prompts import PROMPT_TOKENS, prompt_speed, simulated
from orchestrator.estimating.registries import Registries
from orchestrator.estimating.simulated import simulate_batch
from trace_gen.perf_models import perf_models
from trace_gen.perf_models.roofline import RooflineSettings

BANDWIDTH = 2000
"""GB/s: 2000 bytes a ns."""
CLASSES = (
    "gemm",
    "attention_prefill",
    "attention_decode",
    "attention_decode_ungrouped",
    "elementwise",
    "embedding",
    "sampler",
)


@pytest.fixture
def ideal(tmp_path: Path) -> str:
    """A device without overheads: all of its bandwidth is reached, it computes in no time, and it has no cache."""
    nothing = {"compute": 1, "memory": 1, "overhead_ns": 1e-9, "tile_ns": 1e-9}
    device = {
        "name": "ideal",
        "peak_tflops": {"fp16": 1e12},
        "memory_bandwidth_gb_s": BANDWIDTH,
        "memory_gb": 200,
        "cache_mib": 1e-9,
        "cache_speedup": 1,
        "compute_units": 1,
        "link_gb_s": 1,
        "link_latency_ns": 1,
        "efficiency": dict.fromkeys(CLASSES, nothing),
    }
    path = tmp_path / "ideal.json"
    path.write_text(json.dumps(device))
    return str(path)


def compared(registries: Registries, model: str, gpu: str, asked: Asked, efficiency: float = 1.0) -> Comparison:
    one = estimator(registries, model, gpu, efficiency=efficiency)
    return compare(one.estimate(asked), one.known.run(RooflineSettings()))


def opt_missing(batch: int) -> tuple[int, int]:
    """Return the bytes of a step of OPT-6.7B that the formula lacks, and how many operators round their time.

    Of a token, elements of two bytes: a norm reads the residual stream and the input that joins it, and writes both; a
    projection reads its inputs and writes its outputs; attention reads the queries, writes keys, values and outputs.
    """
    hidden, wide, vocabulary, layers = 4096, 16384, 50272, 32
    norm, qkv, attention, out = 4 * hidden, hidden + 3 * hidden, 4 * hidden, 2 * hidden
    mlp = (hidden + wide) + 2 * wide + (wide + hidden)
    layer = 2 * norm + qkv + attention + out + mlp
    ends = 3 * hidden + norm + (hidden + vocabulary) + vocabulary
    activations = 2 * (layers * layer + ends) + 2 * 4  # token ids, in and out, have four bytes
    positions = 2 * 2050 * hidden  # the formula reads the table of positions; the model a row of it, counted above
    return batch * activations - positions, layers * 8 + 4


def llama_missing(batch: int) -> tuple[int, int]:
    """Return the same of Llama-3.1-8B: an embedding that is not the LM head's, rotary positions, a gate, 8 KV heads."""
    hidden, wide, kv, vocabulary, layers = 4096, 14336, 1024, 128256, 32
    norm, qkv, out = 4 * hidden, hidden + hidden + 2 * kv, 2 * hidden
    rotary, attention = 2 * (hidden + kv), hidden + 2 * kv + hidden
    mlp = (hidden + 2 * wide) + 3 * wide + (wide + hidden)
    layer = 2 * norm + qkv + rotary + attention + out + mlp
    ends = 2 * hidden + norm + (hidden + vocabulary) + vocabulary
    embedding = 2 * vocabulary * hidden
    return batch * (2 * (layers * layer + ends) + 2 * 4) - embedding, layers * 9 + 4


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(
    ("model", "missing", "of_all"),
    [("facebook/opt-6.7b", opt_missing, 0.011), ("meta-llama/Llama-3.1-8B-Instruct", llama_missing, 0.07)],
)
def test_without_overheads_the_token_phases_differ_by_the_missing_terms_alone(
    tmp_path: Path, ideal: str, model: str, missing, of_all: float, batch: int
) -> None:
    """Tables of which a row is read, activations, and the rounding of each operator to a whole nanosecond."""
    found = compared(Registries(tmp_path), model, ideal, Asked(1024, 128, batch))
    further, operators = missing(batch)
    formula, full = np.array(found.estimate.latencys[1:]) * 1e9, found.simulated.latencies_ns[1:]
    assert np.abs(full - formula - further / BANDWIDTH).max() <= 0.5 * operators + 1
    assert abs(further) > 2 * BANDWIDTH * operators, "the terms are more than what is rounded"
    assert np.abs(found.curves["token_phase"].error).max() < of_all
    assert found.simulated.late == 0 and sum(found.simulated.by_class.values()) == sum(found.simulated.latencies_ns)


def test_the_original_experiment_on_an_ideal_device(tmp_path: Path, ideal: str) -> None:
    """OPT-6.7B, 1024 prompt tokens, 1 to 512 more, one sequence: errors below 5 % at every length (here 0.2 %)."""
    found = compared(Registries(tmp_path), "facebook/opt-6.7b", ideal, Asked(1024, 512, 1))
    curves = found.curves
    assert all(len(curve.error) == 512 for curve in curves.values())
    assert np.abs(curves["token_phase"].error).max() < 0.002 and np.abs(curves["token"].error).max() < 0.002
    assert np.abs(curves["total"].error[15:]).max() < 0.05, "the prompt phase is a line through what is none"


def test_the_original_experiment_on_an_a100(tmp_path: Path) -> None:
    """The same on the A100-80G with its fitted efficiencies: over a third too little, for no kernel reaches the
    datasheet's bandwidth, until that is said: with 0.62 of it all errors are below 5 % again (here 0.9 %). No
    measurement: none is at hand."""
    registries = Registries(tmp_path)
    plain = compared(registries, "facebook/opt-6.7b", "A100-80G", Asked(1024, 512, 1)).curves["token_phase"].error
    assert plain.min() > -0.40 and plain.max() < -0.36
    found = compared(registries, "facebook/opt-6.7b", "A100-80G", Asked(1024, 512, 1), efficiency=0.62)
    assert all(np.abs(curve.error).max() < 0.015 for curve in found.curves.values())
    equal = compared(registries, "facebook/opt-6.7b", "A100-80G", Asked(1024, 512, 1), found.equal_efficiency or 0)
    assert abs(equal.curves["token_phase"].error[-1]) < 1e-12 and 0.615 < equal.estimate.efficiency < 0.625


def test_the_original_experiment_by_the_datasheets_roofline(tmp_path: Path) -> None:
    """The backend's own roofline, without efficiencies: token phases within 0.1 % at every length."""
    settings = perf_models.get("backend")()
    one = estimator(Registries(tmp_path), "facebook/opt-6.7b", "A100-80G", perf_model=settings)
    found = compare(one.estimate(Asked(1024, 512, 1)), one.known.run(settings))
    assert found.estimate.source == "performance model backend"
    assert np.abs(found.curves["token_phase"].error).max() < 0.001


def test_every_shorter_response_is_the_beginning_of_a_longer_one(tmp_path: Path) -> None:
    """Which is why one simulation has the phases of all response lengths."""
    spec = known(Registries(tmp_path), "gpt2", "A100-80G").run(RooflineSettings())
    long, short = (simulate_batch(spec, 3, 100, response).latencies_ns for response in (40, 17))
    assert len(long) == 41 and long[:18].tolist() == short.tolist()


def test_prompt_phases_of_the_full_simulation_hardly_know_the_batch(tmp_path: Path) -> None:
    """1024 tokens as 1, 2, 4, 8, 16 prompts of OPT-6.7B: attention's share falls with the length, all else is equal."""
    spec = known(Registries(tmp_path), "facebook/opt-6.7b", "A100-80G").run(RooflineSettings())
    spent = [int(simulate_batch(spec, batch, 1024 // batch, 0).latencies_ns[0]) for batch in (1, 2, 4, 8, 16)]
    assert spent == sorted(spent, reverse=True) and spent[0] / spent[-1] < 1.015


def test_prompt_phases_of_the_full_simulation_are_a_line_but_for_short_ones(tmp_path: Path) -> None:
    """OPT-30B on the A100-80G up to 2048 tokens: within 3.5 % from 512 tokens on, far slower than the line below."""
    spec = known(Registries(tmp_path), "facebook/opt-30b", "A100-80G").run(RooflineSettings())
    entry, line = prompt_speed(simulated(spec), "the roofline")
    errors = [count / line.ptps / spent - 1 for count, spent in zip(entry.tokens, entry.latencies, strict=True)]
    assert entry.tokens == PROMPT_TOKENS and max(abs(error) for error in errors[2:]) < 0.035
    assert errors[0] < -0.3 and line.intercept is not None and line.intercept > 0.005


def test_requests_that_wait_are_told(tmp_path: Path) -> None:
    """16 sequences of OPT-30B do not fit into 80 GB beside its weights; the formula has no memory that ends."""
    found = compared(Registries(tmp_path), "facebook/opt-30b", "A100-80G", Asked(1024, 4, 16))
    assert found.simulated.late > 0
    assert any(
        f"{found.simulated.late} of 16 requests were taken up later than the first" in one for one in found.notes
    )
    with pytest.raises(UserError, match=r"^the full simulation: --npu_mem: facebook/opt-66b needs 131.439 GB"):
        compared(Registries(tmp_path), "facebook/opt-66b", "A100-80G", Asked(1024, 4, 1))


def test_tables_show_powers_of_two_and_the_last() -> None:
    assert shown_tokens(12) == [1, 2, 4, 8, 12] and shown_tokens(1) == [1] and shown_tokens(0) == []


# --- the commands


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = run_command(lambda: dispatch([str(word) for word in words]))
    return (code, *capsys.readouterr())


def latencys(out: str) -> list[float]:
    """Return what the last line says, read as YAML."""
    return yaml.safe_load(out.rstrip().rsplit("\n", 1)[-1])["latencys"]


@pytest.mark.parametrize("command", ["estimate", "profile-gpu", "profile-model", "profile-prompt"])
def test_each_command_has_a_help_with_its_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, command, "--help")
    assert code == 0 and out.startswith(f"usage: main.py {command} ") and "--registry PATH" in out
    assert "docs/estimator.md" in " ".join(out.split())


def test_profile_once_and_estimate_many_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--registry", tmp_path / "data")
    assert call(capsys, "profile-gpu", "--gpu", "My GPU", "--memory_bandwidth", 1555.5, *data)[0] == 0
    assert call(capsys, "profile-gpu", "--gpu", "a100 80g", *data)[1].endswith("80 GB)\n")
    code, out, _ = call(capsys, "profile-model", "--model-name", "facebook/opt-6.7b", *data)
    assert code == 0 and "weights 13.317 GB, KV cache of a token 524.288 kB" in out
    code, out, _ = call(capsys, "profile-prompt", "--model_name", "opt-6.7b", "--gpu", "A100-80G", *data)
    assert code == 0 and "prompt tokens/s, from performance model roofline" in out and "9 prompts" in out
    entered = {path.name: path.read_text() for path in (tmp_path / "data").iterdir()}
    speed = json.loads(entered["ptps.json"])["facebook/opt-6.7b"]["A100-80G"]
    assert speed["tokens"] == list(PROMPT_TOKENS) and speed["source"] == "performance model roofline"
    asked = ("--model_name", "opt-6.7b", "--gpu", "A100-80G", "--prompt_length", 1024, "--response_length", 3)
    code, out, err = call(capsys, "estimate", *asked, "--batch_size", 4, *data)
    assert (code, err) == (0, "") and "PTPS, from performance model roofline" in out
    expected = [(13_316_947_968 + (1024 + index) * 4 * 524_288) / 2039e9 for index in (1, 2, 3)]
    assert latencys(out) == [4096 / speed["ptps"], *expected]
    assert entered == {path.name: path.read_text() for path in (tmp_path / "data").iterdir()}, "estimates write nothing"
    again = call(capsys, "profile-gpu", "--gpu", "My GPU", *data)
    assert again[0] == 0 and "is there already, and stays as it is" in again[1]
    code, out, _ = call(capsys, "profile-gpu", "--gpu", "Other", *data)
    assert code == 0 and "entered without a bandwidth; write its memory_bandwidth_gb_s" in out


def test_a_prompt_speed_from_a_profile_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From operators that were measured: another speed than the roofline's, and it says so."""
    (tmp_path / "small.json").write_text(json.dumps(MODEL))
    measured = bundle(tmp_path / "bundle")
    words = ("--model_name", tmp_path / "small.json", "--gpu", "RTX4090", "--registry", tmp_path / "data")
    speeds = []
    for more in ((), ("--profile_dir", measured)):
        code, out, err = call(capsys, "profile-prompt", *words, "--tokens", "16,32,64", *more)
        assert code == 0, err
        speeds.append(float(re.search(r"([\d.]+) prompt tokens/s", out)[1]))
        assert f"from {'profile bundle ' + str(measured) if more else 'performance model roofline'}\n" in out
    assert speeds[0] != speeds[1]
    kept = json.loads((tmp_path / "data" / "ptps.json").read_text())["small"]["RTX4090"]
    assert kept["source"] == f"profile bundle {measured}" and kept["tokens"] == [16, 32, 64]
    assert sum(kept["latency_s"]) > 0 and round(kept["ptps"], 1) == speeds[1]


def test_a_gpu_that_is_here_is_timed_with_pytorch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of the three sources is taken; how a GPU is timed has never been tried on one."""
    timed = []

    class Pass:
        def __init__(self, architecture, bits) -> None:
            timed.append((architecture.name, bits))

        def __call__(self, tokens: int) -> float:
            return tokens / 5000

    monkeypatch.setattr("orchestrator.estimating.gpu.present_gpu", lambda: "NVIDIA X1")
    monkeypatch.setattr("orchestrator.estimating.gpu.PromptPass", Pass)
    data = ("--registry", tmp_path)
    assert call(capsys, "profile-gpu", "--memory_bandwidth", 900, *data)[0] == 0
    code, out, _ = call(capsys, "profile-prompt", "--model_name", "gpt2", *data)
    assert code == 0 and "on NVIDIA X1, 5000.0 prompt tokens/s, from PyTorch on NVIDIA X1" in out
    assert timed == [("openai-community/gpt2", 16)]
    code, out, _ = call(capsys, "profile-prompt", "--model_name", "gpt2", "--gpu", "H100", *data)
    assert code == 0 and "from performance model roofline" in out, "another GPU than the one that is here"
    assert len(timed) == 1
    code, out, _ = call(capsys, "estimate", "--model", "gpt2", "--prompt_length", 50, "--response_length", 1, *data)
    assert code == 0 and latencys(out)[0] == 0.01


def test_a_prompt_pass_runs_in_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the processor: what is timed on a GPU is the same but for the device."""
    torch = pytest.importorskip("torch", reason="PyTorch is no dependency")
    from orchestrator.estimating.gpu import PromptPass
    from trace_gen.models import load_model

    (tmp_path / "small.json").write_text(json.dumps(MODEL))
    small = PromptPass(load_model(str(tmp_path / "small.json")), device="cpu")
    assert small(8) > 0 and small(256) > small(8)
    monkeypatch.setattr(small, "_once", lambda tokens: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("full")))
    with pytest.raises(UserError, match="the prompt does not fit into the GPU's memory; give shorter --tokens"):
        small(8)
    with pytest.raises(UserError, match="only dense models with grouped attention, in 16 bits, are timed on a GPU"):
        PromptPass(load_model("Qwen3-30B-A3B"), device="cpu")


def test_a_comparison_is_told_in_tables_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--model_name", "gpt2", "--gpu", "A100-80G", "--prompt_length", 300, "--response_length", 20)
    files = {name: tmp_path / f"out.{name}" for name in ("json", "csv", "report")}
    words = [word for name, path in files.items() for word in (f"--{name}", path)]
    code, out, err = call(capsys, "estimate", *asked, "--batch_size", 3, "--registry", tmp_path, *words)
    assert code == 0 and "Where the full simulation's time went" in out and "scheduling static" in out
    assert err.count("note: ") >= 3
    found = json.loads(files["json"].read_text())
    assert found["formula"]["latencys"] == latencys(out)
    rows = [line.split(",") for line in files["csv"].read_text().splitlines()]
    assert rows[0][:4] == ["index", "token_s", "token_simulated_s", "token_error"]
    assert [row[0] for row in rows[1:]] == [str(index) for index in range(21)]
    assert [float(row[1]) for row in rows[1:]] == latencys(out)
    assert [float(row[2]) for row in rows[1:]] == found["simulated_latencys"]
    last = [float(value) for value in rows[-1]]
    assert last[4] == pytest.approx(sum(latencys(out)[1:])) and last[8] == pytest.approx(
        sum(found["simulated_latencys"])
    )
    assert last[6] == pytest.approx(last[4] / last[5] - 1) and found["token_phase_error"] == last[6]
    page = files["report"].read_text()
    assert page.count("<svg") == 4 and "token: formula, ms" in page and page.count("<tr>") > 8
    code, out, _ = call(capsys, "estimate", *asked[:-1], 0, "--compare", "--registry", tmp_path)
    assert code == 0 and "After so many tokens" not in out and len(latencys(out)) == 1


def test_several_batches_are_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--model_name", "gpt2", "--gpu", "A100-80G", "--prompt_length", "64,512", "--response_length", 8)
    words = (*asked, "--batch_size", "1, 4", "--registry", tmp_path, "--json", tmp_path / "out.json")
    code, plain, _ = call(capsys, "estimate", *words)
    assert code == 0 and "latencys" not in plain and "error" not in plain
    code, out, _ = call(capsys, "estimate", *words, "--compare")
    found = json.loads((tmp_path / "out.json").read_text())
    rows = [line.split() for line in out.splitlines() if re.match(r"  \d", line)]
    assert [row[:2] for row in rows] == [["64", "1"], ["64", "4"], ["512", "1"], ["512", "4"]]
    for row, one in zip(rows, found, strict=True):
        formula = one["formula"]
        errors = (one["prompt_phase_error"], one["token_phase_error"], one["total_error"])
        assert row[2] == f"{1e3 * formula['prompt_phase_s']:.3f}" and row[4] == f"{1e3 * formula['total_s']:.3f}"
        assert row[5:] == [f"{100 * error:+.1f}" for error in errors] and " ".join(row[:5]) in " ".join(plain.split())
    late = ("--model_name", "opt-30b", *asked[2:4], "--prompt_length", 1024, "--response_length", 2, "--compare")
    code, out, err = call(capsys, "estimate", *late, "--batch_size", "1,16", "--registry", tmp_path)
    assert code == 0 and out.splitlines()[-1].count("*") == 3 and out.count("*") == 3
    assert "requests were taken up later than the first" in err


def test_a_run_file_shows_what_hosts_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A small model under vLLM, whose host takes longer than the device: the formula knows nothing of it."""
    run = tmp_path / "run.yaml"
    run.write_text("model_name: gpt2\nhardware: H100\nscheduling: vllm\nhost_step_us: 3000\n")
    asked = ("--run", run, "--prompt_length", 64, "--response_length", 30, "--registry", tmp_path / "data")
    code, _, err = call(capsys, "estimate", *asked, "--json", tmp_path / "out.json")
    assert code == 0, err
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["engine"] == "scheduling vllm, performance model roofline" and found["formula"]["gpu"] == "H100"
    assert min(found["simulated_latencys"][1:]) >= 0.003 and found["token_phase_error"] < -0.9
    assert call(capsys, "estimate", *asked[:2], *asked[2:4], *asked[4:], "--batch_size", 2)[0] == 0
    run.write_text("model_name: gpt2\nnpu_num: 2\n")
    code, _, err = call(capsys, "estimate", *asked)
    assert code == 2 and "the run has 2 NPUs, and the formulas know one GPU; describe one engine" in err


def test_what_the_formulas_leave_out_of_a_model_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--registry", tmp_path)
    _, _, err = call(capsys, "profile-model", "--model_name", "Qwen3-30B-A3B", *data)
    assert "is a mixture of experts: the formula reads the weights of all of them at every step" in err
    _, _, err = call(capsys, "profile-model", "--model_name", "google/gemma-2-9b", *data)
    assert "layers that keep a window of tokens" in err
    narrow = ("--fp", 8, "--kv_cache_dtype", "fp8")
    assert call(capsys, "profile-model", "--model_name", "opt-6.7b", *narrow, *data)[0] == 0
    entry = json.loads((tmp_path / "model.json").read_text())["facebook/opt-6.7b"]
    assert entry == {"weight_bytes": 13_316_947_968 // 2, "kv_bytes_per_token": 262_144, "bits": 8, "kv_bits": 8}


def test_a_model_of_a_file_is_found_by_its_name_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(MODEL))
    data = ("--registry", tmp_path / "data")
    assert call(capsys, "profile-model", "--model_name", tmp_path / "mine.json", *data)[0] == 0
    words = ("--model_name", "mine", "--gpu", "H100", "--prompt_length", 30, "--response_length", 2, *data)
    code, out, err = call(capsys, "estimate", *words, "--compare")
    assert code == 0 and len(latencys(out)) == 3 and "model.json" not in err
