"""Simulate a cluster of 16 engines that differ in device, model, parallelism and network, and compare them.

    python examples/cluster_of_16.py

The cluster is a run file (`cluster_of_16/cluster.yml`, see docs/clusters.md), which the main job takes as well:
`python main.py --settings examples/cluster_of_16/cluster.yml`. Here it is read and simulated, and each engine gets a
row: requests in turn come to engines that are not equally fast.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from orchestrator import Observer, Simulation  # noqa: E402
from orchestrator.observers.interface import Run  # noqa: E402
from orchestrator.result import latencies  # noqa: E402
from orchestrator.settings.specification import from_flags  # noqa: E402

CLUSTER = Path(__file__).with_suffix("") / "cluster.yml"


class Names(Observer):
    """Remembers what each engine is."""

    def begin(self, run: Run) -> None:
        """Take the names of models and systems."""
        self.names = [f"{one.model.name.rpartition('/')[2]} on {one.system()}" for one in run.deployments]


def main() -> None:
    """Print one line an engine."""
    observer = Names()
    result = Simulation(from_flags(["--settings", str(CLUSTER)]), [observer]).run()
    taken = latencies(result.columns)
    print("engine  requests  TTFT ms  TPOT ms")
    for number, name in enumerate(observer.names):
        of_engine = result.columns["engine"] == number
        ttft, tpot = (np.nanmean(taken[column][of_engine]) / 1e6 for column in ("ttft", "tpot"))
        print(f"{number:6}  {of_engine.sum():8}  {ttft:7.3f}  {tpot:7.3f}  {name}")


if __name__ == "__main__":
    main()
