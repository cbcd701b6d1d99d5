"""Small runs of main.py over the breadth of what it does, and digests of what each leaves.

`digests.json` beside this file holds, for each run, digests of the CSV, of the throughput table and of the summary (the
fields that `SUMMARY_FIELDS` names, so that a new figure changes nothing here), and three figures in clear, so that a
difference says something. It was made from the state at commit e60b136, before the engine on a clock. It is made anew,
for the runs that a CHANGELOG entry names, by

    python tests/golden/whole_runs.py NAME [NAME ...]
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DIGESTS = Path(__file__).resolve().with_name("digests.json")
CONFIGS = ROOT / "configs"

SUMMARY_FIELDS = (
    "model", "hardware", "npus", "tensor", "pipeline", "expert", "skipped", "complete", "error", "finished_requests",
    "makespan_s", "ttft_ms", "tpot_ms", "itl_ms", "latency_ms", "queuing_delay_ms", "requests_per_s", "prompt_tokens",
    "generated_tokens", "prompt_tokens_per_s", "generated_tokens_per_s", "iterations", "kv_blocks", "peak_kv_blocks",
    "preemptions", "evictions", "evicted_bytes", "reloaded_bytes",
)  # fmt: skip
"""What the summary held at e60b136."""
STATISTICS = ("mean", "p50", "p90", "p99")

WORKLOADS: dict[str, list[tuple[int, int, int]]] = {
    "few": [(100, 8, 0), (40, 15, 1_000_000), (300, 6, 2_000_000), (7, 1, 30_000_000), (64, 16, 31_000_000)],
    "burst": [(30 + 37 * index % 200, 3 + 11 * index % 40, 100_000 * index) for index in range(16)],
    "idle": [(50, 20, 0), (20, 30, 1_700_000_000), (200, 4, 1_700_500_000), (9, 40, 4_000_000_000)],
    "tight": [(20, 60, 0)] * 4,
    "waves": [(20 + 5 * (index % 3), 40 + 7 * index % 30, 3_000_000 * index) for index in range(10)],
    "long": [(700, 12, 0), (900, 30, 1_000), (16, 50, 2_000), (350, 1, 2_000_000), (820, 20, 40_000_000)],
    "unordered": [(40, 15, 9_000_000), (100, 8, 0), (300, 6, 2_000_000), (7, 1, 2_000_000)],
    "unfit": [(40, 15, 0), (5000, 15, 100), (10, 3, 200)],
}

MISTRAL = {
    "model_type": "mistral", "hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8,
    "num_key_value_heads": 2, "num_hidden_layers": 4, "vocab_size": 1000, "max_position_embeddings": 4096,
    "sliding_window": 64,
}  # fmt: skip
TABLE_LAYERS = (
    "embedding", "input_layernorm", "q_proj", "k_proj", "v_proj", "rope", "attn", "o_proj", "post_layernorm",
    "gate_proj", "up_proj", "act_fn", "down_proj", "final_layernorm", "lm_head",
)  # fmt: skip


@dataclass(frozen=True)
class WholeRun:
    """One run: flags, the workload, and what it must have reached to be worth its place (a field of the summary)."""

    flags: str
    workload: str | None = "few"
    reached: str | None = None
    model: str = "openai-community/gpt2"


LLAMA, MIXTRAL = "meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mixtral-8x7B-Instruct-v0.1"
LINKS = "--link_bw 100 --link_latency 700"
VLLM = "--scheduling vllm --max_num_seqs 128 --max_num_batched_tokens 1024"
FILES = "--network {configs}/networks/{0}.yml --system {configs}/systems/{1}.json"

RUNS: dict[str, WholeRun] = {
    "defaults": WholeRun("--req_num 12", None, model=LLAMA),
    "orca": WholeRun(""),
    "orca-burst": WholeRun("", "burst"),
    "orca-idle-intervals": WholeRun("--log_interval 0.01", "idle"),
    "orca-max-batch": WholeRun("--max_batch 2", "burst"),
    "orca-step-by-step": WholeRun("--macro_steps 1", "burst"),
    "orca-unordered": WholeRun("", "unordered"),
    "orca-first-requests": WholeRun("--req_num 5", "burst"),
    "orca-skip-unfit": WholeRun("--skip_unfit --max_model_len 1024", "unfit", "skipped"),
    "orca-gen": WholeRun("--gen", "burst"),
    "orca-oracle": WholeRun("--kv_manage oracle --npu_mem 0.27", "burst"),
    "orca-pow2": WholeRun("--kv_manage pow2 --npu_mem 0.27", "burst"),
    "orca-max": WholeRun("--kv_manage max --max_model_len 400 --npu_mem 0.32", "burst"),
    "orca-evicts": WholeRun("--npu_mem 0.256", "tight", "evictions"),
    "orca-evicts-gen": WholeRun("--npu_mem 0.256 --gen --block_size 4", "tight", "evictions"),
    "orca-evicts-pipeline": WholeRun(f"--npu_num 2 --npu_group 2 --npu_mem 0.169 {LINKS}", "tight", "evictions"),
    "orca-evicts-tensor-pool": WholeRun(
        "--npu_num 4 --npu_mem 0.0660 --remote_memory {configs}/memories/host-shared.json "
        "--network {configs}/networks/switch-4.yml",
        "waves",
        "evictions",
    ),
    "static": WholeRun("--scheduling none --max_batch 3 --batch_delay 1500000", "burst"),
    "static-evicts": WholeRun("--scheduling none --npu_mem 0.256", "tight", "evictions"),
    "static-pipeline": WholeRun(
        f"--scheduling none --parallel pipeline --npu_num 3 --max_batch 4 {LINKS}", "burst"
    ),
    "vllm": WholeRun(VLLM, "burst"),
    "vllm-idle": WholeRun(f"{VLLM} --log_interval 0.02", "idle"),
    "slots": WholeRun("--scheduling static --max_batch 3 --batch_delay 1500000", "burst"),
    "prompts-first": WholeRun("--scheduling continuous --max_batch 4 --queue_order sjf", "burst"),
    "chunks-beside-decodes": WholeRun("--scheduling chunked-mixed-continuous --prefill_chunk 96", "long"),
    "predicted-peak": WholeRun("--scheduling lightllm --max_waiting_iters 3 --npu_mem 0.27", "burst"),
    "vllm-sync": WholeRun(f"{VLLM} --no_async_scheduling", "burst"),
    "vllm-0.33": WholeRun(f"{VLLM} --vllm_version 0.33 --long_prefill_token_threshold 100", "long"),
    "vllm-priority": WholeRun(f"{VLLM} --policy priority --num_gpu_blocks_override 14", "waves", "preemptions"),
    "vllm-chunks": WholeRun("--scheduling vllm --max_num_seqs 4 --max_num_batched_tokens 96", "long"),
    "vllm-threshold": WholeRun(f"{VLLM} --long_prefill_token_threshold 64", "long"),
    "vllm-whole-prompts": WholeRun(f"{VLLM} --no_chunked_prefill --max_model_len 1024", "long"),
    "vllm-preempts": WholeRun(f"{VLLM} --num_gpu_blocks_override 14", "waves", "preemptions"),
    "vllm-preempts-0.33": WholeRun(f"{VLLM} --num_gpu_blocks_override 14 --vllm_version 0.33", "waves", "preemptions"),
    "vllm-preempts-sync-no-caching": WholeRun(
        f"{VLLM} --num_gpu_blocks_override 28 --no_async_scheduling --no_prefix_caching --no_reserve_full_isl "
        "--block_size 8",
        "waves",
        "preemptions",
    ),
    "vllm-pipeline": WholeRun(f"{VLLM} --no_async_scheduling --npu_num 2 --npu_group 2 {LINKS}", "burst"),
    "vllm-hybrid": WholeRun(
        f"{VLLM} --no_async_scheduling --npu_num 4 --npu_group 2 --hardware H100 {LINKS}", "long", model=LLAMA
    ),
    "sglang": WholeRun("--scheduling sglang --chunked_prefill_size 256", "burst"),
    "sglang-retracts": WholeRun(
        "--scheduling sglang --max_total_tokens 420 --schedule_conservativeness 0.01 --page_size 4",
        "waves",
        "preemptions",
    ),
    "sglang-pipeline": WholeRun(
        f"--scheduling sglang --schedule_policy lof --npu_num 2 --npu_group 2 {LINKS}", "burst"
    ),
    "vllm-v0": WholeRun("--scheduling vllm-v0", "burst"),
    "vllm-v0-preempts": WholeRun("--scheduling vllm-v0 --num_gpu_blocks_override 14", "waves", "preemptions"),
    "vllm-v0-swaps": WholeRun(
        "--scheduling vllm-v0 --num_gpu_blocks_override 120 --block_size 2 --preemption_mode swap", "waves", "evictions"
    ),
    "vllm-v0-pipeline": WholeRun(
        f"--scheduling vllm-v0 --npu_num 2 --npu_group 2 --num_gpu_blocks_override 29 {LINKS}", "waves", "preemptions"
    ),
    "vllm-v0-chunks": WholeRun(
        "--scheduling vllm-v0 --enable_chunked_prefill --max_num_seqs 4 --max_num_batched_tokens 96", "long"
    ),
    "sarathi": WholeRun("--scheduling sarathi --chunk_size 128", "long"),
    "sarathi-preempts": WholeRun(
        "--scheduling sarathi --num_gpu_blocks_override 14 --chunk_size 32", "waves", "preemptions"
    ),
    "sarathi-pipeline": WholeRun(f"--scheduling sarathi --chunk_size 64 --npu_num 2 --npu_group 2 {LINKS}", "burst"),
    "tensor": WholeRun(f"--npu_num 4 {LINKS}", "burst"),
    "tensor-llama-70b": WholeRun(
        f"--npu_num 8 --hardware H100 {LINKS}", model="meta-llama/Llama-3.1-70B-Instruct"
    ),
    "tensor-attention-by-requests": WholeRun(f"--npu_num 3 --attention_placement requests {LINKS}", "burst"),
    "pipeline": WholeRun(f"--npu_num 4 --npu_group 4 {LINKS}", "burst"),
    "hybrid": WholeRun(f"--npu_num 4 --npu_group 2 --npu_mem 40 --local_bw 1024 {LINKS}", model=LLAMA),
    "experts-divided": WholeRun(f"--npu_num 2 --hardware H100 {LINKS}", model=MIXTRAL),
    "experts-spread": WholeRun(
        f"--npu_num 4 --ep_size 4 --hardware A100-40G {LINKS}", "burst", model="Qwen/Qwen1.5-MoE-A2.7B"
    ),
    "experts-spread-pipeline": WholeRun(
        f"--npu_num 4 --npu_group 2 --ep_size 2 --hardware A100-80G {LINKS} --fp 8", model="Qwen/Qwen3-30B-A3B"
    ),
    "eight-bits": WholeRun("--fp 8 --hardware RTX4090", model="facebook/opt-1.3b"),
    "learned-positions": WholeRun("--hardware A40 --fp 32", "burst", model="facebook/opt-125m"),
    "llama-2": WholeRun("--hardware L40S", model="meta-llama/Llama-2-7b-hf"),
    "sliding-window": WholeRun("", "long", model="mistral"),
    "sliding-window-vllm": WholeRun(VLLM, "long", model="mistral"),
    "backend-roofline": WholeRun(f"--perf_model backend --npu_num 2 {LINKS}"),
    "measured-table": WholeRun("--perf_table table.csv", model="huggyllama/llama-7b"),
    "network-of-two-dimensions": WholeRun(
        f"--npu_num 8 --npu_group 2 {FILES.format('ring-4-switch-2', 'ring-2d', configs='{configs}')}", "burst"
    ),
    "network-switch-direct": WholeRun(
        f"--npu_num 4 {FILES.format('switch-4', 'direct-1d', configs='{configs}')}", "burst"
    ),
    "network-congestion-aware": WholeRun(
        f"--npu_num 4 --congestion aware {FILES.format('switch-4', 'halving-doubling-1d', configs='{configs}')}"
    ),
    "network-queues-rendezvous": WholeRun(
        f"--npu_num 4 --npu_group 2 --num_queues_per_dim 2 --injection_scale 3 --rendezvous_protocol {LINKS}"
    ),
    "cross-check": WholeRun(f"--npu_num 2 --cross_check embedded {LINKS}"),
    "by-et-files": WholeRun(f"--npu_num 2 --npu_group 2 --interface et {LINKS}"),
}  # fmt: skip


def digests_of(name: str, simulate: Callable[[list[str]], int]) -> dict[str, Any]:
    """Run `name` by `simulate` (the main job, given its arguments) and return what `digests.json` holds of it."""
    with TemporaryDirectory() as text, chdir(text):
        folder = Path()
        flags = _arguments(RUNS[name])
        with redirect_stdout(StringIO()):
            assert simulate(flags) == 0
        summary = json.loads((folder / "out-summary.json").read_text())
        reached = RUNS[name].reached
        assert reached is None or summary[reached] > 0, f"{name} has no {reached}"
        return {
            "finished_requests": summary["finished_requests"],
            "iterations": summary["iterations"],
            "makespan_ns": round(summary["makespan_s"] * 1e9),
            "csv": _digest((folder / "out.csv").read_bytes()),
            "throughput": _digest((folder / "out-throughput.tsv").read_bytes()),
            "summary": _digest(_known_summary(summary)),
        }


def _arguments(run: WholeRun) -> list[str]:
    """Return the command line of `run`, and write the files it names into the working folder."""
    Path("mistral").mkdir()
    Path("mistral/config.json").write_text(json.dumps(MISTRAL))
    Path("table.csv").write_text(_table())
    flags = [flag.format(configs=CONFIGS) for flag in run.flags.split()]
    flags += ["--model_name", run.model, "--output", "out.csv"]
    if run.workload is not None:
        rows = WORKLOADS[run.workload]
        Path("workload.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
        flags += ["--dataset", "workload.tsv"]
    return flags


def _table() -> str:
    """Return a table of latencies of LLMServingSim v0.2.1's form for Llama-7B on one device."""
    lines = ["hardware,model,layer_name,input,kv_cache,latency(ns)"]
    for index, layer in enumerate(TABLE_LAYERS):
        contexts = (0, 128, 1024) if layer in ("attn", "rope") else (0,)
        for tokens in (1, 64, 512):
            lines += [
                f"RTX3090,huggyllama/llama-7b,{layer},{tokens},{context},{900 + 70 * index + 31 * tokens + 2 * context}"
                for context in contexts
            ]
    return "\n".join(lines) + "\n"


def _known_summary(summary: dict[str, Any]) -> bytes:
    """Return the fields of a summary that are compared, as text."""
    shown = {name: summary[name] for name in SUMMARY_FIELDS}
    for name, value in shown.items():
        if isinstance(value, dict):
            shown[name] = {statistic: value[statistic] for statistic in STATISTICS}
    return json.dumps(shown, indent=1).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def main() -> None:
    """Make the digests of the runs named on the command line anew (none named: of those that have none)."""
    sys.path.insert(0, str(ROOT))
    from orchestrator.commands.run import simulate

    held = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    for name in sys.argv[1:] or [name for name in RUNS if name not in held]:
        held[name] = digests_of(name, simulate)
    DIGESTS.write_text(json.dumps({name: held[name] for name in RUNS}, indent=1) + "\n")


if __name__ == "__main__":
    main()
