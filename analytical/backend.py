"""The embedded backend: simulates execution graphs in this process, giving ASTRA-sim's cycles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analytical.chain_run import ChainEvaluator, NotAChainError
from analytical.chains import ChainPlan, plan_chains
from analytical.collective_solver import CollectiveSolver
from analytical.configuration import NetworkConfig, RemoteMemoryConfig, SystemConfig
from analytical.custom import read_per_node
from analytical.network import check_aware
from analytical.phases import AmbiguousOrderError
from analytical.plan_cache import StructureCache
from analytical.program import Program, Task, compile_graph
from analytical.simulator import Configuration, Models, Options, Simulation
from analytical.validation import check_graph
from converters.execution_graph import ExecutionGraph, IterationResult
from foundation.errors import SimulationError, UserError, near_names

OPTION_NAMES = ("congestion", "num_queues_per_dim", "injection_scale", "rendezvous_protocol")


class EmbeddedBackend:
    """Simulates graphs for one configuration.

    Graphs of chains are evaluated without an event queue (`chains`), others event by event with whole phases solved at
    once (`solved`), and message by message where the order of events could decide something that this cannot know.
    All three give the same answers.
    """

    def __init__(self, configuration: Configuration) -> None:
        if configuration.options.aware:
            check_aware(configuration.network)
        self.configuration = configuration
        self._models = Models(configuration)
        self._chains = ChainEvaluator(configuration, self._models.delays)
        self._plans = StructureCache(self._plan)

    def simulate(self, graph: ExecutionGraph) -> IterationResult:
        """Return the finish time and exposed communication of every rank, in ns, for each of the graph's steps.

        The columns of a graph that `plan_cache.STRUCTURE` names are not to be changed in place between calls.
        Raises `SimulationError` naming rank and node where ASTRA-sim stops, hangs, crashes or answers nonsense.
        """
        planned = self._plans.get(graph)
        if planned is not None:
            try:
                return self._chains.evaluate(planned.plan, graph, planned.solver)
            except (NotAChainError, SimulationError):
                pass  # the event queue knows better, or says where it is stuck
        return self._simulate_events(graph)

    def run_step(self, graph: ExecutionGraph, step: int = 0, *, solve: bool | None = None) -> Simulation:
        """Simulate one step with an event queue and return the simulation, for timelines and statistics.

        `solve`: solve whole phases at once, or run message by message; None tries the first and falls back.
        """
        configuration = self.configuration
        check_graph(graph, configuration.network, configuration.system, configuration.memory)
        return self._run(_ranks(graph, configuration.system), graph, step, solve)

    def close(self) -> None:
        """Nothing to release."""

    def _plan(self, graph: ExecutionGraph) -> _Planned | None:
        configuration = self.configuration
        check_graph(graph, configuration.network, configuration.system, configuration.memory)
        plan = plan_chains(graph, configuration)
        return None if plan is None else _Planned(plan, CollectiveSolver(self._models, graph.groups))

    def _simulate_events(self, graph: ExecutionGraph) -> IterationResult:
        configuration = self.configuration
        check_graph(graph, configuration.network, configuration.system, configuration.memory)
        programs = _ranks(graph, configuration.system)
        finish = np.empty((graph.steps, len(programs)), dtype=np.int64)
        exposed = np.empty((graph.steps, len(programs)), dtype=np.int64)
        for step in range(graph.steps):
            for rank, workload in enumerate(self._run(programs, graph, step, None).workloads):
                assert workload.finished_ns is not None
                finish[step, rank] = workload.finished_ns
                exposed[step, rank] = workload.finished_ns - workload.gpu_ns
        return IterationResult(tuple((rank,) for rank in range(len(programs))), finish, exposed)

    def _run(self, programs: list[Program], graph: ExecutionGraph, step: int, solve: bool | None) -> Simulation:
        values = {id(program): (program.runtime[step].tolist(), program.size[step].tolist()) for program in programs}
        ranks = [(program, *values[id(program)]) for program in programs]
        shared = self.configuration.memory.memory_type in ("MEMORY_POOL", "PER_NODE_MEMORY_EXPANSION")
        ordered = shared and any(Task.MEMORY in program.task for program in programs)
        if solve or (solve is None and self.configuration.solvable and not ordered):
            simulation = Simulation(self._models, ranks, graph.groups, solve=True)
            try:
                simulation.run()
                return simulation
            except (AmbiguousOrderError, SimulationError):
                if solve:
                    raise
        simulation = Simulation(self._models, ranks, graph.groups, solve=False)
        simulation.run()
        return simulation


@dataclass(frozen=True, slots=True)
class _Planned:
    plan: ChainPlan
    solver: CollectiveSolver


def _ranks(graph: ExecutionGraph, system: SystemConfig) -> list[Program]:
    """Return every rank's program, by rank; equal ranks share one."""
    programs: dict[int, Program] = {}
    for rank_graph in graph.rank_graphs:
        program = compile_graph(rank_graph, system)
        programs.update(dict.fromkeys(rank_graph.ranks, program))
    return [programs[rank] for rank in sorted(programs)]


def create(*, network: str, system: str, memory: str, options: dict[str, str]) -> EmbeddedBackend:
    """Return a backend for the text of the three configuration files.

    `options`: ``congestion`` (unaware, aware), ``num_queues_per_dim``, ``injection_scale``, ``rendezvous_protocol``
    (true, false). Raises `UserError`.
    """
    parsed = SystemConfig.from_text(system, "system configuration")
    return EmbeddedBackend(
        Configuration(
            NetworkConfig.from_text(network, "network configuration"),
            parsed,
            RemoteMemoryConfig.from_text(memory, "memory configuration"),
            parse_options(options),
            read_per_node(parsed),
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
