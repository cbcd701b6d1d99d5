"""Running a graph with an event queue, step by step: whole phases at once where that is exact, else every message."""

from __future__ import annotations

import numpy as np

from analytical.collectives.models import Models
from analytical.collectives.phases import AmbiguousOrderError
from analytical.events.program import Program, Task, compact, compile_graph
from analytical.events.simulation import Simulation
from analytical.machine.messages import WRAPPING_GROUPS
from analytical.machine.validation import check_graph
from astra_files.system import SystemConfig
from converters.execution_graph import ExecutionGraph, IterationResult
from foundation.errors import SimulationError


class EventRunner:
    """Runs graphs on one machine."""

    def __init__(self, models: Models) -> None:
        self.machine = models.machine
        self.models = models

    def simulate(self, graph: ExecutionGraph) -> IterationResult:
        """Return the finish time and exposed communication of every rank and step, in ns. Raises `SimulationError`."""
        self._check(graph)
        programs = _ranks(graph, self.machine.system)
        finish = np.empty((graph.steps, len(programs)), dtype=np.int64)
        exposed = np.empty((graph.steps, len(programs)), dtype=np.int64)
        for step in range(graph.steps):
            for rank, run in enumerate(self._run(programs, graph, step, None).rank_runs):
                assert run.finished_ns is not None
                finish[step, rank] = run.finished_ns
                exposed[step, rank] = run.finished_ns - run.gpu_ns
        return IterationResult(tuple((rank,) for rank in range(len(programs))), finish, exposed)

    def run_step(self, graph: ExecutionGraph, step: int = 0, *, solve: bool | None = None) -> Simulation:
        """Simulate one step and return the finished simulation, for timelines and statistics.

        `solve`: solve whole phases at once (`AmbiguousOrderError` where that does not know the order of two events),
        or run message by message; None tries the first and falls back on the second.
        """
        self._check(graph)
        return self._run(_ranks(graph, self.machine.system), graph, step, solve)

    def _check(self, graph: ExecutionGraph) -> None:
        machine = self.machine
        check_graph(graph, machine.network, machine.system, machine.memory)

    def _run(self, programs: list[Program], graph: ExecutionGraph, step: int, solve: bool | None) -> Simulation:
        system = self.machine.system
        distinct = {id(program): program for program in programs}
        values = {
            key: (compact(program.runtime(step, system)), compact(program.size(step)))
            for key, program in distinct.items()
        }
        ranks = [(program, *values[id(program)]) for program in programs]
        if solve or (solve is None and self._solvable(programs, graph)):
            simulation = Simulation(self.models, ranks, graph.groups, solve=True)
            try:
                simulation.run()
                return simulation
            except (AmbiguousOrderError, SimulationError):
                if solve:
                    raise
        simulation = Simulation(self.models, ranks, graph.groups, solve=False)
        simulation.run()
        return simulation

    def _solvable(self, programs: list[Program], graph: ExecutionGraph) -> bool:
        """Whether phases may be solved as a whole: nothing but a rank's own events may depend on the order of ranks.

        A memory that ranks share serves them in the order of their coming, and the tags of very many streams or of
        high groups meet those of others; such graphs run message by message.
        """
        shared = self.machine.memory.memory_type in ("MEMORY_POOL", "PER_NODE_MEMORY_EXPANSION")
        ordered = shared and any(Task.MEMORY in program.task for program in programs)
        return self.machine.solvable and not ordered and max(graph.groups, default=0) < WRAPPING_GROUPS


def _ranks(graph: ExecutionGraph, system: SystemConfig) -> list[Program]:
    """Return every rank's program, by rank; equal ranks share one."""
    programs: dict[int, Program] = {}
    for rank_graph in graph.rank_graphs:
        program = compile_graph(rank_graph, system)
        programs.update(dict.fromkeys(rank_graph.ranks, program))
    return [programs[rank] for rank in sorted(programs)]
