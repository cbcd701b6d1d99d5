"""Runs whose engines are compiled loops leave the bytes that the others leave, from the command line to the files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.commands import run_command
from foundation.errors import UserError
from orchestrator import RunSpec, Simulation
from orchestrator.cli import dispatch
from orchestrator.engine.compiled import covering
from orchestrator.observers.interface import Observer, Run
from orchestrator.simulation import prepare

ROOT = Path(__file__).resolve().parents[2]
SAME = (".csv", "-throughput.tsv", "-summary.json")
TRAFFIC = ["--num_prompts", "60", "--random_output_len", "40", "--seed", "3"]
SLOW, FAST = ["--request_rate", "4"], ["--request_rate", "200"]
CODELLAMA, LLAMA, MIXTRAL = "codellama/CodeLlama-7b-hf", "meta-llama/Llama-3.1-8B", "mistralai/Mixtral-8x7B-v0.1"
RUNS = {
    "as it comes": [*SLOW, "--model_name", LLAMA, "--hardware", "H100"],
    "another kind of kernel": [*FAST, "--model_name", LLAMA, "--hardware", "A100-80G", "--itl", "list"],
    "few blocks": [*FAST, "--model_name", LLAMA, "--hardware", "H100", "--num_gpu_blocks_override", "700"],
    "shared prefixes": [*FAST, "--model_name", LLAMA, "--hardware", "H100", "--prefix_len", "600"],
    "synchronous": [*FAST, "--model_name", CODELLAMA, "--hardware", "H100", "--no_async_scheduling"],
    "tensor parallel": [*FAST, "--model_name", LLAMA, "--hardware", "H100", "--tensor_parallel_size", "4"],
    "a pipeline": [*FAST, "--model_name", LLAMA, "--hardware", "H100", "--pipeline_parallel_size", "3"],
    "both": [*FAST, "--model_name", LLAMA, "--hardware", "H200", "--npu_num", "8", "--npu_group", "2"],
    "experts": [*FAST, "--model_name", MIXTRAL, "--hardware", "H200", "--tensor_parallel_size", "4",
                "--enable_expert_parallel"],
    "several engines": [*FAST, "--model_name", LLAMA, "--hardware", "H100", "--instances", "3",
                        "--router", "least-outstanding"],
    "several engines by KV cache": [*FAST, "--model_name", LLAMA, "--hardware", "H100", "--instances", "3",
                                    "--router", "least-kv", "--itl", "list"],
    "two kinds of layers": [*FAST, "--model_name", "meta-llama/Llama-4-Scout-17B-16E-Instruct", "--hardware", "B200",
                            "--tensor_parallel_size", "4", "--no_prefix_caching"],
}  # fmt: skip


def files(folder: Path, name: str) -> dict[str, bytes]:
    return {ending: (folder / f"{name}{ending}").read_bytes() for ending in SAME}


def command(folder: Path, name: str, *flags: str, **environment: str) -> None:
    """Run the program in a process of its own."""
    line = [sys.executable, str(ROOT / "main.py"), "--scheduling", "vllm", *TRAFFIC, *flags]
    done = subprocess.run(
        [*line, "--output", str(folder / f"{name}.csv")],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flags", RUNS.values(), ids=RUNS)
def test_the_same_bytes(tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for way in ("never", "always"):
        output = ["--output", str(tmp_path / f"{way}.csv"), "--no_report"]
        given = ["--scheduling", "vllm", *TRAFFIC, *flags, "--compiled_engines", way, *output]
        assert run_command(lambda given=given: dispatch(given)) == 0, capsys.readouterr().err  # type: ignore[misc]
    assert files(tmp_path, "always") == files(tmp_path, "never")


def test_uncompiled_the_same(tmp_path: Path) -> None:
    """Without numba the loop runs as it stands, and leaves the same."""
    flags = [*FAST, "--model_name", LLAMA, "--hardware", "H100", "--num_gpu_blocks_override", "900"]
    command(tmp_path, "compiled", *flags, "--compiled_engines", "always")
    command(tmp_path, "plain", *flags, "--compiled_engines", "always", ORRERY_COMPILE="0")
    assert files(tmp_path, "plain") == files(tmp_path, "compiled")


def spec(**more: object) -> RunSpec:
    given = {"scheduling": "vllm", "model_name": LLAMA, "hardware": "H100", "num_prompts": 20, "request_rate": 10.0}
    return RunSpec.of(**{**given, **more})


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"scheduling": "orca"}, "the policy is orca"),
        ({"vllm_version": "0.33"}, "the rules are those of vLLM 0.33"),
        ({"policy": "priority"}, "requests are served by priority"),
        ({"max_concurrency": 4}, "requests wait for the answers of others"),
        ({"client_timeout": 3.0}, "clients may go away"),
        ({"model_name": "openai/gpt-oss-20b"}, "layers keep a sliding window"),
        ({"model_name": "deepseek-ai/DeepSeek-V2-Lite"}, "prompts and decodes have operators of their own"),
        ({"interface": "text"}, "every iteration is traced: files are made of it"),
        ({"jitter_steps": 3.0}, "steps take longer or shorter at random"),
        ({"perf_model": "backend"}, "the backend decides how long operators take"),
        ({"router": "vllm", "instances": 2}, "the router looks at the engines between requests"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_is_refused_and_left_alone(more: dict[str, object], reason: str) -> None:
    """Asked for, it is an error that says why; otherwise engines are what they are without."""
    with pytest.raises(UserError) as refused:
        covering.compiled_kinds(prepare(spec(**more, compiled_engines="always")), ())
    assert reason in str(refused.value) and "--compiled_engines" in str(refused.value)
    assert not covering.compiled_kinds(prepare(spec(**more)), ())


class EachBatch(Observer):
    """Hears of batches, and of nothing else."""

    heard = 0

    def batch(self, done: object) -> None:
        self.heard += 1


def test_an_observer_of_batches_hears_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covering, "LEAST_REQUESTS", 1)
    monkeypatch.setattr(covering, "LEAST_UNCOMPILED", 1)
    observer = EachBatch()
    Simulation(spec(), [observer]).run()
    assert observer.heard > 20


def test_only_long_runs_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading takes time, and compiling more, so a short run does without; one that is long enough does not."""
    monkeypatch.setattr(covering, "compiles", lambda: True)
    monkeypatch.setattr(covering, "is_compiled", lambda function: function == covering.LOOP)
    run: Run = prepare(spec())
    everyone = frozenset(run.kinds())
    assert not covering.compiled_kinds(run, ())
    monkeypatch.setattr(covering, "LEAST_REQUESTS", 20)
    assert covering.compiled_kinds(run, ()) == everyone
    monkeypatch.setattr(covering, "is_compiled", lambda function: False)
    assert not covering.compiled_kinds(run, ())
    monkeypatch.setattr(covering, "LEAST_UNCOMPILED", 20)
    assert covering.compiled_kinds(run, ()) == everyone
    monkeypatch.setattr(covering, "compiles", lambda: False)
    assert not covering.compiled_kinds(run, ())
