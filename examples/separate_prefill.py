"""Divide two GPUs by role: one computes prompts, the other goes on with them; against both of them doing all.

    python examples/separate_prefill.py

Long prompts hold up the decodes that they are batched with. Where prompts have an engine of their own, the time between
two tokens hardly varies; what it costs is the way of the KV cache, and a GPU that may have nothing to do.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from orchestrator import RunSpec, Simulation
from orchestrator.requests.request import Request
from orchestrator.workload import write_workload
from orchestrator.workload_generator import generate

PLANS: dict[str, dict[str, Any]] = {
    "both do all": {"instances": 2},
    "whole": {"engines": [{"role": "prefill"}, {"role": "decode"}]},
    "layerwise": {"engines": [{"role": "prefill"}, {"role": "decode"}], "kv_transfer": "layerwise"},
}


def long_prompts(rate: float, count: int) -> list[Request]:
    """Return requests with prompts eight times as long as those of chats."""
    drawn = islice(generate("sharegpt-like", rate, 0), count)
    return [Request(one.id, one.arrival_ns, 8 * one.prompt_tokens, one.output_tokens) for one in drawn]


def main() -> None:
    """Print a line a plan."""
    print("                 TTFT P99      ITL P99     KV cache moved")
    with TemporaryDirectory() as folder:
        dataset = Path(folder, "long.tsv")
        write_workload(dataset, long_prompts(rate=8, count=150))
        for name, plan in PLANS.items():
            spec = RunSpec.of(dataset=str(dataset), hardware="H100", scheduling="vllm", **plan)
            summary = Simulation(spec).run().summary
            assert summary.ttft_ms is not None and summary.itl_ms is not None
            moved = f"{summary.transfers.bytes / 1e9:.1f} GB" if summary.transfers is not None else "none"
            print(f"{name:12} {summary.ttft_ms['p99']:9.1f} ms {summary.itl_ms['p99']:9.1f} ms {moved:>15}")


if __name__ == "__main__":
    main()
