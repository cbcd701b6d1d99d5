"""What ``python -m analytical`` does: read the files, simulate, print what ASTRA-sim prints and what it lacks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TextIO

from analytical.collectives.models import Models
from analytical.events.runner import EventRunner
from analytical.machine.description import Machine
from analytical.machine.options import OPTION_NAMES, parse_options
from analytical.output.report import report
from analytical.output.timeline import timeline
from astra_files.memory import RemoteMemoryConfig
from astra_files.network import NetworkConfig
from astra_files.per_node import read_per_node
from astra_files.system import SystemConfig
from converters.chakra import read_graph
from converters.execution_graph import ExecutionGraph, NodeType
from converters.metadata import without_metadata
from converters.trace_events import write_timeline

NODES_WORTH_IT = 200_000
"""From so many nodes on all ranks together, chains are evaluated as such unless a timeline is asked for."""

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
    if options.skip_metadata:
        graph = without_metadata(graph)
    models = Models(Machine(network, system, memory, options, read_per_node(system)))
    nodes = sum(len(one.ranks) * one.nodes for one in graph.rank_graphs)
    lines = _by_chains(models, graph) if nodes > NODES_WORTH_IT and not arguments.timeline else None
    if lines is None:
        solve = False if _messages(graph, system) <= MESSAGES_WORTH_IT else None
        simulation = EventRunner(models).run_step(graph, solve=solve)
        lines = report(simulation)
        if arguments.timeline:
            write_timeline(arguments.timeline, len(simulation.rank_runs), timeline(simulation))
    for line in lines:
        out.write(line + "\n")


def _by_chains(models: Models, graph: ExecutionGraph) -> Iterator[str] | None:
    """Return the report of a large graph of chains, without an event for every node of every rank."""
    from analytical.output.chain_report import report_chains

    return report_chains(models, graph)


def _messages(graph: ExecutionGraph, system: SystemConfig) -> int:
    """Return about how many messages a run takes."""
    total = 0
    for one in graph.rank_graphs:
        groups = one.comm_group[one.node_type == NodeType.COMM_COLL].tolist()
        members = sum(len(graph.groups.get(group, ())) or graph.num_ranks for group in groups)
        total += len(one.ranks) * (one.nodes + 2 * members * max(system.preferred_dataset_splits, 1))
    return total
