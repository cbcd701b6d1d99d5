"""The backend that hands every graph to an external ASTRA-sim binary, whatever runs that binary."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from analytical.machine.limits import LONGEST_RUN_NS
from converters.chakra.graph_writer import GraphWriter
from converters.execution_graph import ExecutionGraph, IntArray, IterationResult
from external.astra_sim.adapt import Adapted, Configuration, adapt
from external.astra_sim.answer import read_cycles
from external.astra_sim.case import case_key, write_case
from external.astra_sim.runner import Output, RunFailedError, Runner
from external.result_cache import ResultCache
from foundation.errors import SimulationError


class AstraSimBackend:
    """Simulates graphs by running an ASTRA-sim binary on each step, `jobs` of a graph's steps at a time.

    `flags`: the binary's own options (without dashes) beside the files. `cache`: None for none. The backend owns the
    runner and the cache, and closes them.
    """

    def __init__(
        self,
        runner: Runner,
        configuration: Configuration,
        *,
        flags: Mapping[str, str],
        cache: ResultCache | None,
        jobs: int,
    ) -> None:
        self._runner = runner
        self._configuration = configuration
        self._flags = dict(flags)
        self._cache = cache
        self._pool = ThreadPoolExecutor(jobs) if jobs > 1 else None
        self._writer = GraphWriter()
        self._iterations = 0
        self._simulated = 0
        self._lock = threading.Lock()

    @property
    def description(self) -> str:
        """What runs the graphs: a path, an image, a spool folder."""
        return self._runner.description

    def identity(self) -> str | None:
        """What runs the graphs, by content, or None where that cannot be known."""
        return self._runner.identity()

    def simulate(self, graph: ExecutionGraph) -> IterationResult:
        """Return every rank's finish time and exposed communication for each step of `graph`.

        Raises `SimulationError` naming the iteration (steps counted from 1 over the backend's life), what happened,
        and the folder in which the run's inputs and outputs are kept.
        """
        steps = range(graph.steps)
        first = self._iterations + 1
        self._iterations += graph.steps

        def one(step: int) -> IntArray:
            return self._step(graph, step, first + step)

        if self._pool is not None and graph.steps > 1:
            answers = list(self._pool.map(one, steps))
        else:
            answers = [one(step) for step in steps]
        return _result(graph, np.stack(answers))

    def statistics(self) -> dict[str, int]:
        """Return how many steps were asked for, how many of them the cache answered, and how many the binary ran."""
        hits = self._cache.hits if self._cache is not None else 0
        return {"steps": self._iterations, "cache_hits": hits, "runs": self._simulated}

    def close(self) -> None:
        """Stop the runner; the folder of a failed iteration stays."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._runner.close()
        if self._cache is not None:
            self._cache.close()

    def _step(self, graph: ExecutionGraph, step: int, iteration: int) -> IntArray:
        """Return ``[2, ranks]``: finish and exposed ns of one step."""
        adapted = adapt(graph, step, self._configuration)
        identity = self._runner.identity() if self._cache is not None else None
        key = None
        if self._cache is not None and identity is not None:
            key = case_key(adapted, self._configuration, self._flags, identity)
            stored = self._cache.get(key)
            if stored is not None and len(stored) == 16 * adapted.ranks:
                known = np.frombuffer(stored, np.int64).reshape(2, adapted.ranks)
                if _too_early(adapted, known[0]) is None and known.max() <= LONGEST_RUN_NS:
                    return known  # anything else was not written by us: it is worked out, and replaced
        answer, ran = self._run(adapted, iteration)
        if self._cache is not None and key is not None and ran == identity:
            self._cache.put(key, answer.tobytes())
        return answer

    def _run(self, adapted: Adapted, iteration: int) -> tuple[IntArray, str | None]:
        """Run the binary on one case; return its answer and the identity of what gave it."""
        place = f"iteration {iteration}: {self._runner.description}"
        try:
            folder = self._runner.new_folder(f"iteration-{iteration:06d}")
        except OSError as error:
            raise SimulationError(f"{place}: cannot make a folder for the graph: {_reason(error)}") from error
        output, arguments = None, []
        try:
            with self._lock:
                arguments = write_case(folder, adapted, self._configuration, self._flags, self._writer)
            output = self._runner.run(folder, arguments)
            with self._lock:
                self._simulated += 1
            answer = _answer(adapted, read_cycles(output, adapted.ranks))
        except (OSError, RunFailedError) as error:
            reason = f"the graph cannot be written: {_reason(error)}" if isinstance(error, OSError) else str(error)
            kept = self._runner.locate(folder)
            _keep(kept, self._runner.command_line(arguments), output)
            raise SimulationError(f"{place}: {reason}; its inputs are kept in {kept}") from error
        self._runner.discard(folder)
        return answer, output.identity


def _answer(adapted: Adapted, cycles: Mapping[int, tuple[int, int]]) -> IntArray:
    """Return ``[2, ranks]`` without what was added to the graph. Raises `RunFailedError` for what cannot be."""
    finish = [cycles[rank][0] - adapted.surplus_ns[rank] for rank in range(adapted.ranks)]
    exposed = [cycles[rank][1] for rank in range(adapted.ranks)]
    answer = np.array([finish, exposed], np.int64)
    rank = _too_early(adapted, answer[0])
    if rank is not None:
        raise RunFailedError(f"rank {rank} finished after {cycles[rank][0]} cycles, but its first node takes longer")
    return answer


def _too_early(adapted: Adapted, finish_ns: IntArray) -> int | None:
    """Return a rank that is said to have finished before anything could end, or None.

    Where something may end at 0, what was added to the graph takes time; else a rank's own first node does.
    """
    least = np.array([0 if surplus else 1 for surplus in adapted.surplus_ns])
    early = np.flatnonzero(finish_ns < least)
    return int(early[0]) if early.size else None


def _result(graph: ExecutionGraph, answers: IntArray) -> IterationResult:
    """Gather ``answers [steps, 2, ranks]`` by rank set; sets whose ranks differ fall apart into single ranks."""
    sets: list[tuple[int, ...]] = []
    for rank_graph in graph.rank_graphs:
        columns = answers[:, :, list(rank_graph.ranks)]
        alike = bool((columns == columns[:, :, :1]).all())
        sets += [rank_graph.ranks] if alike else [(rank,) for rank in rank_graph.ranks]
    firsts = [first for first, *_ in sets]
    return IterationResult(tuple(sets), answers[:, 0, firsts], answers[:, 1, firsts])


def _reason(error: OSError) -> str:
    return f"{error.strerror or error} (free space, or name another folder with --work_dir)"


def _keep(folder: Path, command: str, output: Output | None) -> None:
    """Write the command, and what the run printed, beside its inputs, as far as the disk allows."""
    texts = {"command": f"{command}\n"}
    if output is not None:
        texts |= {"stdout": output.stdout, "stderr": output.stderr}
    for name, text in texts.items():
        with contextlib.suppress(OSError):
            (folder / name).write_text(text, encoding="utf-8")
