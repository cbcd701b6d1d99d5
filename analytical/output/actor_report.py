"""The report of graphs run with actors: statistics once for ranks that are alike."""

from __future__ import annotations

from collections.abc import Iterator

from analytical.actors.run import ActorRun
from analytical.actors.runner import Acted, ActorRunner
from analytical.collectives.models import Models
from analytical.machine.validation import check_graph
from analytical.output.report import network_lines, rank_lines, run_statistics
from analytical.output.statistics import RankStatistics
from converters.execution_graph import ExecutionGraph


def report_actors(models: Models, graph: ExecutionGraph) -> Iterator[str] | None:
    """Return the lines of `graph`'s first step, ranks by finish and number; None if it is not for this way."""
    machine = models.machine
    check_graph(graph, machine.network, machine.system, machine.memory)
    runner = ActorRunner(models, graph)
    acted = runner.run(0)
    volume = None if acted is None else runner.volume(acted)
    return None if acted is None or volume is None else _lines(models, acted, volume)


def _lines(models: Models, acted: Acted, volume: list[int]) -> Iterator[str]:
    machine = models.machine
    finishes = sorted((_finish(run), rank, run.rank) for ranks, run in acted.runs for rank in ranks)
    known: dict[int, RankStatistics] = {}
    for finish, rank, actor in finishes:
        run = acted.simulation.runs[actor]
        if actor not in known:
            known[actor] = run_statistics(run, machine.system)
        yield from rank_lines(rank, finish, finish - run.gpu_ns, known[actor])
    yield from network_lines(machine.network, volume, finishes[-1][0])


def _finish(run: ActorRun) -> int:
    assert run.finished_ns is not None  # a step that has not ended is none that was acted
    return run.finished_ns
