"""Pricing by simulation, which is the truth: batches -> trace -> graph -> backend -> the slowest rank of each stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from converters.backend import Backend
from converters.execution_graph import ExecutionGraph, IterationResult
from foundation.errors import SimulationError
from orchestrator.engine.batch import Batch
from orchestrator.pricing.classes import WorkClasses, chosen
from orchestrator.pricing.interface import Cost
from orchestrator.stopwatch import Stopwatch
from trace_gen.batch_shape import BatchShape
from trace_gen.mesh import Mesh
from trace_gen.trace import Trace

IntArray = NDArray[np.int64]


class TracedPricing:
    """`generate` makes the trace of a wave, `lower` its graph, `backend` simulates it; `mesh` says who is where.

    `generate` gets the iteration's number, too. `classes` tells what the time went to. `max_steps` is 1 where experts
    are chosen otherwise at every step, and where `lower` goes through files (see `orchestrator.pricing.interfaces`).
    """

    def __init__(
        self,
        generate: Callable[[Sequence[BatchShape], int], Trace],
        lower: Callable[[Trace], ExecutionGraph],
        backend: Backend,
        *,
        mesh: Mesh,
        classes: WorkClasses,
        max_steps: int,
        stopwatch: Stopwatch,
    ) -> None:
        self.stages = mesh.pipeline
        self.max_steps = max_steps
        self.classes = classes.names
        self.work = classes
        self._generate = generate
        self._lower = lower
        self._backend = backend
        self._mesh = mesh
        self._columns: dict[tuple[tuple[int, ...], ...], list[list[int]]] = {}
        self._stopwatch = stopwatch

    def price(self, wave: Sequence[Batch]) -> Cost:
        """See `orchestrator.pricing.interface.Pricing.price`."""
        try:
            with self._stopwatch.measure("trace generation"):
                trace = self._generate([batch.shape() for batch in wave], max(batch.serial for batch in wave))
            result = self._simulate(self.lower(trace))
        except SimulationError as error:
            raise SimulationError(f"batch {wave[0].serial}: {error}") from error
        slowest = self._slowest(result)
        finishes = self._finishes(result, slowest)
        own = finishes.copy()
        own[:, 1:] -= finishes[:, :-1]
        busy = self.work.busy_ns(trace, result, slowest, own.reshape(trace.steps, -1))
        busy = busy.reshape(*finishes.shape, -1).sum(axis=1)
        return Cost(finishes.transpose(2, 0, 1), busy.transpose(1, 0, 2))

    def lower(self, trace: Trace) -> ExecutionGraph:
        """Return the graph of `trace`."""
        with self._stopwatch.measure("graph conversion"):
            return self._lower(trace)

    def finish_ns(self, graph: ExecutionGraph) -> IntArray:
        """Return when each stage of each member is done with each step of `graph`, ``[k, stages, members]``."""
        result = self._simulate(graph)
        return self._finishes(result, self._slowest(result))

    def stage_of(self, rank: int) -> int:
        """Return the pipeline stage that `rank` works for."""
        return self._mesh.stages_of([rank]).pop()

    def _simulate(self, graph: ExecutionGraph) -> IterationResult:
        with self._stopwatch.measure("backend"):
            return self._backend.simulate(graph)

    def _finishes(self, result: IterationResult, slowest: IntArray) -> IntArray:
        """Return the finish of the `slowest` ranks, ``[k, stages, members]``; it never falls from stage to stage."""
        finishes = chosen(result.finish_ns, slowest).reshape(len(result.finish_ns), self.stages, -1)
        return np.maximum.accumulate(finishes, axis=1, out=finishes)

    def _slowest(self, result: IterationResult) -> IntArray:
        """Return the column of `result` that the slowest rank is in of each stage of each member.

        ``[k, stages x members]``, or ``[1, ...]`` where every stage has one column.
        """
        columns = self._columns_of(result.rank_sets)
        if all(len(own) == 1 for own in columns):
            return np.array(columns, dtype=np.int64).T
        places = [np.array(own)[result.finish_ns[:, own].argmax(axis=1)] for own in columns]
        return np.stack(places, axis=1)

    def _columns_of(self, rank_sets: tuple[tuple[int, ...], ...]) -> list[list[int]]:
        """Return the columns of a result by stage, and within a stage by member."""
        known = self._columns.get(rank_sets)
        if known is None:
            mesh = self._mesh
            known = self._columns[rank_sets] = [[] for _ in range(self.stages * mesh.data)]
            for column, ranks in enumerate(rank_sets):
                for member in sorted({mesh.member_of(rank) for rank in ranks}):
                    for stage in mesh.stages_of([rank for rank in ranks if mesh.member_of(rank) == member]):
                        known[stage * mesh.data + member].append(column)
        return known
