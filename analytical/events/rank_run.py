"""The graph of one rank as it runs: which node is issued when.

Source: Workload.cc, HardwareResource.cc. An NPU holds one CPU node, one compute node and one communication (or memory)
node at a time. When the run starts, and after each completion, the nodes that wait for nothing are issued in ascending
id, each if its slot is free; nodes that become ready during such a pass wait for the rank's next event.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

from analytical.events.program import COMMUNICATE, COMPUTE, CPU, FREE, Program, Task
from analytical.machine.event_queue import LocalEvents
from foundation.errors import SimulationError

RUN, COLLECTIVE = int(Task.RUN), int(Task.COLLECTIVE)  # compared for every node, which is slow with members of an enum
UNSET = -1
NO_ROW = 2**62


class Services(Protocol):
    """What a rank's run asks of the rest of the simulation; `row` is what completes later."""

    def issue_memory(self, run: RankRun, row: int) -> None:
        """Start a memory transaction."""

    def issue_send(self, run: RankRun, row: int) -> None:
        """Start a SEND."""

    def issue_receive(self, run: RankRun, row: int) -> None:
        """Post a RECV."""

    def issue_collective(self, run: RankRun, row: int) -> None:
        """Start a collective."""

    def finished(self, run: RankRun) -> None:
        """The rank's last node has ended."""


class RankRun:
    """One rank's run of its program for one step. `start` and `end` hold ns by row, `UNSET` before."""

    __slots__ = (
        "_busy",
        "_children",
        "_fresh",
        "_in_flight",
        "_offsets",
        "_parents",
        "_ready",
        "_runtime",
        "_services",
        "_slot",
        "_task",
        "completed",
        "end",
        "events",
        "finished_ns",
        "gpu_ns",
        "last_row",
        "program",
        "rank",
        "start",
    )

    def __init__(
        self, rank: int, program: Program, runtime: Sequence[int], events: LocalEvents, services: Services
    ) -> None:
        self.rank = rank
        self.program = program
        self.events = events
        self.finished_ns: int | None = None
        self.gpu_ns = 0
        self.completed = 0
        self.last_row: int | None = None
        self.start = array("q", [UNSET]) * program.rows
        self.end = array("q", [UNSET]) * program.rows
        self._services = services
        self._runtime = runtime
        self._parents = array("q", program.parents)
        self._task, self._slot = program.task, program.slot
        self._offsets, self._children = program.child_offsets, program.children
        self._busy = [False, False, False, False]
        self._ready: list[list[int]] = [[], [], [], []]
        self._fresh: list[int] = []
        self._in_flight = 0
        for row in program.roots:
            self._ready[program.slot[row]].append(row)
        for heap in self._ready:
            heapify(heap)

    def fire(self) -> None:
        """Issue what waits for nothing, at the start of the run."""
        self._pass()
        self._check_finished()

    def complete(self, row: int) -> None:
        """A node has ended: free its slot, release its children, issue what can be issued."""
        self.last_row = row
        self._end(row)
        self._release()
        self._pass()
        if not self._in_flight:
            self._check_finished()

    def waiting_rows(self) -> list[int]:
        """Return the rows that were issued and have not ended, oldest first."""
        pending = [row for row in range(self.program.rows) if self.start[row] != UNSET and self.end[row] == UNSET]
        return sorted(pending, key=lambda row: self.start[row])

    def ready_rows(self) -> list[int]:
        """Return the rows that wait for nothing and have not been issued."""
        return sorted(row for heap in self._ready for row in heap)

    def _pass(self) -> None:
        """Issue ready nodes by ascending row. Rows freed on the way (`_fresh`) join only afterwards."""
        ready, busy = self._ready, self._busy
        while True:
            slot, lowest, found = -1, NO_ROW, 0
            for candidate in (COMMUNICATE, COMPUTE, FREE, CPU):
                heap = ready[candidate]
                if heap and not busy[candidate]:
                    found += 1
                    if heap[0] < lowest:
                        slot, lowest = candidate, heap[0]
            if not found:
                break
            heappop(ready[slot])
            self._issue(lowest, slot)
            if found == 1 and busy[slot]:
                break
        self._release()

    def _release(self) -> None:
        """Let the rows that wait for nothing any more join the ready ones."""
        if self._fresh:
            for row in self._fresh:
                heappush(self._ready[self._slot[row]], row)
            self._fresh.clear()

    def _issue(self, row: int, slot: int) -> None:
        self.start[row] = self.events.queue.now
        self._in_flight += 1
        self._busy[slot] = slot != FREE
        task = self._task[row]
        if task == RUN:
            runtime = self._runtime[row]
            if self.program.gpu[row]:
                self.gpu_ns += runtime
            self.events.after(runtime, self.complete, row)
        elif task == COLLECTIVE:
            self._services.issue_collective(self, row)
        elif task == Task.RECEIVE:
            self._services.issue_receive(self, row)
        elif task == Task.SEND:
            self._services.issue_send(self, row)
        elif task == Task.MEMORY:
            self._services.issue_memory(self, row)
        elif task == Task.BROADCAST:
            self.events.after(self._runtime[row], self.complete, row)
        else:
            self._end(row)

    def _end(self, row: int) -> None:
        self._busy[self._slot[row]] = False
        self._in_flight -= 1
        self.end[row] = self.events.queue.now
        self.completed += 1
        parents, offsets = self._parents, self._offsets
        for child in self._children[offsets[row] : offsets[row + 1]]:
            parents[child] -= 1
            if not parents[child]:
                self._fresh.append(child)

    def _check_finished(self) -> None:
        if self._in_flight or any(self._ready):
            return
        if self.completed < self.program.rows:
            left = [row for row in range(self.program.rows) if self.start[row] == UNSET]
            raise SimulationError(
                f"rank {self.rank}: {self.program.describe(left[0])} waits for itself through its dependencies "
                f"({len(left)} nodes are in or behind the cycle); break the cycle"
            )
        self.finished_ns = self.events.queue.now
        self._services.finished(self)
