"""Pricing by simulation, which is the truth: batches -> trace -> graph -> backend -> the slowest rank of each stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from converters.backend import Backend
from converters.execution_graph import ExecutionGraph, IterationResult
from foundation.errors import SimulationError
from orchestrator.engine.batch import Batch
from orchestrator.pricing.classes import WorkClasses
from orchestrator.pricing.interface import Cost
from orchestrator.stopwatch import Stopwatch
from trace_gen.batch_shape import BatchShape
from trace_gen.mesh import Mesh
from trace_gen.trace import Trace

IntArray = NDArray[np.int64]


class TracedPricing:
    """`generate` makes the trace of a wave, `lower` its graph, `backend` simulates it; `mesh` says who is where.

    `classes` tells what the time went to. `generate` and `lower` may go through files (see
    `orchestrator.pricing.interfaces`), then with one step at a time: `max_steps`.
    """

    def __init__(
        self,
        generate: Callable[[Sequence[BatchShape]], Trace],
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
        self._classes = classes
        self._generate = generate
        self._lower = lower
        self._backend = backend
        self._mesh = mesh
        self._columns: dict[tuple[tuple[int, ...], ...], dict[tuple[int, int], list[int]]] = {}
        self._stopwatch = stopwatch

    def price(self, wave: Sequence[Batch]) -> Cost:
        """See `orchestrator.pricing.interface.Pricing.price`."""
        try:
            with self._stopwatch.measure("trace generation"):
                trace = self._generate([batch.shape() for batch in wave])
            with self._stopwatch.measure("graph conversion"):
                graph = self._lower(trace)
            with self._stopwatch.measure("backend"):
                result = self._backend.simulate(graph)
        except SimulationError as error:
            raise SimulationError(f"batch {wave[0].serial}: {error}") from error
        finishes = self._finishes(result)
        return Cost(finishes, self._busy(trace, result, finishes))

    def _busy(self, trace: Trace, result: IterationResult, finishes: IntArray) -> IntArray:
        """Return what each member's time went to, by class, ``[members, k, classes]``."""
        busy = np.zeros((*finishes.shape[:2], len(self.classes)), dtype=np.int64)
        for (member, stage), columns in self._columns_of(result.rank_sets).items():
            before = finishes[member, :, stage - 1] if stage else 0
            own = finishes[member, :, stage] - before
            busy[member] += self._classes.of_stage(trace, result, columns, own)
        return busy

    def _finishes(self, result: IterationResult) -> IntArray:
        """Return when each member's slowest rank of each stage is done, ``[members, k, stages]``."""
        finishes = np.zeros((self._mesh.data, result.finish_ns.shape[0], self.stages), dtype=np.int64)
        for (member, stage), columns in self._columns_of(result.rank_sets).items():
            finishes[member, :, stage] = result.finish_ns[:, columns].max(axis=1)
        np.maximum.accumulate(finishes, axis=2, out=finishes)
        return finishes

    def _columns_of(self, rank_sets: tuple[tuple[int, ...], ...]) -> dict[tuple[int, int], list[int]]:
        """Return the columns of a result by the member and stage that they are of."""
        columns = self._columns.get(rank_sets)
        if columns is None:
            mesh = self._mesh
            columns = self._columns[rank_sets] = {}
            for column, ranks in enumerate(rank_sets):
                for member in sorted({mesh.member_of(rank) for rank in ranks}):
                    for stage in mesh.stages_of([rank for rank in ranks if mesh.member_of(rank) == member]):
                        columns.setdefault((member, stage), []).append(column)
        return columns
