"""Executors: how long a batch takes. `TraceExecutor` makes the trace, lowers it and asks a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from converters.backend import Backend
from converters.execution_graph import ExecutionGraph, IterationResult
from foundation.errors import SimulationError
from orchestrator.batch import Batch
from orchestrator.stopwatch import Stopwatch
from trace_gen.batch_shape import BatchShape
from trace_gen.mesh import Mesh
from trace_gen.trace import Trace

IntArray = NDArray[np.int64]


class Executor(Protocol):
    """Says how long batches take on one instance."""

    stages: int
    """Pipeline stages."""

    max_steps: int
    """The most like iterations of one batch that `run` takes at once."""

    def run(self, batch: Batch) -> IntArray:
        """Return when each stage is done with each step, in ns from the step's start, shape ``[steps, stages]``.

        Every step stands alone, on an idle instance; a row never decreases. Raises
        `foundation.errors.SimulationError`, naming the batch.
        """


class TraceExecutor:
    """Batch shape -> `generate` -> trace -> `lower` -> graph -> backend -> finish of the slowest rank of each stage.

    `mesh` says which ranks form a stage. `generate` and `lower` may go through files (see `orchestrator.interfaces`),
    then with one step at a time: `max_steps`.
    """

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
        self._stopwatch = stopwatch

    def run(self, batch: Batch) -> IntArray:
        """See `Executor.run`."""
        try:
            with self._stopwatch.measure("trace generation"):
                trace = self._generate([batch.shape()])
            with self._stopwatch.measure("graph conversion"):
                graph = self._lower(trace)
            with self._stopwatch.measure("backend"):
                result = self._backend.simulate(graph)
        except SimulationError as error:
            raise SimulationError(f"batch {batch.serial}: {error}") from error
        return self._stage_finishes(result)

    def _stage_finishes(self, result: IterationResult) -> IntArray:
        finishes = np.zeros((result.finish_ns.shape[0], self.stages), dtype=np.int64)
        for column, ranks in enumerate(result.rank_sets):
            for stage in self._mesh.stages_of(ranks):
                np.maximum(finishes[:, stage], result.finish_ns[:, column], out=finishes[:, stage])
        np.maximum.accumulate(finishes, axis=1, out=finishes)
        return finishes
