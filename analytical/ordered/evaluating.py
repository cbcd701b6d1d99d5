"""The times of one order, for all steps at once, and which steps provably keep it.

Ends are ``[segments, k, columns]``: one column while the ranks of a set are in step, else one a rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analytical.chains.meetings import Meeting, narrow
from analytical.chains.message_delays import MessageDelays
from analytical.chains.solver import CollectiveSolver
from analytical.chains.stretches import Shares, Stretches, stretch_ns
from analytical.machine.description import Machine
from analytical.ordered.finding import Kind
from analytical.ordered.order import Action, Check, Order, Waits
from analytical.ordered.structure import Structure
from converters.execution_graph import ExecutionGraph, IntArray
from foundation.records import dataclass

Mask = NDArray[np.bool_]


class NotOrderedError(Exception):
    """The values of a graph are not for this way; the event queue takes it, or says what is wrong."""


class _ApartError(Exception):
    """The ranks of a set do not stay in step: they need a column each."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


@dataclass(frozen=True, slots=True, eq=False)
class Timed:
    """`finish` and `exposed` by set, ``[k, 1]`` or ``[k, ranks]``, and the steps for which they are proven, ``[k]``."""

    finish: list[IntArray]
    exposed: list[IntArray]
    proven: Mask


class OrderEvaluator:
    """Evaluates orders of one structure for one graph. Raises `NotOrderedError` where a size is not for this way."""

    def __init__(
        self,
        structure: Structure,
        graph: ExecutionGraph,
        machine: Machine,
        solver: CollectiveSolver,
        delays: MessageDelays,
    ) -> None:
        self.structure = structure
        self.graph = graph
        self.solver = solver
        self.delays = delays
        self._machine = machine
        self.sizes = []
        for own, one in zip(structure.sets, graph.rank_graphs, strict=True):
            if own.waiting.size and one.comm_size[own.waiting].min() < 1:
                raise NotOrderedError
            self.sizes.append(one.comm_size[own.program.order].tolist())

    def evaluate(self, order: Order) -> Timed:
        """Return the times of every step. Raises `NotOrderedError`, or `SimulationError` for a wrong collective."""
        if order.shared:
            self._count_streams(order)
        stretches = [self.stretches(own.shares, own.segments, index) for index, own in enumerate(order.sets)]
        while True:
            try:
                run = _Run(self, order, stretches)
            except _ApartError as error:
                order.apart.add(error.index)
            else:
                return run.timed()

    def stretches(self, shares: Shares, segments: int, index: int) -> Stretches:
        """Return what segments of a set take."""
        found = stretch_ns(shares, segments, [self.graph.rank_graphs[index]], self._machine)
        if found is None:
            raise NotOrderedError
        return found

    def size(self, action: Action) -> int:
        """Return the bytes of a collective, which all its sets must agree on."""
        sizes = {self.sizes[index][row] for index, row in zip(action.sets, action.rows, strict=True)}
        if len(sizes) > 1:
            raise NotOrderedError
        return int(sizes.pop())

    def _count_streams(self, order: Order) -> None:
        """Count streams as the ranks do; ranks that have counted differently never meet."""
        counted: dict[tuple[int, int], int] = {}
        for action in order.actions:
            meeting = action.meeting
            if meeting is None:
                continue
            if len({counted.get((index, meeting.group), 0) for index in action.sets}) > 1:
                raise NotOrderedError
            _, streams = meeting.duration(self.size(action), self.solver)
            for index in action.sets:
                for group in {meeting.group, 0}:
                    counted[index, group] = counted.get((index, group), 0) + streams


class _Run:
    """One evaluation. ``ends[set]`` ``[segments, k, columns]``; `_rows` its rows, as a list that is quick to index.

    ``_takes[set][segment]``: the ns from a segment's start to its end, in a shape that fits ``[k, 1]``; None where
    others decide them (RECVs, collectives that several sets enter or ranks out of step).
    """

    def __init__(self, evaluator: OrderEvaluator, order: Order, stretches: Sequence[Stretches]) -> None:
        self._evaluator = evaluator
        self._order = order
        self._stretches = stretches
        sets, steps = evaluator.structure.sets, evaluator.graph.steps
        self._widths = [len(own.ranks) if index in order.apart else 1 for index, own in enumerate(sets)]
        self._ends = [
            np.zeros((own.segments, steps, width), dtype=np.int64)
            for own, width in zip(order.sets, self._widths, strict=True)
        ]
        self._rows = [list(ends) for ends in self._ends]
        self._takes: list[list[IntArray | None]] = [
            list(np.ascontiguousarray(one.total.T)[:, :, None]) for one in stretches
        ]
        for action in order.actions:
            if action.kind is not Kind.TIMED:
                self._takes[action.sets[0]][action.waits[0][0]] = self._known(action)
        self._go()

    def timed(self) -> Timed:
        """Return the times, and for which steps they are proven."""
        finish, exposed = [], []
        proven = np.ones(self._evaluator.graph.steps, dtype=np.bool_)
        for index, own in enumerate(self._order.sets):
            ends, stretches = self._ends[index], self._stretches[index]
            last = ends[own.sinks].max(axis=0)
            finish.append(narrow(last))
            exposed.append(narrow(last - stretches.gpu))
            if own.check is not None:
                proven &= keeps(own.check, ends, self._offsets(index, own.check))
            if own.messages.size:
                proven &= (ends[own.messages].max(axis=0) < last).all(axis=1)
            if own.prompt.size:
                proven &= ends[own.prompt].all(axis=(0, 2))
        return Timed(finish, exposed, proven)

    def _go(self) -> None:
        """Evaluate one action after the other."""
        rows_of, takes_of = self._rows, self._takes
        for action in self._order.actions:
            index, (segment, before, others) = action.sets[0], action.waits[0]
            takes = takes_of[index][segment]
            if takes is None:
                self._evaluate(action)
                continue
            rows = rows_of[index]
            end = rows[segment]
            if others:
                np.maximum(rows[before], rows[others[0]], out=end)
                for other in others[1:]:
                    np.maximum(end, rows[other], out=end)
                np.add(end, takes, out=end)
            else:
                np.add(rows[before], takes, out=end)

    def _known(self, action: Action) -> IntArray | None:
        """Return what a collective or message takes by itself."""
        index, row = action.sets[0], action.rows[0]
        structure, evaluator = self._evaluator.structure.sets[index], self._evaluator
        if action.kind is Kind.SEND:
            delta = structure.sends[row][2]
            return np.array([evaluator.delays.get(structure.ranks[0], delta, evaluator.sizes[index][row])])
        if action.meeting is None or len(action.sets) > 1 or self._widths[index] > 1:
            return None
        size = evaluator.sizes[index][row]
        duration, _ = action.meeting.durations.get(size) or action.meeting.duration(size, evaluator.solver)
        return None if duration < 0 else np.array([duration])

    def _evaluate(self, action: Action) -> None:
        if action.meeting is None:
            self._receive(action)
        else:
            self._meet(action, action.meeting)

    def _meet(self, action: Action, meeting: Meeting) -> None:
        """Evaluate a collective of several sets, or of ranks that are not in step."""
        solver, size = self._evaluator.solver, self._evaluator.size(action)
        entries = {index: self._started(index, waits) for index, waits in zip(action.sets, action.waits, strict=True)}
        duration, _ = meeting.duration(size, solver)
        if duration >= 0 and _together(list(entries.values())):
            for index, (segment, _, _) in zip(action.sets, action.waits, strict=True):
                np.add(entries[index], duration, out=self._rows[index][segment])
            return
        exits = meeting.exits(size, entries, solver)
        for index, (segment, _, _) in zip(action.sets, action.waits, strict=True):
            self._end(index, segment, exits[index])

    def _receive(self, action: Action) -> None:
        """Evaluate a RECV: it ends when it is posted and its message has arrived."""
        index, row = action.sets[0], action.rows[0]
        own = self._evaluator.structure.sets[index]
        sizes = self._evaluator.sizes
        arrivals = np.empty((self._evaluator.graph.steps, len(own.ranks)), dtype=np.int64)
        for sender, (other, sent, sending) in zip(own.receives[row], action.sends, strict=True):
            if sizes[other][sending] != sizes[index][row]:
                raise NotOrderedError
            arrived = self._rows[other][sent]
            arrivals[:, sender.columns] = arrived if arrived.shape[1] == 1 else arrived[:, sender.sending]
        posted = self._started(index, action.waits[0])
        self._end(index, action.waits[0][0], np.maximum(posted, narrow(arrivals)))

    def _started(self, index: int, waits: Waits) -> IntArray:
        """Return when a segment starts: when its slot is free, and what it waits for has ended."""
        _, before, others = waits
        rows = self._rows[index]
        start = rows[before]
        for other in others:
            start = np.maximum(start, rows[other])
        return start

    def _end(self, index: int, segment: int, time: IntArray) -> None:
        """Note when a segment ends; its set needs a column a rank where the ranks differ."""
        if time.shape[1] > self._widths[index]:
            time = narrow(time)
            if time.shape[1] > 1:
                raise _ApartError(index)
        self._rows[index][segment][...] = time

    def _offsets(self, index: int, check: Check) -> IntArray:
        """Return how long after the start of each of `check.long` its last node starts, ``[long, k, 1]``."""
        if not check.long.size:
            return np.zeros((0, 1, 1), dtype=np.int64)
        tails = self._evaluator.stretches(check.tails, self._order.sets[index].segments, index)
        offsets: IntArray = (self._stretches[index].total - tails.total)[:, check.segments].T[:, :, None]
        return offsets


def keeps(check: Check, ends: IntArray, offsets: IntArray) -> Mask:
    """Return the steps in which all decisions of a set fall as in the order, ``[k]``; `order` says why.

    `offsets`: how long after the start of each of `check.long` its last node starts.
    """
    free = ends[check.before]
    start = np.maximum(check.starting.latest(ends), free)
    ready = check.ready.latest(ends)
    one, other = check.behind
    in_time = check.unshared.latest(ends) < np.maximum(ready[other], free[one])
    proven: Mask = (in_time | (ready[other] > start[one])).all(axis=(0, 2))
    start[check.long] += offsets
    one, other = check.later
    proven &= (ready[other] > start[one]).all(axis=(0, 2))
    one, other = check.posted
    proven &= (ready[one] < ready[other]).all(axis=(0, 2))
    return proven


def _together(times: Sequence[IntArray]) -> bool:
    """Whether all sets are in step with each other."""
    first = times[0]
    return first.shape[1] == 1 and all(time is first or np.array_equal(time, first) for time in times[1:])
