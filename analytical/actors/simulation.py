"""One step by events, with sets of like ranks as actors and collectives solved as a whole.

An NPU holds one communication at a time, so a collective takes what it takes on idle NPUs, and of one rank the others
see no more than when it enters. What is left are the nodes, run by `events.rank_run` itself: once for all ranks of a
set, as long as they stay in step. Where the order of two events of a rank could decide something that is not known
here, where a set falls out of step, and where the run would end in an error, `NotActorsError` is raised: the step is
for the simulation of every rank and phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analytical.actors.collectives import Collectives, NotActorsError
from analytical.chains.solver import CollectiveSolver
from analytical.collectives.models import Models
from analytical.events.program import Program
from analytical.events.rank_run import RankRun
from analytical.events.simulation import check_ending
from analytical.machine.event_queue import Action, EventQueue, LocalEvents
from analytical.machine.remote_memory import RemoteMemory
from converters.execution_graph import ExecutionGraph
from foundation.errors import SimulationError
from foundation.records import dataclass

ENDS_KEPT = 64
"""So many announced ends an actor keeps before it drops those that are past."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Ranks that run one program in step; by row the ns that nodes run for and the bytes that they load or store."""

    program: Program
    runtime: Sequence[int]
    sizes: Sequence[int]


class _WatchedEvents(LocalEvents):
    """The events of one actor, watching for others that would tie with the end of a collective."""

    __slots__ = ("_ends",)

    def __init__(self, queue: EventQueue) -> None:
        super().__init__(queue)
        self._ends: dict[int, int | None] = {}

    def after(self, delay: int, action: Action, argument: Any) -> None:
        """Schedule an ordinary event."""
        now = self.queue.now
        time = now + delay
        if time in self._ends and self._ends[time] in (None, now):
            raise NotActorsError
        self._add(time, action, argument)

    def expect(self, end: int, scheduled: int | None) -> None:
        """Announce the end of a collective, and when it will be scheduled; None where no other event may tie."""
        now = self.queue.now
        if end in self._ticks if scheduled is None else scheduled <= now:
            raise NotActorsError  # what is there already may have come before or not
        if len(self._ends) > ENDS_KEPT:
            self._ends = {time: known for time, known in self._ends.items() if time >= now}
        self._ends[end] = scheduled

    def end(self, delay: int, action: Action, argument: Any) -> None:
        """Schedule an announced end."""
        self._add(self.queue.now + delay, action, argument)


class ActorSimulation:
    """One step of a graph, whose rank graphs are the `actors`. `runs` are theirs, `finished` once `run` has ended."""

    def __init__(
        self, models: Models, graph: ExecutionGraph, actors: Sequence[Actor], solver: CollectiveSolver
    ) -> None:
        machine = models.machine
        self.collectives = Collectives(graph, machine.network.npus_count, solver)
        self._queue = EventQueue()
        self._actors = actors
        self._memory = RemoteMemory(machine.memory)
        self._events = [_WatchedEvents(self._queue) for _ in actors]
        self.runs = [
            RankRun(index, actor.program, actor.runtime, self._events[index], self)
            for index, actor in enumerate(actors)
        ]

    def run(self) -> None:
        """Run to the end. Raises `NotActorsError`."""
        try:
            for run in self.runs:
                run.fire()
            if self._queue.next_time == 0:
                raise NotActorsError
            self._queue.run()
            for run in self.runs:
                if run.finished_ns is None:
                    raise NotActorsError
                check_ending(run)
        except SimulationError:
            raise NotActorsError from None

    def issue_memory(self, run: RankRun, row: int) -> None:
        """Start a memory transaction; no other rank waits for it."""
        self._memory.issue(run.rank, run.events, self._actors[run.rank].sizes[row], run.complete, row)

    def issue_send(self, run: RankRun, row: int) -> None:
        """Refuse a message: what it meets depends on more than its own rank's order."""
        raise NotActorsError

    def issue_receive(self, run: RankRun, row: int) -> None:
        """Refuse a message."""
        raise NotActorsError

    def issue_collective(self, run: RankRun, row: int) -> None:
        """Enter a collective; when the last actor enters all learn when they leave."""
        settled = self.collectives.enter(run.rank, run.program, row, self._queue.now)
        if settled is None:
            return
        now, last_ns = self._queue.now, settled.last_ns
        for end, leaving in settled.ends.items():
            for actor, _ in leaving:
                self._events[actor].expect(end, end - last_ns if last_ns else None)
            if last_ns:
                self._queue.schedule(end - last_ns, self._leave, (last_ns, leaving))
            else:
                self._leave((end - now, leaving))

    def finished(self, run: RankRun) -> None:
        """Nothing to note: the run knows when it ended."""

    def _leave(self, ending: tuple[int, list[tuple[int, int]]]) -> None:
        """Schedule the end of a collective for those that leave together, so many ns from now."""
        delay, leaving = ending
        for actor, row in leaving:
            self._events[actor].end(delay, self.runs[actor].complete, row)
