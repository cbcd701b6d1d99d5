"""One step with sets of like ranks as actors and collectives solved as a whole.

An NPU holds one communication at a time, so a collective takes what it takes on idle NPUs, and of one rank the others
see no more than when it enters. What is left are the nodes (`run`), once for all ranks of a set as long as they stay in
step. Where the order of two events of a rank could decide something that is not known here, where a set falls out of
step, and where the run would end in an error, `NotActorsError` is raised: the step is for the simulation of every rank
and phase.
"""

from __future__ import annotations

from collections.abc import Sequence

from analytical.actors.collectives import Collectives, NotActorsError
from analytical.actors.run import COLLECTIVE, SKIPPED, ActorRun
from analytical.chains.solver import CollectiveSolver
from analytical.collectives.models import Models
from analytical.events.program import Program, Task
from analytical.events.simulation import check_ending
from analytical.machine.description import Machine
from analytical.machine.remote_memory import transfer_ns
from converters.execution_graph import ExecutionGraph
from foundation.errors import SimulationError
from foundation.records import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """Ranks that run one program in step: by row the ns that nodes take (`run.ActorRun`), and the ns of GPU compute."""

    program: Program
    takes: Sequence[int]
    gpu_ns: int

    @classmethod
    def of(cls, program: Program, step: int, machine: Machine) -> Actor:
        """Return the actor of a program that neither sends nor receives. Raises `SimulationError`."""
        runtime = program.runtime(step, machine.system).tolist()
        takes: list[int] = runtime.copy()
        sizes = program.size(step)
        for row, task in enumerate(program.task):
            if task == Task.COLLECTIVE:
                takes[row] = COLLECTIVE
            elif task == Task.SKIP:
                takes[row] = SKIPPED
            elif task == Task.MEMORY:
                takes[row] = transfer_ns(machine.memory, int(sizes[row]))
        gpu = zip(program.task, program.gpu, runtime, strict=True)
        return cls(program, takes, sum(ns for task, counted, ns in gpu if counted and task == Task.RUN))


class ActorSimulation:
    """One step of a graph, whose rank graphs are the `actors`. `runs` are theirs, finished once `run` has ended."""

    def __init__(
        self, models: Models, graph: ExecutionGraph, actors: Sequence[Actor], solver: CollectiveSolver
    ) -> None:
        self.collectives = Collectives(graph, models.machine.network.npus_count, solver)
        self.runs = [ActorRun(index, actor.program, actor.takes, actor.gpu_ns) for index, actor in enumerate(actors)]
        self._entering: list[tuple[int, int]] = []

    def run(self) -> None:
        """Run to the end. Raises `NotActorsError`."""
        try:
            for run in self.runs:
                self._note(run, run.begin())
            while self._entering:
                self._enter(*self._entering.pop())
            for run in self.runs:
                if run.finished_ns is None:
                    raise NotActorsError
                check_ending(run)
        except SimulationError:
            raise NotActorsError from None

    def _enter(self, actor: int, row: int) -> None:
        """Enter a collective; when the last actor has entered all go on to their next."""
        run = self.runs[actor]
        settled = self.collectives.enter(actor, run.program, row, run.now)
        if settled is None:
            return
        for end, leaving in settled.ends.items():
            scheduled = end - settled.last_ns if settled.last_ns else None
            for other, _ in leaving:
                self._note(self.runs[other], self.runs[other].leave(end, scheduled))

    def _note(self, run: ActorRun, row: int | None) -> None:
        if row is not None:
            self._entering.append((run.rank, row))
