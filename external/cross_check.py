"""A backend that has every graph simulated twice, by two backends, and stops at the first difference."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from converters.backend import Backend
from converters.chakra.graph_writer import write_graph
from converters.execution_graph import ExecutionGraph, IntArray, IterationResult
from foundation.errors import SimulationError, UserError

_SHOWN = 4


class CrossCheckedBackend:
    """Answers with `first`'s results after `second` has given the same, rank for rank and step for step.

    At the first difference it raises a `SimulationError` that prints both and names the folder (under `work_dir`,
    default the system's temporary folder) with the graph and the configuration `files` (name -> text). So it does, with
    both, when only one of the two can simulate a graph.
    """

    def __init__(
        self,
        first: Backend,
        second: Backend,
        *,
        names: tuple[str, str],
        files: dict[str, str],
        work_dir: str | None = None,
    ) -> None:
        self._first, self._second = first, second
        self._names = names
        self._files = files
        self._work_dir = work_dir
        self._steps = 0

    def simulate(self, graph: ExecutionGraph) -> IterationResult:
        """Simulate `graph` twice and return the first backend's answer."""
        mine, trouble = self._attempt(self._first, graph)
        theirs, their_trouble = self._attempt(self._second, graph)
        start = self._steps + 1
        self._steps += graph.steps
        if mine is None or theirs is None:
            self._compare_failures(graph, start, trouble, their_trouble)
        else:
            self._compare(graph, start, mine, theirs)
            return mine
        raise trouble or SimulationError("neither backend answered")

    def statistics(self) -> dict[str, int]:
        """Return the steps compared, and both backends' own statistics under their names."""
        counts = {"steps_cross_checked": self._steps}
        for name, backend in zip(self._names, (self._first, self._second), strict=True):
            own: dict[str, int] = getattr(backend, "statistics", dict)()
            counts |= {f"{name} {key}": value for key, value in own.items()}
        return counts

    def close(self) -> None:
        """Close both."""
        try:
            self._first.close()
        finally:
            self._second.close()

    @staticmethod
    def _attempt(backend: Backend, graph: ExecutionGraph) -> tuple[IterationResult | None, SimulationError | None]:
        try:
            return backend.simulate(graph), None
        except SimulationError as error:
            return None, error

    def _compare_failures(
        self, graph: ExecutionGraph, start: int, mine: SimulationError | None, theirs: SimulationError | None
    ) -> None:
        """Both failing is agreement; one alone is a difference."""
        if mine is not None and theirs is not None:
            return
        said = [f"{name} {error or 'answered'}" for name, error in zip(self._names, (mine, theirs), strict=True)]
        raise SimulationError(
            f"cross-check: iteration {start}: {said[0]}; {said[1]}; inputs kept in {self._keep(graph, 0)}"
        ) from (mine or theirs)

    def _compare(self, graph: ExecutionGraph, start: int, mine: IterationResult, theirs: IterationResult) -> None:
        left, right = _by_rank(mine, graph.num_ranks), _by_rank(theirs, graph.num_ranks)
        if np.array_equal(left, right):
            return
        step = int(np.flatnonzero((left != right).any(axis=(0, 2)))[0])
        ranks = np.flatnonzero((left[:, step] != right[:, step]).any(axis=0)).tolist()
        shown = ", ".join(
            f"rank {rank}: {self._names[0]} finished after {left[0, step, rank]} ns (exposed {left[1, step, rank]}), "
            f"{self._names[1]} after {right[0, step, rank]} ns (exposed {right[1, step, rank]})"
            for rank in ranks[:_SHOWN]
        )
        more = f" and {len(ranks) - _SHOWN} more ranks" if len(ranks) > _SHOWN else ""
        kept = self._keep(graph, step)
        raise SimulationError(f"cross-check: iteration {start + step} differs: {shown}{more}; inputs kept in {kept}")

    def _keep(self, graph: ExecutionGraph, step: int) -> str:
        """Write the graph and the configuration files; a full disk takes nothing from the message it belongs to."""
        try:
            if self._work_dir is not None:
                Path(self._work_dir).mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="orrery-cross-check-", dir=self._work_dir))
            write_graph(graph, folder / "graph", step)
            for name, text in self._files.items():
                (folder / name).write_text(text, encoding="utf-8")
        except (OSError, UserError) as error:
            return f"no folder ({error.strerror if isinstance(error, OSError) else error.what})"
        return str(folder)


def _by_rank(result: IterationResult, ranks: int) -> IntArray:
    """Return ``[2, steps, ranks]``: finish and exposed ns; -1 for a rank that was not answered."""
    table = np.full((2, result.finish_ns.shape[0], ranks), -1, np.int64)
    for column, rank_set in enumerate(result.rank_sets):
        table[0][:, list(rank_set)] = result.finish_ns[:, column, None]
        table[1][:, list(rank_set)] = result.exposed_ns[:, column, None]
    return table
