"""What a cluster costs beside its engines alone: CPU time of one run over N engines against N runs of one.

    python -m benchmarks.routing [--requests N] [--engines N] [--router NAME ...] [--repeat N]

Llama-3.1-8B on H100s under vLLM's scheduler: Poisson arrivals, 10 a second for each engine, prompts of N(850, 250) and
answers of N(650, 200) tokens. The aim is at most 1.3 times for 100,000 requests over 16 engines. Every run is a process
of its own; what is compared is the CPU time of `Simulation.run`, imports and reading apart, the best of `--repeat`.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import NormalDist
from tempfile import TemporaryDirectory

from orchestrator.request_table import RequestTable
from orchestrator.requests.request import Request
from orchestrator.requests.writing import write_tables

ROOT = Path(__file__).parents[1]
RATE = 10.0
AIM = 1.3
RUN = """
import sys
from time import process_time
from orchestrator import RunSpec, Simulation
dataset, engines, router = sys.argv[1], int(sys.argv[2]), sys.argv[3]
spec = RunSpec.of(
    model_name="meta-llama/Llama-3.1-8B-Instruct", hardware="H100", scheduling="vllm", dataset=dataset,
    instances=engines, router=router, skip_unfit=True,
    **({"router_weights": ",".join(["1"] * engines)} if router == "weighted" else {}),
)
simulation = Simulation(spec)
began = process_time()
simulation.run()
print(process_time() - began)
"""


def requests(count: int, rate: float, seed: int) -> Iterator[Request]:
    """Yield `count` requests, `rate` a second."""
    draws = Random(f"routing {seed}")
    prompt, answer = NormalDist(850, 250), NormalDist(650, 200)
    now = 0.0
    for number in range(count):
        lengths = [max(1, round(one.inv_cdf(draws.random() or 0.5))) for one in (prompt, answer)]
        yield Request(number, round(now), *lengths)
        now += -math.log(draws.random() or 0.5) / rate * 1e9


def cpu_seconds(dataset: Path, engines: int, router: str, repeat: int) -> float:
    """Return the least CPU time of some runs."""
    words = [sys.executable, "-c", RUN, str(dataset), str(engines), router]
    runs = (subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True) for _ in range(repeat))
    return min(float(run.stdout) for run in runs)


def main() -> None:
    from orchestrator.cluster.router import routers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="of the cluster (%(default)s)")
    parser.add_argument("--engines", type=int, default=16, help="of the cluster (%(default)s)")
    parser.add_argument("--router", nargs="*", default=sorted(routers), help="which ones (all)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each case (%(default)s)")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        alone = 0.0
        for number in range(given.engines):
            one = Path(folder) / f"{number}.tsv"
            write_tables(one, [RequestTable.of(requests(given.requests // given.engines, RATE, number))])
            alone += cpu_seconds(one, 1, "round-robin", given.repeat)
        print(f"{given.engines} runs of {given.requests // given.engines} requests: {alone:.2f} s of CPU", flush=True)
        together = Path(folder) / "all.tsv"
        write_tables(together, [RequestTable.of(requests(given.requests, RATE * given.engines, 0))])
        for router in given.router:
            spent = cpu_seconds(together, given.engines, router, given.repeat)
            print(f"{router:18s} {spent:8.2f} s  x {spent / alone:.2f}  (aim {AIM})", flush=True)


if __name__ == "__main__":
    main()
