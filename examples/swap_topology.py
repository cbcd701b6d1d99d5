"""Swap the topology under one serving run and see what it does to the time between tokens.

    python examples/swap_topology.py

Four NPUs share every layer (tensor parallel), so each layer ends in all-reduces: the network decides how long they
take. The three files differ in nothing but the topology.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from orchestrator import RunSpec, Simulation  # noqa: E402


def median_tpot_ms(network: Path) -> float:
    """Run ten requests on `network` and return the median time per output token, in ms."""
    summary = Simulation(RunSpec.of(npu_num=4, req_num=10, network=str(network))).run().summary
    assert summary.tpot_ms is not None
    return summary.tpot_ms["p50"]


def main() -> None:
    """Print one line a topology."""
    for name in ("fully-connected-4", "ring-4", "switch-4"):
        tpot = median_tpot_ms(ROOT / "configs" / "networks" / f"{name}.yml")
        print(f"{name:18} median TPOT {tpot:7.3f} ms")


if __name__ == "__main__":
    main()
