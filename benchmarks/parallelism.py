"""One iteration of large deployments, in fresh processes: its graphs made and simulated on the embedded backend.

    python -m benchmarks.parallelism [--repeat N]

Each row is the best of N processes: seconds of the process by the clock and of a processor, of which by the clock those
of the iteration (trace, graphs of all ranks, simulation) and of an iteration like it that follows, and the most memory
that the process had. The aims, of an idle machine, stand beside them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import Any

DEVICE, LINK = "H100", {"link_bw": 419.1, "link_latency": 1000.0, "remote_bw": 64}
REQUESTS = 32
"""Decodes of each data-parallel member, on 100 to 4,000 tokens, beside one chunk of a prompt where there are chunks."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model on a mesh of `degrees`; `chunk`: tokens of a prompt's chunk beside the decodes."""

    model: str
    degrees: dict[str, int]
    chunk: int = 0
    aim: str = ""


CASES = {
    "Llama-3.1-405B, TP 8 x PP 16": Case("Llama-3.1-405B", {"tensor": 8, "pipeline": 16}, aim="under 1 s and 1 GiB"),
    "the same with a chunk of 2,048": Case(
        "Llama-3.1-405B", {"tensor": 8, "pipeline": 16}, 2048, "under 1 s and 1 GiB"
    ),
    "DeepSeek-V3, DP 32 x EP 32": Case("DeepSeek-V3", {"data": 32, "expert": 32}, aim="under 2 s"),
    "the same with chunks of 2,048": Case("DeepSeek-V3", {"data": 32, "expert": 32}, 2048, "under 2 s"),
    "Llama-3.1-405B, TP 8 x CP 4 x PP 4, a ring": Case(
        "Llama-3.1-405B", {"tensor": 8, "context": 4, "pipeline": 4}, 8192
    ),
}


def iterate(name: str) -> dict[str, float]:
    """Simulate one iteration of a case, and one like it; return the seconds of each and the peak MiB."""
    import resource

    import numpy as np

    from analytical.embedded import create
    from converters.lowering import Lowering
    from orchestrator.configurations import effective_configurations
    from orchestrator.settings.engine import ModelSettings, NetworkSettings, ParallelismSettings
    from trace_gen.batch_shape import BatchShape
    from trace_gen.generator import TraceGenerator
    from trace_gen.hardware import load_hardware
    from trace_gen.mesh import Mesh
    from trace_gen.models import load_model
    from trace_gen.perf_model import PerfModelOptions, make_perf_model

    case = CASES[name]
    model, hardware, mesh = load_model(case.model), load_hardware(DEVICE), Mesh(**case.degrees)
    shared = ParallelismSettings(npu_num=mesh.ranks, npu_group=mesh.pipeline, cp_size=mesh.context)
    chosen = ModelSettings(model_name=case.model).decided(hardware.memory_bandwidth)
    files = effective_configurations(chosen, shared, NetworkSettings(**LINK), hardware, backend_decides=False)
    latencies = make_perf_model("roofline", PerfModelOptions(model, hardware, mesh.tensor))
    generator, lowering = TraceGenerator(model, mesh, latencies), Lowering(network_dims=files.network.npus_count)
    network, system, memory = files.texts().values()
    backend = create(network=network, system=system, memory=memory, options={})

    def member(number: int, step: int) -> BatchShape:
        new = np.array([1] * REQUESTS + [case.chunk] * (case.chunk > 0), dtype=np.int64)
        context = np.random.default_rng(number).integers(100, 4000, new.size) + step
        return BatchShape(np.arange(new.size) + 1000 * number, new, context, np.ones(new.size, dtype=np.int64))

    seconds = []
    for step in range(2):
        begin = perf_counter()
        backend.simulate(lowering.lower(generator.generate([member(one, step) for one in range(mesh.data)])))
        seconds.append(perf_counter() - begin)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "first": seconds[0],
        "next": seconds[1],
        "mib": used.ru_maxrss / 1024,
        "processor": used.ru_utime + used.ru_stime,
    }


def measured(name: str) -> dict[str, float]:
    """Run a case in a process of its own; `whole` is the seconds that the process took."""
    begin = perf_counter()
    command = [sys.executable, "-m", "benchmarks.parallelism", "--case", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "whole": perf_counter() - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="processes for each case (%(default)s)")
    parser.add_argument("--case", choices=CASES, help="one case, in this process, told as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(iterate(arguments.case)))
        return
    for name, case in CASES.items():
        best = min((measured(name) for _ in range(arguments.repeat)), key=lambda found: found["whole"])
        print(
            f"{name:44s} {best['whole']:5.2f} s ({best['processor']:.2f} of a processor), of which "
            f"{best['first']:.3f}, the next {best['next']:.3f}; "
            f"{best['mib']:4.0f} MiB   {case.aim}",
            flush=True,
        )


if __name__ == "__main__":
    main()
