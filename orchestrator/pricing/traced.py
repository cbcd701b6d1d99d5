"""Pricing by simulation, which is the truth: batches -> trace -> graph -> backend -> the slowest rank of each stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from converters.backend import Backend
from converters.execution_graph import ExecutionGraph, IterationResult
from foundation.errors import SimulationError
from orchestrator.engine.batch import Batch
from orchestrator.pricing.interface import Cost
from orchestrator.stopwatch import Stopwatch
from trace_gen.batch_shape import BatchShape
from trace_gen.mesh import Mesh
from trace_gen.trace import Trace

IntArray = NDArray[np.int64]


class TracedPricing:
    """`generate` makes the trace of a wave, `lower` its graph, `backend` simulates it; `mesh` says who is where.

    `generate` and `lower` may go through files (see `orchestrator.pricing.interfaces`), then with one step at a time:
    `max_steps`.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        generate: Callable[[Sequence[BatchShape]], Trace],
        lower: Callable[[Trace], ExecutionGraph],
        backend: Backend,
        *,
        mesh: Mesh,
        max_steps: int,
        stopwatch: Stopwatch,
    ) -> None:
        self.stages = mesh.pipeline
        self.max_steps = max_steps
        self._generate = generate
        self._lower = lower
        self._backend = backend
        self._mesh = mesh
        self._places: dict[tuple[tuple[int, ...], ...], list[tuple[int, int, int]]] = {}
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
        return Cost(finishes, np.zeros((*finishes.shape[:2], 0), dtype=np.int64))

    def _finishes(self, result: IterationResult) -> IntArray:
        """Return when each member's slowest rank of each stage is done, ``[members, k, stages]``."""
        finishes = np.zeros((self._mesh.data, result.finish_ns.shape[0], self.stages), dtype=np.int64)
        for column, member, stage in self._places_of(result.rank_sets):
            slowest = finishes[member, :, stage]
            np.maximum(slowest, result.finish_ns[:, column], out=slowest)
        np.maximum.accumulate(finishes, axis=2, out=finishes)
        return finishes

    def _places_of(self, rank_sets: tuple[tuple[int, ...], ...]) -> list[tuple[int, int, int]]:
        """Return which column of a result is of which member and stage."""
        places = self._places.get(rank_sets)
        if places is None:
            mesh = self._mesh
            places = self._places[rank_sets] = [
                (column, member, stage)
                for column, ranks in enumerate(rank_sets)
                for member in sorted({mesh.member_of(rank) for rank in ranks})
                for stage in mesh.stages_of([rank for rank in ranks if mesh.member_of(rank) == member])
            ]
        return places
