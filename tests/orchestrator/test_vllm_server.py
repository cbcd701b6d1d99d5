"""What `--scheduling vllm` decides as vLLM's server does, and says: limits of a step, memory left to KV blocks."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from foundation.errors import UserError
from orchestrator.deployment import Deployment
from orchestrator.request_source import open_source
from orchestrator.run_job import run
from orchestrator.settings.decided import machine
from orchestrator.settings.record import repeating
from orchestrator.settings.run import WorkloadSettings
from orchestrator.settings.specification import RunSpec, from_flags
from orchestrator.simulation import prepare

LLAMA_8B, LLAMA_70B = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-70B-Instruct"


def deployed(**values: object) -> Deployment:
    return prepare(RunSpec.of(**{"scheduling": "vllm", "skip_unfit": True, "req_num": 5, **values})).deployments[0]


@pytest.mark.parametrize(
    ("hardware", "version", "limits"),
    [
        ("RTX4090", "0.19", (256, 2048)),
        ("A100-80G", "0.19", (256, 2048)),
        ("H100", "0.19", (1024, 8192)),
        ("B200", "0.33", (1024, 16384)),
    ],
)
def test_limits_of_a_step_are_the_servers_for_the_device(hardware: str, version: str, limits: tuple[int, int]) -> None:
    made = deployed(model_name=LLAMA_8B, hardware=hardware, vllm_version=version)
    assert made.engine.scheduling.step_limits() == {"requests": limits[0], "tokens": limits[1]}


def test_the_limits_depend_on_the_memory_that_is_given() -> None:
    made = deployed(model_name=LLAMA_8B, hardware="H100", npu_mem=40)
    assert made.engine.scheduling.step_limits() == {"requests": 256, "tokens": 2048}


def test_whole_prompts_alone_raise_the_budget() -> None:
    made = deployed(model_name=LLAMA_8B, hardware="H100", enable_chunked_prefill=False)
    assert made.engine.scheduling.step_limits() == {"requests": 1024, "tokens": 131_072}


def test_the_blocks_of_a_recorded_server_are_met() -> None:
    """Llama-3.1-8B on an RTX 4090 under vLLM 0.19.0 had 2,588 blocks with its defaults."""
    assert deployed(model_name=LLAMA_8B, hardware="RTX4090").space.total_blocks == pytest.approx(2588, rel=0.002)


def test_70b_on_two_h100s_has_next_to_no_room_for_kv() -> None:
    space = deployed(model_name=LLAMA_70B, hardware="H100", npu_num=2).space
    assert 0 < space.total_blocks * space.block_bytes < 2e9
    as_before = deployed(model_name=LLAMA_70B, hardware="H100", npu_num=2, scheduling="orca").space
    assert as_before.total_blocks * as_before.block_bytes == pytest.approx(18.9e9, rel=0.01), "orca keeps --npu_mem"


def test_a_share_that_does_not_hold_the_weights_is_refused_with_all_sizes() -> None:
    with pytest.raises(UserError) as refused:
        deployed(model_name=LLAMA_70B, hardware="H100", npu_num=2, gpu_memory_utilization=0.85)
    text = str(refused.value)
    assert text.startswith("--gpu_memory_utilization: 67.036 GB an NPU (0.85 of 84.94 GB less 5.17 GB for logits,")
    assert "do not hold 70.555 GB of weights of meta-llama/Llama-3.1-70B-Instruct and a KV block; give more" in text


@pytest.mark.parametrize("version", ["0.19", "0.33"])
def test_more_of_the_memory_is_more_blocks_by_just_that(version: str) -> None:
    low, high = (
        deployed(model_name=LLAMA_8B, hardware="H100", vllm_version=version, gpu_memory_utilization=share)
        for share in (0.5, 0.75)
    )
    more = (high.space.total_blocks - low.space.total_blocks) * low.space.block_bytes
    assert more == pytest.approx(0.25 * high.hardware.driver_memory_bytes, abs=low.space.block_bytes)
    default = deployed(model_name=LLAMA_8B, hardware="H100", vllm_version=version)
    share = {"0.19": 0.9, "0.33": 0.92}[version]
    same = deployed(model_name=LLAMA_8B, hardware="H100", vllm_version=version, gpu_memory_utilization=share)
    assert default.space == same.space


def test_a_number_of_blocks_wins_over_all_memory() -> None:
    made = deployed(model_name="gpt2", num_gpu_blocks_override=14, npu_mem=0.257)
    assert made.space.total_blocks == 13, "vLLM counts its null block"
    with pytest.raises(UserError, match="for its weights"):
        deployed(model_name="gpt2", num_gpu_blocks_override=14, npu_mem=0.2)


def test_what_is_decided_is_recorded_and_decides_the_same_again() -> None:
    made = prepare(RunSpec.of(model_name=LLAMA_8B, hardware="H100", scheduling="vllm", req_num=5))
    recorded = repeating(made.spec)
    wanted = {"max_num_seqs": 1024, "max_num_batched_tokens": 8192, "gpu_memory_utilization": 0.9}
    assert wanted.items() <= recorded.items() and recorded["async_scheduling"] is True
    assert recorded["npu_mem"] == pytest.approx(79.11 * 1.073741824)
    assert None not in recorded.values()
    again = prepare(RunSpec.of(**recorded))
    assert repeating(again.spec) == recorded and again.deployments[0].space == made.deployments[0].space


def test_a_run_says_what_a_step_holds_and_where_memory_goes() -> None:
    out = io.StringIO()
    assert run(from_flags(["--scheduling", "vllm", "--hardware", "H100", "--req_num", "2"]), out) == 0
    lines = out.getvalue().splitlines()
    assert lines[1] == "a step: at most 1024 requests and 8192 tokens"
    assert lines[2].startswith("memory of an NPU: 71.97 GB (0.9 of 84.94 GB less 4.48 GB for logits, activations, CUDA")
    assert any(
        line.startswith("  limits of a step ") and line.endswith(" 1024 requests, 8192 tokens") for line in lines
    ), "the summary states them, too"
    out = io.StringIO()
    assert run(from_flags(["--max_batch", "3", "--hardware", "H100", "--req_num", "2"]), out) == 0
    assert out.getvalue().splitlines()[1] == "a step: at most 3 requests"


@pytest.mark.parametrize(("flags", "noted"), [("", True), ("--max_model_len 32768", False)])
def test_a_sequence_that_the_cache_cannot_hold_is_noted(flags: str, noted: bool) -> None:
    out = io.StringIO()
    assert run(from_flags(f"--scheduling vllm --hardware RTX4090 --req_num 2 {flags}".split()), out) == 0
    said = "less than one sequence of 131072 (max_model_len); an engine would not start"
    assert (said in out.getvalue()) is noted


@pytest.mark.parametrize(("flags", "times"), [("", 1), ("--no_prefix_caching", 0)])
def test_prompts_without_token_ids_are_noted_once(flags: str, times: int) -> None:
    out = io.StringIO()
    assert run(from_flags(f"--scheduling vllm --model_name gpt2 --req_num 2 --instances 2 {flags}".split()), out) == 0
    assert out.getvalue().count("prompts have no token ids") == times


def test_what_the_door_turns_away_need_not_fit(tmp_path: Path) -> None:
    """A prompt beyond max_model_len is rejected when it comes, the others are served; what cannot fit is refused."""
    rows = tmp_path / "rows.tsv"
    rows.write_text("10\t5\t0\n2000\t5\t10\n20\t5\t20\n")
    spec = RunSpec.of(model_name="gpt2", scheduling="vllm", dataset=str(rows), num_gpu_blocks_override=40)
    assert prepare(spec).source.count == 3
    out = io.StringIO()
    assert run(spec, out) == 0
    said = "request 1 was not served: its prompt of 2000 tokens is not below max_model_len (1024)"
    assert said in out.getvalue().splitlines()
    rows.write_text("10\t5\t0\n900\t5\t10\n20\t5\t20\n")
    with pytest.raises(UserError, match=r"rows.tsv, line 2: it needs 57 KV blocks of 16 tokens, the cache holds 39"):
        prepare(spec)


def test_the_remedy_fits_the_cause(tmp_path: Path) -> None:
    rows = tmp_path / "rows.tsv"
    rows.write_text("10\t50\t0\n")
    values = {"model_name": "gpt2", "dataset": str(rows)}
    with pytest.raises(UserError, match=r"is 40; give a larger --max_model_len, or drop such requests"):
        prepare(RunSpec.of(**values, max_model_len=40))
    with pytest.raises(UserError, match=r"none of the 1 requests fits; give a larger --max_model_len$"):
        prepare(RunSpec.of(**values, max_model_len=40, skip_unfit=True))
    with pytest.raises(UserError, match=r"KV blocks .* give more memory \(--npu_mem, --npu_num\), or drop such"):
        prepare(RunSpec.of(**values, npu_mem=0.2502))


def test_the_longest_is_asked_first_and_mostly_alone() -> None:
    asked: list[int] = []
    source = open_source(WorkloadSettings(req_num=50), lambda request: None, lambda longest: not asked.append(1))
    assert source.count == 50 and asked == [1]


@pytest.mark.parametrize(
    ("policy", "options", "limits"),
    [
        ("vllm-v0", {"model_name": "openai-community/gpt2"}, (256, 2048)),
        ("vllm-v0", {"max_model_len": 8192}, (256, 8192)),
        ("vllm-v0", {"max_model_len": 8192, "enable_chunked_prefill": True}, (256, 512)),
        ("vllm-v0", {}, (256, 512)),  # 131072 tokens: prompts in chunks
        ("vllm-v0", {"enable_chunked_prefill": False, "max_model_len": 40_000, "max_num_seqs": 9}, (9, 40_000)),
        ("sarathi", {}, (128, 512)),
        ("sarathi", {"chunk_size": 64, "max_num_seqs": 100}, (100, 100)),
    ],
)
def test_older_servers_have_limits_of_their_own(
    policy: str, options: dict[str, object], limits: tuple[int, int]
) -> None:
    made = deployed(**{"model_name": LLAMA_8B, "hardware": "H100", "scheduling": policy, **options})
    assert made.engine.scheduling.step_limits() == {"requests": limits[0], "tokens": limits[1]}
    settings = made.engine.scheduling
    assert settings.decided(machine(made.engine, made.model, made.hardware)) == settings
    share = made.hardware.driver_memory_bytes * 0.9
    assert 0.85 * share < made.share.bytes < share and "0.9 of 84.94 GB" in made.share.part


@pytest.mark.parametrize("policy", ["vllm-v0", "sarathi"])
def test_older_servers_take_the_blocks_that_are_given(policy: str) -> None:
    made = deployed(model_name=LLAMA_8B, hardware="H100", scheduling=policy, num_gpu_blocks_override=1000)
    assert made.space.total_blocks == 999 and not made.share.part
