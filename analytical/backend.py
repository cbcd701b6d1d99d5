"""The embedded backend: simulates execution graphs in this process, giving ASTRA-sim's cycles."""

from __future__ import annotations

import numpy as np

from analytical.configuration import NetworkConfig, RemoteMemoryConfig, SystemConfig
from analytical.network import check_aware
from analytical.program import Program, compile_graph
from analytical.simulator import Configuration, Models, Options, Simulation
from analytical.validation import check_graph
from converters.execution_graph import ExecutionGraph, IterationResult, RankGraph
from foundation.errors import UserError, near_names

OPTION_NAMES = ("congestion", "num_queues_per_dim", "injection_scale", "rendezvous_protocol")


class EmbeddedBackend:
    """Simulates graphs for one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        if configuration.options.aware:
            check_aware(configuration.network)
        self.configuration = configuration
        self.models = Models(configuration)

    def simulate(self, graph: ExecutionGraph) -> IterationResult:
        """Return every rank's finish time and exposed communication, in ns, for each of the graph's steps.

        Raises `SimulationError` naming rank and node where ASTRA-sim stops, hangs, crashes or answers nonsense.
        """
        configuration = self.configuration
        check_graph(graph, configuration.network, configuration.system, configuration.memory)
        programs = [(compile_graph(rank_graph, configuration.system), rank_graph) for rank_graph in graph.rank_graphs]
        ranks = graph.num_ranks
        finish = np.empty((graph.steps, ranks), dtype=np.int64)
        exposed = np.empty((graph.steps, ranks), dtype=np.int64)
        for step in range(graph.steps):
            simulation = self._simulation(programs, graph, step)
            simulation.run()
            for rank, workload in enumerate(simulation.workloads):
                assert workload.finished_ns is not None
                finish[step, rank] = workload.finished_ns
                exposed[step, rank] = workload.finished_ns - workload.gpu_ns
        return IterationResult(tuple((rank,) for rank in range(ranks)), finish, exposed)

    def close(self) -> None:
        """Nothing to release."""

    def _simulation(
        self, programs: list[tuple[Program, RankGraph]], graph: ExecutionGraph, step: int, solve: bool = False
    ) -> Simulation:
        by_rank: dict[int, tuple[Program, list[int], list[int]]] = {}
        for program, rank_graph in programs:
            runtime = program.runtime[step].tolist()
            size = program.size[step].tolist()
            for rank in rank_graph.ranks:
                by_rank[rank] = (program, runtime, size)
        return Simulation(self.models, [by_rank[rank] for rank in sorted(by_rank)], graph.groups, solve=solve)


def create(*, network: str, system: str, memory: str, options: dict[str, str]) -> EmbeddedBackend:
    """Return a backend for the text of the three configuration files.

    `options`: ``congestion`` (unaware, aware), ``num_queues_per_dim``, ``injection_scale``, ``rendezvous_protocol``
    (true, false). Raises `UserError`.
    """
    return EmbeddedBackend(
        Configuration(
            NetworkConfig.from_text(network, "network configuration"),
            SystemConfig.from_text(system, "system configuration"),
            RemoteMemoryConfig.from_text(memory, "memory configuration"),
            parse_options(options),
        )
    )


def parse_options(options: dict[str, str]) -> Options:
    """Read the backend's options; a `UserError` names what is unknown or out of range."""
    for name in options:
        if name not in OPTION_NAMES:
            raise UserError("unknown option of the embedded backend", field=name, fix=near_names(name, OPTION_NAMES))
    congestion = options.get("congestion", "unaware")
    if congestion not in ("unaware", "aware"):
        raise UserError(f"{congestion!r} is unknown", field="congestion", fix="write unaware or aware")
    return Options(
        aware=congestion == "aware",
        num_queues_per_dim=_queues(options.get("num_queues_per_dim", "1")),
        injection_scale=_scale(options.get("injection_scale", "1")),
        rendezvous_protocol=_flag(options.get("rendezvous_protocol", "false")),
    )


def _queues(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1024:
        raise UserError(f"{text!r} is not a number of queues", field="num_queues_per_dim", fix="write 1..1024")
    return int(text)


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise UserError(f"{text!r} is not a scale", field="injection_scale", fix="write a number of at least 0")
    return value


def _flag(text: str) -> bool:
    words = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
    if text.lower() not in words:
        raise UserError(f"{text!r} is not true or false", field="rendezvous_protocol", fix="write true or false")
    return words[text.lower()]
