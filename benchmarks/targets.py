"""The work that Orrery's speed is measured by: whole commands, as users give them, and what they should cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared" / "measured"
LLAMA = ("--model_name", "meta-llama/Llama-3.1-8B", "--hardware", "H100", "--scheduling", "vllm")
LENGTHS = (
    *("--input_lengths", "normal", "--input_mean", "850", "--input_std", "250"),
    *("--output_lengths", "normal", "--output_mean", "650", "--output_std", "200", "--seed", "1"),
)


@dataclass(frozen=True)
class Work:
    """One row: `flags` of `main.py`, or another `module`; `requests` of them, which a scale makes fewer.

    `target` in CPU seconds beyond the interpreter and `import numpy`; `peer`: the best other simulator's, in words.
    `folder`: what must be there for it to run; `graph`: that of `benchmarks.graph_files` that it simulates.
    """

    name: str
    what: str
    target: float
    peer: str
    flags: tuple[str, ...]
    requests: int = 0
    module: str | None = None
    folder: Path | None = None
    writes: bool = True
    graph: str | None = None

    def arguments(self, scale: float) -> list[str]:
        """Return the flags, for `scale` times as many requests."""
        if not self.requests:
            return list(self.flags)
        return [*self.flags, "--num_prompts", str(max(2, round(self.requests * scale)))]


def _served(name: str, what: str, target: float, peer: str, requests: int, *flags: str, rate: str = "10") -> Work:
    return Work(name, what, target, peer, (*LLAMA, *LENGTHS, "--request_rate", rate, *flags), requests)


WORK: Sequence[Work] = (
    _served("requests", "5,000 requests, Poisson 10/s", 1.0, "0.40 (Rust)", 5_000),
    _served("many", "100,000 requests, Poisson 10/s", 3.0, "10.7 (Rust)", 100_000),
    _served("fleet", "100,000 requests at 160/s, 16 instances, least-outstanding router", 4.5,
            "0.2 ms an iteration (Vidur)", 100_000, "--instances", "16", "--router", "least-outstanding", rate="160"),
    _served("prefixes", "100,000 requests, half of each prompt shared by one in 50", 6.0, "-", 100_000,
            "--prefix_len", "425", "--prefix_groups", "2000"),
    _served("preemption", "100,000 requests, KV blocks for half of what they want", 6.0, "-", 100_000,
            "--num_gpu_blocks_override", "3000"),
    _served("tp8", "5,000 requests, TP 8", 1.5, "-", 5_000, "--tensor_parallel_size", "8"),
    _served("tp4-pp4", "5,000 requests, TP 4 x PP 4", 1.5, "-", 5_000, "--tensor_parallel_size", "4",
            "--pipeline_parallel_size", "4"),
    _served("ep8", "5,000 requests, Mixtral-8x7B, EP 8", 1.5, "-", 5_000, "--model_name",
            "mistralai/Mixtral-8x7B-v0.1", "--tensor_parallel_size", "8", "--enable_expert_parallel"),
    Work("sample", "the 100-request sample", 0.4, "minutes (LLMServingSim)",
         ("--model_name", "meta-llama/Llama-3.1-8B-Instruct", "--hardware", "RTX3090",
          "--dataset", "workloads/sharegpt-like-100-rate10.tsv")),
    Work("recorded", "the four recorded servers together", 2.0, "86 s by the clock (LLMServingSim)",
         (str(SHARED),), module="benchmarks.recorded_servers", folder=SHARED, writes=False),
    Work("tp2048", "GPT-3 175B, TP 2,048, one iteration", 0.5, "4.13 h (paper)",
         ("--model_name", "gpt3-175b", "--hardware", "H100", "--npu_num", "2048", "--num_prompts", "1",
          "--random_input_len", "64", "--random_output_len", "1", "--request_rate", "inf")),
    Work("decisions", "10,000 requests, 128 running at all times", 1.0, "1,551 us a decision (vLLM)",
         (*LLAMA, *LENGTHS, "--request_rate", "inf", "--max_num_seqs", "128"), 10_000),
    Work("ring", "full simulation, TP 64 ring, 64 all-reduces", 0.1, "1.0 (ASTRA-sim)", (), module="analytical",
         writes=False, graph="ring"),
    Work("dag", "full simulation, 64 ranks x 5,000 nodes", 2.3, "22.6 (ASTRA-sim)", (), module="analytical",
         writes=False, graph="dag"),
    Work("analytical", "python -m analytical, 2 ranks", 0.1, "0.012 (ASTRA-sim)", (), module="analytical",
         writes=False, graph="two"),
    Work("help", "main.py --help", 0.05, "-", ("--help",), writes=False),
)  # fmt: skip
