"""Graphs run with actors: the sets of a graph if they stay in step, else every rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analytical.actors.collectives import NotActorsError
from analytical.actors.run import ActorRun
from analytical.actors.simulation import Actor, ActorSimulation
from analytical.chains.solver import CollectiveSolver
from analytical.chains.volume import CollectiveVolume
from analytical.collectives.models import Models
from analytical.events.program import Program, Task, compile_graph
from analytical.machine.messages import WRAPPING_GROUPS
from converters.execution_graph import ExecutionGraph, IterationResult, RankGraph
from foundation.errors import SimulationError
from foundation.records import dataclass


@dataclass(frozen=True, slots=True)
class Acted:
    """A finished step: the run of each set of ranks, and the collectives that they held."""

    runs: list[tuple[tuple[int, ...], ActorRun]]
    simulation: ActorSimulation


class ActorRunner:
    """Runs the steps of one checked graph."""

    def __init__(self, models: Models, graph: ExecutionGraph) -> None:
        self._models = models
        self._graph = graph
        self._solver = CollectiveSolver(models, graph.groups)
        self._programs: dict[int, Program] = {}

    def run(self, step: int) -> Acted | None:
        """Return a step's run, or None if it is not for this way."""
        if not self._possible():
            return None
        sets = self._graph.rank_graphs
        found = self._run(step, self._graph, sets)
        if found is None and len(sets) < self._graph.num_ranks:
            apart = [(replace(one, ranks=(rank,)), one) for one in sets for rank in one.ranks]
            ranks = ExecutionGraph([single for single, _ in apart], self._graph.groups)
            found = self._run(step, ranks, [one for _, one in apart])
        return found

    def simulate(self) -> IterationResult | None:
        """Return the result of every rank and step, in ns; None if one step is not for this way."""
        graph = self._graph
        finish, exposed = (np.empty((graph.steps, graph.num_ranks), dtype=np.int64) for _ in range(2))
        for step in range(graph.steps):
            acted = self.run(step)
            if acted is None:
                return None
            for ranks, run in acted.runs:
                assert run.finished_ns is not None  # a step that has not ended is none that was acted
                finish[step, ranks] = run.finished_ns
                exposed[step, ranks] = run.finished_ns - run.gpu_ns
        return IterationResult(tuple((rank,) for rank in range(graph.num_ranks)), finish, exposed)

    def volume(self, acted: Acted) -> list[int] | None:
        """Return the bytes sent over each dimension of the network; None where only running every phase tells."""
        collectives, counted = acted.simulation.collectives, CollectiveVolume(self._models, self._solver)
        total = [0] * len(self._models.delays.counts)
        for (meeting, size), times in collectives.held.items():
            sent = counted.of(collectives.meetings[meeting], size)
            if sent is None:
                return None
            total = [before + times * more for before, more in zip(total, sent, strict=True)]
        return total

    def _possible(self) -> bool:
        machine, groups = self._models.machine, self._graph.groups
        if not (machine.chainable and machine.solvable) or max(groups, default=0) >= WRAPPING_GROUPS:
            return False
        tasks = set().union(*(self._program(one).task for one in self._graph.rank_graphs))
        shared = Task.MEMORY in tasks and machine.memory.memory_type != "PER_NPU_MEMORY_EXPANSION"
        return not (shared or tasks & {Task.SEND, Task.RECEIVE})

    def _run(self, step: int, graph: ExecutionGraph, like: list[RankGraph]) -> Acted | None:
        """Run `graph`, each of whose sets does what one in `like` does."""
        try:
            actors = {id(one): self._actor(one, step) for one in like}
            simulation = ActorSimulation(self._models, graph, [actors[id(one)] for one in like], self._solver)
            simulation.run()
        except (NotActorsError, SimulationError):
            return None
        ranks = [one.ranks for one in graph.rank_graphs]
        return Acted(list(zip(ranks, simulation.runs, strict=True)), simulation)

    def _actor(self, one: RankGraph, step: int) -> Actor:
        return Actor.of(self._program(one), step, self._models.machine)

    def _program(self, one: RankGraph) -> Program:
        found = self._programs.get(id(one))
        if found is None:
            found = self._programs[id(one)] = compile_graph(one, self._models.machine.system)
        return found
