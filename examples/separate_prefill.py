"""Divide two GPUs by role: one computes prompts, the other goes on with them; against both of them doing all.

    python examples/separate_prefill.py

Long prompts hold up the decodes that they are batched with. Where prompts have an engine of their own, the time between
two tokens hardly varies; what it costs is the way of the KV cache, and a GPU that may have nothing to do.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from orchestrator import RunSpec, Simulation

PLANS: dict[str, dict[str, Any]] = {
    "both do all": {"instances": 2},
    "whole": {"engines": [{"role": "prefill"}, {"role": "decode"}]},
    "layerwise": {"engines": [{"role": "prefill"}, {"role": "decode"}], "kv_transfer": "layerwise"},
}


LONG_PROMPTS = {"request_rate": 8, "req_num": 150, "input_mean": 1290, "input_cv": 1.2, "input_max": 8192}
"""Prompts eight times as long as those of chats."""


def main() -> None:
    """Print a line a plan."""
    print("                 TTFT P99      ITL P99     KV cache moved")
    for name, plan in PLANS.items():
        spec = RunSpec.of(hardware="H100", scheduling="vllm", **LONG_PROMPTS, **plan)
        summary = Simulation(spec).run().summary
        assert summary.ttft_ms is not None and summary.itl_ms is not None
        moved = f"{summary.transfers.bytes / 1e9:.1f} GB" if summary.transfers is not None else "none"
        print(f"{name:12} {summary.ttft_ms['p99']:9.1f} ms {summary.itl_ms['p99']:9.1f} ms {moved:>15}")


if __name__ == "__main__":
    main()
