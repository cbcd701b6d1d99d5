"""What ``python -m analytical`` does: read the files, simulate, print what ASTRA-sim prints and what it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from analytical.collectives.models import Models
from analytical.command_line import TRUE, Command
from analytical.events.runner import EventRunner
from analytical.machine.description import Machine
from analytical.machine.options import Options
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
from foundation.recent import Recent

NODES_WORTH_IT = 200_000
"""From so many nodes on all ranks together, chains are evaluated as such unless a timeline is asked for."""

MESSAGES_WORTH_IT = 300_000
"""Up to about so many messages a run goes message by message, which also knows the order of ranks that tie."""

MACHINES_KEPT = 4
"""So many machines' solved phases are kept for further runs."""


class Simulator:
    """Runs command lines, one or many; runs on one machine share the phases of collectives solved so far."""

    def __init__(self) -> None:
        self._models: Recent[Models] = Recent(MACHINES_KEPT)

    def run(self, command: Command, out: TextIO) -> None:
        """Simulate the files that `command` names and print the results to `out`. Raises `OrreryError`."""
        machine = read_machine(command)
        groups = command.files.comm_group_configuration
        prefix = command.files.workload_configuration
        assert prefix is not None
        graph = read_graph(prefix, machine.network.npus, None if "empty" in groups else groups)
        if machine.options.skip_metadata:
            graph = without_metadata(graph)
        models = self._models.get(repr(machine), lambda: Models(machine))
        for line in _lines(models, graph, command):
            out.write(line + "\n")


def read_machine(command: Command) -> Machine:
    """Read what is simulated on: the three files, and what the flags say beside them. Raises `UserError`."""
    files, model = command.files, command.model
    network, system, memory = files.network_configuration, files.system_configuration, files.remote_memory_configuration
    assert network is not None and system is not None and memory is not None
    options = Options(
        aware=model.congestion == "aware",
        num_queues_per_dim=model.num_queues_per_dim,
        injection_scale=model.injection_scale,
        rendezvous_protocol=model.rendezvous_protocol in TRUE,
        skip_metadata=model.metadata == "skip",
    )
    settings = SystemConfig.from_file(system)
    return Machine(
        NetworkConfig.from_file(network),
        settings,
        RemoteMemoryConfig.from_file(memory),
        options,
        read_per_node(settings),
    )


def _lines(models: Models, graph: ExecutionGraph, command: Command) -> Iterator[str]:
    nodes = sum(len(one.ranks) * one.nodes for one in graph.rank_graphs)
    path = command.output.timeline
    lines = _by_chains(models, graph) if nodes > NODES_WORTH_IT and not path else None
    if lines is not None:
        return lines
    many = _messages(graph, models.machine.system) > MESSAGES_WORTH_IT
    lines = _by_actors(models, graph) if many and not path else None
    if lines is not None:
        return lines
    simulation = EventRunner(models).run_step(graph, solve=None if many else False)
    if path:
        write_timeline(path, len(simulation.rank_runs), timeline(simulation))
    return report(simulation)


def _by_chains(models: Models, graph: ExecutionGraph) -> Iterator[str] | None:
    """Return the report of a large graph of chains, without an event for every node of every rank."""
    from analytical.output.chain_report import report_chains

    return report_chains(models, graph)


def _by_actors(models: Models, graph: ExecutionGraph) -> Iterator[str] | None:
    """Return the report of a graph of many messages, without an event for every phase of every rank."""
    from analytical.output.actor_report import report_actors

    return report_actors(models, graph)


def _messages(graph: ExecutionGraph, system: SystemConfig) -> int:
    """Return about how many messages a run takes."""
    total, num_ranks = 0, graph.num_ranks
    for one in graph.rank_graphs:
        groups = one.comm_group[one.node_type == NodeType.COMM_COLL].tolist()
        members = sum(len(graph.groups.get(group, ())) or num_ranks for group in groups)
        total += len(one.ranks) * (one.nodes + 2 * members * max(system.preferred_dataset_splits, 1))
    return total
