"""Swap the topology under one serving run and see what it does to the time between tokens.

    python examples/swap_topology.py

Four NPUs share every layer (tensor parallel), so each layer ends in all-reduces: the network decides how long they
take. The three files differ in nothing but the topology.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def median_tpot_ms(network: Path, folder: Path) -> float:
    """Run ten requests on `network` and return the median time per output token, in ms."""
    output = folder / f"{network.stem}.csv"
    flags = ["--npu_num", "4", "--req_num", "10", "--network", str(network), "--output", str(output)]
    subprocess.run([sys.executable, str(ROOT / "main.py"), *flags], check=True, stdout=subprocess.DEVNULL)
    summary = json.loads(output.with_name(f"{network.stem}-summary.json").read_text())
    return float(summary["tpot_ms"]["p50"])


def main() -> None:
    """Print one line a topology."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("fully-connected-4", "ring-4", "switch-4"):
            tpot = median_tpot_ms(ROOT / "configs" / "networks" / f"{name}.yml", Path(folder))
            print(f"{name:18} median TPOT {tpot:7.3f} ms")


if __name__ == "__main__":
    main()
