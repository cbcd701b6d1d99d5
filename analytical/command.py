"""What ``python -m analytical`` does: read the files, simulate, print what ASTRA-sim prints and what it lacks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TextIO

import numpy as np

from analytical.configuration import NetworkConfig, RemoteMemoryConfig, SystemConfig
from analytical.custom import read_per_node
from analytical.event_run import EventRunner
from analytical.options import OPTION_NAMES, parse_options
from analytical.simulator import Configuration, Models, Simulation
from analytical.statistics import rank_statistics
from analytical.timeline import write_timeline
from analytical.workload import Workload
from converters.chakra import read_graph
from converters.execution_graph import ExecutionGraph, NodeType

MESSAGES_WORTH_IT = 300_000
"""Up to about so many messages a run goes message by message, which also knows the order of ranks that tie."""


def simulate_files(arguments: argparse.Namespace, out: TextIO) -> None:
    """Simulate the files that `arguments` names and print the results to `out`. Raises `OrreryError`."""
    network = NetworkConfig.from_file(arguments.network_configuration)
    system = SystemConfig.from_file(arguments.system_configuration)
    memory = RemoteMemoryConfig.from_file(arguments.remote_memory_configuration)
    options = parse_options({name: getattr(arguments, name) for name in OPTION_NAMES})
    groups = arguments.comm_group_configuration
    graph = read_graph(arguments.workload_configuration, network.npus, None if "empty" in groups else groups)
    runner = EventRunner(Models(Configuration(network, system, memory, options, read_per_node(system))))
    simulation = runner.run_step(graph, solve=False if _messages(graph, system) <= MESSAGES_WORTH_IT else None)
    for line in report(simulation):
        out.write(line + "\n")
    if arguments.timeline:
        write_timeline(simulation, arguments.timeline)


def report(simulation: Simulation) -> Iterator[str]:
    """Yield the lines of a finished simulation: ranks as they finish, then the network's dimensions."""
    for workload in simulation.finish_order:
        yield from _rank_lines(workload, simulation.configuration.system)
    yield from _network_lines(simulation)


def _rank_lines(workload: Workload, system: SystemConfig) -> Iterator[str]:
    finished = workload.finished_ns or 0
    # Replayed nodes of all slots count as GPU time, which can exceed the cycles: ASTRA-sim prints 64 bits unsigned.
    exposed = (finished - workload.gpu_ns) % 2**64
    yield f"[workload] [info] sys[{workload.rank}] finished, {finished} cycles, exposed communication {exposed} cycles."
    start = np.frombuffer(workload.start, dtype=np.int64)
    end = np.frombuffer(workload.end, dtype=np.int64)
    for line in rank_statistics(workload.program, 0, start, end, system).lines():
        yield f"[statistics] [info] sys[{workload.rank}], {line}"


def _network_lines(simulation: Simulation) -> Iterator[str]:
    """Yield, a dimension, the bytes sent over it and their share of what its NPUs could have sent meanwhile."""
    network = simulation.configuration.network
    if network.npus == 1:
        return
    wall = max(workload.finished_ns or 0 for workload in simulation.workloads)
    rows = zip(network.topology, network.npus_count, network.bytes_per_ns, simulation.transport.volume, strict=True)
    for dim, (topology, count, bytes_per_ns, volume) in enumerate(rows):
        share = volume / (bytes_per_ns * network.npus * wall) if wall else 0.0
        yield (
            f"[network] [info] dimension {dim} ({topology}, {count} NPUs): {volume} bytes sent, "
            f"utilisation {share * 100:.3f}%"
        )


def _messages(graph: ExecutionGraph, system: SystemConfig) -> int:
    """Return about how many messages a run takes."""
    total = 0
    for one in graph.rank_graphs:
        groups = one.comm_group[one.node_type == NodeType.COMM_COLL].tolist()
        members = sum(len(graph.groups.get(group, ())) or graph.num_ranks for group in groups)
        total += len(one.ranks) * (one.nodes + 2 * members * max(system.preferred_dataset_splits, 1))
    return total
