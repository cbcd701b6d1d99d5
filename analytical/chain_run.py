"""Evaluating a `ChainPlan`: all steps at once, and ranks that are in step as one column.

The time of a set is ``[k, 1]`` while its ranks are in step and ``[k, ranks]`` from where they are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analytical.chains import ChainPlan, CollectiveStop, Component, MessageStop, ReceiveStop, SetPlan
from analytical.collective_solver import CollectiveSolver
from analytical.configuration import RemoteMemoryConfig, SystemConfig
from analytical.network import DelayModel
from analytical.program import roofline_ns
from analytical.simulator import Configuration
from converters.execution_graph import ExecutionGraph, IntArray, IterationResult, RankGraph

DURATIONS_KEPT = 4096
"""So many durations a collective of a plan keeps."""


class NotAChainError(Exception):
    """The values of a graph are not for this way; the event queue takes it, or says what is wrong."""


class ChainEvaluator:
    """Evaluates plans of one configuration."""

    def __init__(self, configuration: Configuration, delays: DelayModel) -> None:
        self._configuration = configuration
        self._delays = delays
        self._charges: dict[tuple[tuple[int, ...], int, int], IntArray] = {}

    def evaluate(self, plan: ChainPlan, graph: ExecutionGraph, solver: CollectiveSolver) -> IterationResult:
        """Return the result of every step. Raises `NotAChainError` where a value needs the event queue."""
        run = _Run(plan, graph, self._configuration)
        for stop in plan.stops:
            if isinstance(stop, CollectiveStop):
                run.enter(stop, solver)
            elif isinstance(stop, MessageStop):
                index, at, _ = stop.sender
                run.send(stop, self._delay(plan.sets[index].ranks, stop.delta, run.sizes[index][at]))
            else:
                run.receive(stop)
        return run.result()

    def _delay(self, ranks: tuple[int, ...], delta: int, size: int) -> IntArray:
        """Return the delay of a message of each rank, ``[1]`` where they are alike."""
        key = (ranks, delta, size)
        found = self._charges.get(key)
        if found is None:
            delays = np.array([self._delays.delay(rank, rank + delta, size) for rank in ranks], dtype=np.int64)
            if (delays == delays[0]).all():
                delays = delays[:1]
            if len(self._charges) > DURATIONS_KEPT:
                self._charges.clear()
            found = self._charges[key] = delays
        return found


class _Run:
    """One evaluation: the time of every set as it goes from stop to stop."""

    def __init__(self, plan: ChainPlan, graph: ExecutionGraph, configuration: Configuration) -> None:
        self._plan = plan
        self._steps = graph.steps
        self._segments: list[IntArray] = []
        self._times: list[IntArray] = []
        self._gpu: list[IntArray] = []
        self._arrivals: list[IntArray | None] = [None] * plan.slots
        self._streams: dict[tuple[int, int], int] = {}
        self.sizes: list[list[int]] = []
        for planned, rank_graph in zip(plan.sets, graph.rank_graphs, strict=True):
            self._add(planned, rank_graph, configuration)

    def enter(self, stop: CollectiveStop, solver: CollectiveSolver) -> None:
        """Evaluate a collective."""
        size = self._common_size(stop)
        times = [self._times[index] for index, _, _ in stop.members]
        together = times[0].shape[1] == 1 and all(
            time is times[0] or np.array_equal(time, times[0]) for time in times[1:]
        )
        duration, streams = _duration(stop, size, solver)
        self._count(stop, streams)
        if together and duration >= 0:
            for index, at, _ in stop.members:
                self._leave(index, at, self._times[index] + duration)
            return
        exits = {
            index: np.empty((self._steps, len(self._plan.sets[index].ranks)), np.int64) for index, _, _ in stop.members
        }
        for component in stop.components:
            self._component(stop, component, size, solver, exits)
        for index, at, _ in stop.members:
            self._leave(index, at, _narrow(exits[index]))

    def send(self, stop: MessageStop, delay: IntArray) -> None:
        """Evaluate a SEND: it ends when its message has arrived."""
        index, at, _ = stop.sender
        time = self._times[index]
        if not delay.all() and not time.all():
            raise NotAChainError  # 0 ns at t = 0
        arrival = time + delay
        self._arrivals[stop.slot] = arrival
        self._leave(index, at, arrival)

    def receive(self, stop: ReceiveStop) -> None:
        """Evaluate a RECV."""
        index, at, _ = stop.receiver
        sender, sent_at, _ = stop.send.sender
        if self.sizes[index][at] != self.sizes[sender][sent_at]:
            raise NotAChainError
        arrival = self._arrivals[stop.send.slot]
        assert arrival is not None
        if arrival.shape[1] > 1:
            arrival = arrival[:, stop.places]
        self._leave(index, at, _narrow(np.maximum(self._times[index], arrival)))

    def result(self) -> IterationResult:
        """Return every set's finish and exposed time; a set whose ranks differ becomes one set a rank."""
        rank_sets: list[tuple[int, ...]] = []
        for planned, time in zip(self._plan.sets, self._times, strict=True):
            rank_sets += [planned.ranks] if time.shape[1] == 1 else [(rank,) for rank in planned.ranks]
        exposed = [time - gpu[:, None] for time, gpu in zip(self._times, self._gpu, strict=True)]
        return IterationResult(tuple(rank_sets), np.concatenate(self._times, axis=1), np.concatenate(exposed, axis=1))

    def _add(self, planned: SetPlan, graph: RankGraph, configuration: Configuration) -> None:
        duration = _durations(planned, graph, configuration.system, configuration.memory)
        starts_at_zero = not planned.stops.size or planned.stops[0] > 0
        if starts_at_zero and not duration[:, 0].all():
            raise NotAChainError  # 0 ns at t = 0
        segments = np.add.reduceat(duration, planned.starts, axis=1)
        self._segments.append(segments)
        self._times.append(segments[:, :1])
        gpu = segments.sum(axis=1)
        if planned.uncounted.size:
            gpu = gpu - duration[:, planned.uncounted].sum(axis=1)
        self._gpu.append(gpu)
        sizes = graph.comm_size[planned.stop_rows]
        if sizes.size and sizes.min() < 1:
            raise NotAChainError
        self.sizes.append(sizes.tolist())

    def _leave(self, index: int, at: int, time: IntArray) -> None:
        self._times[index] = time + self._segments[index][:, at + 1 : at + 2]

    def _common_size(self, stop: CollectiveStop) -> int:
        sizes = {self.sizes[index][at] for index, at, _ in stop.members}
        if len(sizes) > 1:
            raise NotAChainError
        return sizes.pop()

    def _count(self, stop: CollectiveStop, streams: int) -> None:
        """Count streams as the ranks do; ranks that count differently never meet."""
        counters = {stop.group, 0}
        for group in counters:
            counts = {self._streams.get((index, group), 0) for index, _, _ in stop.members}
            if group == stop.group and len(counts) > 1:
                raise NotAChainError
            for index, _, _ in stop.members:
                self._streams[index, group] = self._streams.get((index, group), 0) + streams

    def _component(
        self,
        stop: CollectiveStop,
        component: Component,
        size: int,
        solver: CollectiveSolver,
        exits: dict[int, IntArray],
    ) -> None:
        """Solve the ranks of one component, each distinct set of entries once."""
        entries = np.concatenate([self._columns(index, columns) for index, columns in component.columns], axis=1)
        first = entries.min(axis=1, keepdims=True)
        distinct, which = np.unique(entries - first, axis=0, return_inverse=True)
        solved = np.array(
            [
                solver.exits(component.ranks, stop.collective, size, stop.involved, stop.group, tuple(row))
                for row in distinct.tolist()
            ],
            dtype=np.int64,
        )
        left = first + solved[which.reshape(-1)]
        at = 0
        for index, columns in component.columns:
            exits[index][:, columns] = left[:, at : at + len(columns)]
            at += len(columns)

    def _columns(self, index: int, columns: NDArray[np.int64]) -> IntArray:
        time = self._times[index]
        if time.shape[1] == 1:
            return np.broadcast_to(time, (self._steps, len(columns)))
        return time[:, columns]


def _duration(stop: CollectiveStop, size: int, solver: CollectiveSolver) -> tuple[int, int]:
    """Return (ns, streams) of a collective whose ranks enter together; -1 ns if they do not leave together."""
    found = stop.durations.get(size)
    if found is None:
        streams = len(solver.streams(stop.components[0].ranks[0], stop.collective, size, stop.involved, stop.group))
        ends = {
            end
            for component in stop.components
            for end in solver.exits(
                component.ranks, stop.collective, size, stop.involved, stop.group, (0,) * len(component.ranks)
            )
        }
        if len(stop.durations) > DURATIONS_KEPT:
            stop.durations.clear()
        found = stop.durations[size] = (ends.pop() if len(ends) == 1 else -1, streams)
    return found


def _narrow(time: IntArray) -> IntArray:
    """Return ``[k, 1]`` where all columns are equal."""
    return time[:, :1] if time.shape[1] > 1 and (time == time[:, :1]).all() else time


def _durations(plan: SetPlan, graph: RankGraph, system: SystemConfig, memory: RemoteMemoryConfig) -> IntArray:
    """Return the ns of every position in chain order, ``[k, n]``, 0 at stops."""
    result = np.zeros((graph.steps, graph.nodes), dtype=np.int64)
    if plan.compute.size:
        rows = plan.rows(plan.compute)
        operations, size = graph.num_ops.take(rows, axis=1), _take(graph.tensor_size, rows)
        if operations.min() < 1 or size.min() < 1:
            raise NotAChainError
        result[:, plan.compute] = roofline_ns(operations, size, system)
    if plan.memory.size:
        size = _take(graph.tensor_size, plan.rows(plan.memory))
        if size.min() < 0:
            raise NotAChainError
        moved = (size.astype(np.float64) / float(memory.remote_mem_bw)).astype(np.int64)
        result[:, plan.memory] = moved + memory.remote_mem_latency
    if plan.replay.size:
        recorded = graph.duration_us[plan.rows(plan.replay)]
        result[:, plan.replay] = np.where(recorded > 0, recorded * 1000, 1)
    return result


def _take(values: IntArray, rows: NDArray[np.int64]) -> IntArray:
    """Return columns of a ``[k, n]`` array; one row of them where all steps share it."""
    if values.strides[0] == 0:
        values = values[:1]
    taken: IntArray = values.take(rows, axis=1)
    return taken
