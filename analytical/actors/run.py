"""One actor's nodes from collective to collective: between two of them nothing that others do is seen.

The rules are those of `events.rank_run`, without a queue: an actor holds a CPU node, a compute node and a communication
at a time, so that its next event is one of three. Events at one time run in the order in which they were scheduled.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from analytical.actors.collectives import NotActorsError
from analytical.events.program import COMMUNICATE, COMPUTE, CPU, Program
from analytical.events.rank_run import NO_ROW, UNSET
from analytical.machine.limits import LONGEST_RUN_NS

COLLECTIVE, SKIPPED = -1, -2
"""What stands for the ns of a node that has none: it waits for others, or ends as it is issued."""

SLOTS = (CPU, COMPUTE, COMMUNICATE)
NEVER = 2**63


class ActorRun:
    """The run of one program. `takes`: by row ns, `COLLECTIVE` or `SKIPPED`. `start` and `end` hold ns by row.

    `now` is the time of its latest event; `finished_ns` is None until its last node has ended.
    """

    __slots__ = (
        "_ends",
        "_fresh",
        "_left",
        "_parents",
        "_ready",
        "_rows",
        "_scheduled",
        "_takes",
        "_turn",
        "_turns",
        "end",
        "finished_ns",
        "gpu_ns",
        "last_row",
        "now",
        "program",
        "rank",
        "start",
    )

    def __init__(self, rank: int, program: Program, takes: Sequence[int], gpu_ns: int) -> None:
        self.rank = rank
        self.program = program
        self.gpu_ns = gpu_ns
        self.now = 0
        self.finished_ns: int | None = None
        self.last_row: int | None = None
        self.start = array("q", [UNSET]) * program.rows
        self.end = array("q", [UNSET]) * program.rows
        self._takes = takes
        self._left = program.rows
        self._parents = program.parents.tolist()
        self._fresh: list[int] = []
        self._ready: list[list[int]] = [[], [], []]
        for row in program.roots:
            self._ready[program.slot[row]].append(row)
        for heap in self._ready:
            heapify(heap)
        # By slot: the row that runs there, when it ends, when that was scheduled (None: not known), and in which turn.
        self._rows = [UNSET, UNSET, UNSET]
        self._ends = [NEVER, NEVER, NEVER]
        self._scheduled: list[int | None] = [0, 0, 0]
        self._turns = [0, 0, 0]
        self._turn = 0

    def begin(self) -> int | None:
        """Run from the start to the first collective and return its row; None at the end of the run."""
        row = self._issue()
        if min(self._ends) == 0:
            raise NotActorsError  # what takes 0 ns at t = 0
        return self._go_on() if row is None else row

    def leave(self, end: int, scheduled: int | None) -> int | None:
        """Leave the collective at `end`; run to the next one and return its row; None at the end of the run.

        `scheduled`: when the event that ends it was, None where no other event may tie with it.
        """
        self._ends[COMMUNICATE] = end
        self._scheduled[COMMUNICATE] = scheduled
        return self._go_on()

    def _go_on(self) -> int | None:
        while True:
            slot = self._next()
            if slot is None:
                self._check_finished()
                return None
            self._complete(slot)
            row = self._issue()
            if row is not None:
                return row

    def _issue(self) -> int | None:
        """Issue ready nodes by ascending row, each if its slot is free; return the row of a collective among them.

        Rows that are freed on the way join only afterwards.
        """
        ready, rows, entered = self._ready, self._rows, None
        while True:
            slot, lowest = UNSET, NO_ROW
            for candidate in SLOTS:
                heap = ready[candidate]
                if heap and rows[candidate] < 0 and heap[0] < lowest:
                    slot, lowest = candidate, heap[0]
            if slot < 0:
                break
            heappop(ready[slot])
            self.start[lowest] = self.now
            takes = self._takes[lowest]
            if takes == SKIPPED:
                self._free(lowest)
                continue
            rows[slot] = lowest
            if takes == COLLECTIVE:
                entered = lowest
            else:
                self._ends[slot], self._scheduled[slot], self._turns[slot] = self.now + takes, self.now, self._turn
                self._turn += 1
        if self._fresh:
            self._join()
        return entered

    def _next(self) -> int | None:
        """Return the slot of the next event. Raises `NotActorsError` where it is not known which of two that is."""
        ends = self._ends
        time = min(ends)
        if time > LONGEST_RUN_NS:
            if time == NEVER:
                return None
            raise NotActorsError
        slot = ends.index(time)
        if ends.count(time) > 1:
            slot = self._first([slot for slot in SLOTS if ends[slot] == time])
        self.now = time
        return slot

    def _first(self, tied: list[int]) -> int:
        """Return which of some events at one time was scheduled first."""
        row = self._rows[COMMUNICATE]
        if COMMUNICATE in tied and self._takes[row] == COLLECTIVE:
            scheduled = self._scheduled[COMMUNICATE]
            others = [slot for slot in tied if slot != COMMUNICATE]
            if scheduled is None or any(self._scheduled[slot] == scheduled for slot in others):
                raise NotActorsError
            before = [slot for slot in others if (self._scheduled[slot] or 0) < scheduled]
            tied = before or [COMMUNICATE]
        return min(tied, key=self._turns.__getitem__)

    def _complete(self, slot: int) -> None:
        row = self.last_row = self._rows[slot]
        self._rows[slot] = UNSET
        self._ends[slot] = NEVER
        self._free(row)
        if self._fresh:
            self._join()

    def _free(self, row: int) -> None:
        """End a node, and note whom nothing else holds back."""
        self.end[row] = self.now
        self._left -= 1
        program, parents = self.program, self._parents
        for child in program.children[program.child_offsets[row] : program.child_offsets[row + 1]]:
            parents[child] -= 1
            if not parents[child]:
                self._fresh.append(child)

    def _join(self) -> None:
        slot = self.program.slot
        for row in self._fresh:
            heappush(self._ready[slot[row]], row)
        self._fresh.clear()

    def _check_finished(self) -> None:
        """Nothing runs any more: the end, unless something waits for an event that never comes, or for itself."""
        if self._left:
            raise NotActorsError
        self.finished_ns = self.now
