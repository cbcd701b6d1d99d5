"""The lines that ``python -m analytical`` prints: ASTRA-sim's, and what the network's dimensions carried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from analytical.actors.run import ActorRun
from analytical.events.rank_run import RankRun
from analytical.events.simulation import Simulation
from analytical.output.statistics import RankStatistics, rank_statistics
from astra_files.network import NetworkConfig
from astra_files.system import SystemConfig


def report(simulation: Simulation) -> Iterator[str]:
    """Yield the lines of a finished simulation: ranks as they finish, then the network's dimensions."""
    machine = simulation.machine
    for run in simulation.finish_order:
        finished = run.finished_ns
        assert finished is not None  # the order is that in which they finished
        statistics = run_statistics(run, machine.system)
        yield from rank_lines(run.rank, finished, finished - run.gpu_ns, statistics)
    wall = max(run.finished_ns or 0 for run in simulation.rank_runs)
    yield from network_lines(machine.network, simulation.transport.volume, wall)


def rank_lines(rank: int, finished: int, exposed: int, statistics: RankStatistics) -> Iterator[str]:
    """Yield one rank's lines. Times in ns."""
    # Replayed nodes of all slots count as GPU time, which can exceed the cycles: ASTRA-sim prints 64 bits unsigned.
    unsigned = exposed % 2**64
    yield f"[workload] [info] sys[{rank}] finished, {finished} cycles, exposed communication {unsigned} cycles."
    for line in statistics.lines():
        yield f"[statistics] [info] sys[{rank}], {line}"


def network_lines(network: NetworkConfig, volume: Sequence[int], wall: int) -> Iterator[str]:
    """Yield, a dimension, the bytes sent over it and their share of what its NPUs could have sent in `wall` ns."""
    if network.npus == 1:
        return
    rows = zip(network.topology, network.npus_count, network.bytes_per_ns, volume, strict=True)
    for dim, (topology, count, bytes_per_ns, sent) in enumerate(rows):
        share = sent / (bytes_per_ns * network.npus * wall) if wall else 0.0
        yield (
            f"[network] [info] dimension {dim} ({topology}, {count} NPUs): {sent} bytes sent, "
            f"utilisation {share * 100:.3f}%"
        )


def run_statistics(run: RankRun | ActorRun, system: SystemConfig) -> RankStatistics:
    """Return the statistics of a finished run."""
    start = np.frombuffer(run.start, dtype=np.int64)
    end = np.frombuffer(run.end, dtype=np.int64)
    return rank_statistics(run.program, 0, start, end, system)
