"""Evaluating a `ChainPlan`: all steps at once, and ranks that are in step as one column.

The time of a set is ``[k, 1]`` while its ranks are in step and ``[k, ranks]`` from where they are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from analytical.chains.meetings import Meeting, narrow
from analytical.chains.message_delays import MessageDelays
from analytical.chains.plan import ChainPlan, KnownSizes, Together
from analytical.chains.repeats import Repeat
from analytical.chains.solver import CollectiveSolver
from analytical.chains.stops import CollectiveStop, MessageStop, ReceiveStop, SoloRun, Stop
from analytical.chains.stretches import stretch_ns
from analytical.machine.description import Machine
from analytical.machine.network import DelayModel
from converters.execution_graph import ExecutionGraph, IntArray, IterationResult


class NotAChainError(Exception):
    """The values of a graph are not for this way; the event queue takes it, or says what is wrong."""


State = tuple[list[IntArray], dict[tuple[int, int], int]]
"""Times of sets, and streams that were counted by set and group."""


class ChainEvaluator:
    """Evaluates plans for one machine."""

    def __init__(self, machine: Machine, delays: DelayModel) -> None:
        self._machine = machine
        self._delays = MessageDelays(delays)

    def evaluate(self, plan: ChainPlan, graph: ExecutionGraph, solver: CollectiveSolver) -> IterationResult:
        """Return the result of every step. Raises `NotAChainError` where a value needs the event queue."""
        run = _Run(plan, graph, self._machine)
        at = 0
        for repeat in plan.repeats:
            self._pass(plan.stops[at : repeat.first], run, solver)
            at = repeat.first + self._pass_repeat(plan, repeat, run, solver)
        self._pass(plan.stops[at:], run, solver)
        return run.result()

    def _pass(self, stops: Sequence[Stop], run: _Run, solver: CollectiveSolver) -> None:
        """Evaluate stops, one after the other."""
        for stop in stops:
            if isinstance(stop, SoloRun):
                run.enter_alone(stop, solver)
            elif isinstance(stop, CollectiveStop):
                run.enter(stop, solver)
            elif isinstance(stop, MessageStop):
                index, at = stop.sender
                run.send(stop, self._delays.get(run.first_rank(index), stop.delta, run.sizes[index][at]))
            else:
                run.receive(stop)

    def _pass_repeat(self, plan: ChainPlan, repeat: Repeat, run: _Run, solver: CollectiveSolver) -> int:
        """Evaluate what repeats until it moves times on only, and leave out the rest; return how many stops are done.

        The last time is not among them: something else may follow it.
        """
        if not run.repeats(repeat):
            return 0
        for turn in range(1, repeat.times):
            before = run.state(repeat)
            first = repeat.first + (turn - 1) * repeat.period
            self._pass(plan.stops[first : first + repeat.period], run, solver)
            if run.skip(repeat, before, repeat.times - 1 - turn):
                break
        return (repeat.times - 1) * repeat.period


class _Run:
    """One evaluation: the time of every set as it goes from stop to stop."""

    def __init__(self, plan: ChainPlan, graph: ExecutionGraph, machine: Machine) -> None:
        self._plan = plan
        self._arrivals: list[IntArray | None] = [None] * plan.slots
        self._streams: dict[tuple[int, int], int] = {}
        begins = plan.begins
        stretches = stretch_ns(plan.shares, begins[-1], graph.rank_graphs, machine)
        if stretches is None:
            raise NotAChainError
        self._gpu = stretches.gpu
        self._segments = [stretches.total[:, begin:end] for begin, end in pairwise(begins)]
        self._times = [segments[:, :1] for segments in self._segments]
        pairs = zip(plan.sets, graph.rank_graphs, strict=True)
        sizes = [one.comm_size[planned.stop_rows] for planned, one in pairs]
        self._known = plan.sizes.get(tuple([of_set.tobytes() for of_set in sizes]), lambda: KnownSizes.of(sizes))
        self.sizes = self._known.sizes
        if self._known.smallest < 1:
            raise NotAChainError

    def first_rank(self, index: int) -> int:
        """Return the first rank of a set."""
        return self._plan.sets[index].ranks[0]

    def repeats(self, repeat: Repeat) -> bool:
        """Whether the stops are of the same bytes, and as far from each other, each time."""
        return repeat.same(self.sizes, self._segments)

    def state(self, repeat: Repeat) -> State:
        """Return the times of the sets of `repeat`, and all counts of streams."""
        return [self._times[index] for index, _, _ in repeat.sets], dict(self._streams)

    def skip(self, repeat: Repeat, before: State, times: int) -> bool:
        """Let what has happened since `before` happen so many times more, if it moved all times by the same."""
        then, counted = before
        now = [self._times[index] for index, _, _ in repeat.sets]
        moved = now[0][:, :1] - then[0][:, :1]
        for time, earlier in zip(now, then, strict=True):
            if time.shape != earlier.shape or (time - earlier != moved).any():
                return False
        for (index, _, _), time in zip(repeat.sets, now, strict=True):
            self._times[index] = time + times * moved
        for key, count in self._streams.items():
            self._streams[key] = count + times * (count - counted.get(key, 0))
        return True

    def enter(self, stop: CollectiveStop, solver: CollectiveSolver) -> None:
        """Evaluate a collective that several sets meet in, or whose ranks are not in step."""
        meeting = stop.meeting
        size = self._common_size(stop)
        times = [self._times[index] for index, _ in stop.members]
        together = times[0].shape[1] == 1 and all(
            time is times[0] or np.array_equal(time, times[0]) for time in times[1:]
        )
        duration, streams = meeting.duration(size, solver)
        self._count(meeting, streams)
        if together and duration >= 0:
            for index, at in stop.members:
                self._leave(index, at, self._times[index] + duration)
            return
        exits = meeting.exits(size, {index: self._times[index] for index, _ in stop.members}, solver)
        for index, at in stop.members:
            self._leave(index, at, narrow(exits[index]))

    def enter_alone(self, run: SoloRun, solver: CollectiveSolver) -> None:
        """Evaluate collectives that follow each other on one set: in one sum, if its ranks are in step throughout."""
        index = run.index
        found = self._known.alone.get((index, run.first))
        if found is None:
            found = self._known.alone[index, run.first] = self._in_step(run, solver)
        number, alike, total, counted = found
        together = alike and self._times[index].shape[1] == 1
        if not together:
            for at, meeting in enumerate(run.meetings, run.first):
                self.enter(CollectiveStop(meeting, [(index, at)]), solver)
            return
        for meeting, streams in counted if self._plan.shared else ():
            self._count(meeting, streams)
        stretches = self._segments[index][:, run.first + 1 : run.first + number + 1].sum(axis=1, keepdims=True)
        self._times[index] = self._times[index] + stretches + total

    def _in_step(self, run: SoloRun, solver: CollectiveSolver) -> Together:
        """Return what collectives take together, if the ranks of the set are in step before them."""
        alike, total, last = True, 0, run.first
        counted: list[tuple[Meeting, int]] = []
        for meeting, count in run.alike:
            sizes = self.sizes[run.index][last : last + count]
            last += count
            for size, times in Counter(sizes).items():
                duration, streams = meeting.duration(size, solver)
                alike &= duration >= 0
                total += times * duration
                counted.append((meeting, times * streams))
        return last - run.first, alike, total, counted

    def send(self, stop: MessageStop, delay: int) -> None:
        """Evaluate a SEND: it ends when its message has arrived."""
        index, at = stop.sender
        time = self._times[index]
        if not delay and not time.all():
            raise NotAChainError  # 0 ns at t = 0
        arrival = time + delay
        self._arrivals[stop.slot] = arrival
        self._leave(index, at, arrival)

    def receive(self, stop: ReceiveStop) -> None:
        """Evaluate a RECV."""
        index, at = stop.receiver
        sender, sent_at = stop.send.sender
        if self.sizes[index][at] != self.sizes[sender][sent_at]:
            raise NotAChainError
        arrival = self._arrivals[stop.send.slot]
        assert arrival is not None
        if arrival.shape[1] > 1:
            arrival = arrival[:, stop.places]
        self._leave(index, at, narrow(np.maximum(self._times[index], arrival)))

    def result(self) -> IterationResult:
        """Return every set's finish and exposed time; a set whose ranks differ becomes one set a rank."""
        rank_sets: list[tuple[int, ...]] = []
        for planned, time in zip(self._plan.sets, self._times, strict=True):
            rank_sets += [planned.ranks] if time.shape[1] == 1 else [(rank,) for rank in planned.ranks]
        finish, gpu = np.concatenate(self._times, axis=1), self._gpu
        if len(rank_sets) > len(self._times):
            gpu = np.repeat(gpu, [time.shape[1] for time in self._times], axis=1)
        return IterationResult(tuple(rank_sets), finish, finish - gpu)

    def _leave(self, index: int, at: int, time: IntArray) -> None:
        self._times[index] = time + self._segments[index][:, at + 1 : at + 2]

    def _common_size(self, stop: CollectiveStop) -> int:
        sizes = {self.sizes[index][at] for index, at in stop.members}
        if len(sizes) > 1:
            raise NotAChainError
        return sizes.pop()

    def _count(self, meeting: Meeting, streams: int) -> None:
        """Count streams as the ranks do; ranks that have counted differently never meet."""
        counted = self._streams
        if len({counted.get((index, meeting.group), 0) for index in meeting.sets}) > 1:
            raise NotAChainError
        for index in meeting.sets:
            for group in {meeting.group, 0}:
                counted[index, group] = counted.get((index, group), 0) + streams
