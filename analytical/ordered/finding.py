"""Finding the order of events: one step of a graph run with sets of ranks as actors, each as one rank.

The issue rules are `events.rank_run`'s own. A collective takes what `chains.solver` says, and a message its delay; both
by the first rank of each set, which is exact where ranks stay in step. Where they do not the order may be another; that
is for the check to say (`evaluating.keeps`), which no order escapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

import numpy as np

from analytical.chains.meetings import Meeting
from analytical.chains.message_delays import MessageDelays
from analytical.chains.solver import CollectiveSolver
from analytical.events.rank_run import RankRun
from analytical.machine.event_queue import Action, EventQueue, LocalEvents
from analytical.ordered.structure import Key, Structure
from converters.execution_graph import ExecutionGraph
from foundation.errors import SimulationError
from foundation.records import dataclass


class Kind(Enum):
    """What is settled in an entry of the log."""

    TIMED = 0
    COLLECTIVE = 1
    SEND = 2
    RECEIVE = 3


@dataclass(frozen=True, slots=True)
class Settled:
    """Something whose end is known from what stands before it in the log: (set, row) of every node that it ends."""

    kind: Kind
    nodes: tuple[tuple[int, int], ...]
    sends: tuple[tuple[int, int], ...] = ()
    """A RECV's messages: (set, row) of their SENDs, one a `Sender`."""


Log = list[Settled]


class _LoggedEvents(LocalEvents):
    """The events of one set, which note what runs for a time of its own when it is issued."""

    __slots__ = ("_index", "_log")

    def __init__(self, queue: EventQueue, index: int, log: Log) -> None:
        super().__init__(queue)
        self._index = index
        self._log = log

    def after(self, delay: int, action: Action, argument: Any) -> None:
        """Schedule the end of the node in row `argument`."""
        self._log.append(Settled(Kind.TIMED, ((self._index, argument),)))
        super().after(delay, action, argument)


class OrderFinder:
    """One step of a graph. `runtime` has, by set and row, the ns of nodes that take a time of their own."""

    def __init__(
        self,
        structure: Structure,
        graph: ExecutionGraph,
        runtime: Sequence[Sequence[int]],
        solver: CollectiveSolver,
        delays: MessageDelays,
    ) -> None:
        self._structure = structure
        self._runtime = runtime
        self._solver = solver
        self._delays = delays
        self._queue = EventQueue()
        self._log: Log = []
        self._sizes = [
            one.comm_size[own.program.order].tolist()
            for own, one in zip(structure.sets, graph.rank_graphs, strict=True)
        ]
        self._open: dict[int, dict[int, tuple[int, int]]] = {}
        self._sent: dict[Key, list[tuple[int, int]]] = {}
        self._received: dict[tuple[int, int, int], int] = {}
        self._posted: dict[Key, list[tuple[RankRun, int, int]]] = {}
        self._runs = [
            RankRun(index, own.program, runtime[index], _LoggedEvents(self._queue, index, self._log), self)
            for index, own in enumerate(structure.sets)
        ]

    def find(self) -> Log | None:
        """Return what happened, in an order in which everything stands behind what it depends on; None if it ends.

        None also where something takes 0 ns at t = 0.
        """
        try:
            for run in self._runs:
                run.fire()
            if self._queue.next_time == 0:
                return None
            self._queue.run()
        except SimulationError:
            return None
        return self._log if all(run.finished_ns is not None for run in self._runs) else None

    def issue_memory(self, run: RankRun, row: int) -> None:
        """Start a memory transaction, which takes a time of its own here."""
        run.events.after(self._runtime[run.rank][row], run.complete, row)

    def issue_collective(self, run: RankRun, row: int) -> None:
        """Enter a collective; the last set to enter settles it."""
        meeting = self._structure.sets[run.rank].meetings[row]
        entered = self._open.setdefault(id(meeting), {})
        entered[run.rank] = (row, self._queue.now)
        if len(entered) == len(meeting.sets):
            del self._open[id(meeting)]
            self._settle(meeting, entered)

    def issue_send(self, run: RankRun, row: int) -> None:
        """Send a message, and settle the receives that wait for it."""
        index = run.rank
        key = self._structure.sets[index].sends[row]
        delay = self._delays.get(run.program.graph.ranks[0], key[2], self._sizes[index][row])
        self._log.append(Settled(Kind.SEND, ((index, row),)))
        arrival = self._queue.now + delay
        self._queue.schedule(arrival, run.complete, row)
        self._sent.setdefault(key, []).append((row, arrival))
        for waiting in self._posted.pop(key, []):
            self._receive(*waiting)

    def issue_receive(self, run: RankRun, row: int) -> None:
        """Post a receive: the n-th of its kind is for the n-th message."""
        sender = self._structure.sets[run.rank].receives[row][0]
        kind = (run.rank, *sender.key[1:])
        number = self._received.get(kind, 0)
        self._received[kind] = number + 1
        self._receive(run, row, number)

    def finished(self, run: RankRun) -> None:
        """A set has ended: nothing to note."""

    def _settle(self, meeting: Meeting, entered: dict[int, tuple[int, int]]) -> None:
        sizes = {self._sizes[index][row] for index, (row, _) in entered.items()}
        if len(sizes) > 1:
            raise SimulationError("the members of a collective disagree on its bytes")
        self._log.append(Settled(Kind.COLLECTIVE, tuple((index, entered[index][0]) for index in meeting.sets)))
        for index, time in self._exits(meeting, sizes.pop(), {index: time for index, (_, time) in entered.items()}):
            self._queue.schedule(max(time, self._queue.now), self._runs[index].complete, entered[index][0])

    def _exits(self, meeting: Meeting, size: int, entries: dict[int, int]) -> Iterator[tuple[int, int]]:
        """Yield when each set leaves a collective."""
        duration, _ = meeting.duration(size, self._solver)
        if duration >= 0 and len(set(entries.values())) == 1:
            yield from ((index, time + duration) for index, time in entries.items())
            return
        exits = meeting.exits(size, {index: np.array([[time]]) for index, time in entries.items()}, self._solver)
        yield from ((index, int(exits[index][0, 0])) for index in meeting.sets)

    def _receive(self, run: RankRun, row: int, number: int) -> None:
        """Settle a receive if all its messages are on their way; else note which one it waits for."""
        senders = self._structure.sets[run.rank].receives[row]
        for sender in senders:
            if len(self._sent.get(sender.key, ())) <= number:
                self._posted.setdefault(sender.key, []).append((run, row, number))
                return
        messages = [self._sent[sender.key][number] for sender in senders]
        sends = tuple((sender.key[0], sent) for sender, (sent, _) in zip(senders, messages, strict=True))
        self._log.append(Settled(Kind.RECEIVE, ((run.rank, row),), sends))
        self._queue.schedule(max(self._queue.now, messages[0][1]), run.complete, row)
