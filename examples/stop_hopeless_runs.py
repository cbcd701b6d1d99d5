"""Find the arrival rate that a device can serve, and give up on hopeless runs as soon as they are.

    python examples/stop_hopeless_runs.py

A rate is served if 95 % of the requests see their first token within half a second. An observer looks at requests as
they finish; once too many were late, nothing can save the run, so it is stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from orchestrator import Observer, RunSpec, Simulation, Stop
from orchestrator.observers.interface import FinishedRows, Run

LATEST_MS = 500.0
SHARE = 0.95
REQUESTS = 200


class Deadline(Observer):
    """Stops a run when more than 5 % of its requests were late."""

    def begin(self, run: Run) -> None:
        """Work out how many may be late."""
        self.allowed = (1 - SHARE) * run.source.count
        self.late = 0

    def finished(self, rows: FinishedRows) -> None:
        """Count the late ones among those that finished."""
        waited = rows.columns["first_token"] - rows.columns["arrival"]
        self.late += int((waited > LATEST_MS * 1e6).sum())
        if self.late > self.allowed:
            raise Stop(f"{self.late} requests were late")


def main() -> None:
    """Print one line a rate."""
    for rate in (1, 2, 3, 4):
        spec = RunSpec.of(request_rate=rate, req_num=REQUESTS, scheduling="vllm", max_num_seqs=24)
        result = Simulation(spec, [Deadline()]).run()
        verdict = "served" if result.complete else f"stopped: {result.stopped}"
        print(f"{rate} requests/s: {result.summary.finished_requests:3} finished, {verdict}")


if __name__ == "__main__":
    main()
