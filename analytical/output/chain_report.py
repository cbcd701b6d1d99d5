"""The report of large graphs of chains: evaluated as chains, statistics once for ranks that are alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analytical.chains.evaluator import ChainEvaluator, NotAChainError
from analytical.chains.meetings import Meeting
from analytical.chains.plan import ChainPlan, plan_chains
from analytical.chains.solver import CollectiveSolver
from analytical.chains.stops import CollectiveStop, MessageStop, SoloRun
from analytical.chains.volume import CollectiveVolume
from analytical.collectives.models import Models
from analytical.events.program import compile_graph
from analytical.machine.network import DelayModel
from analytical.machine.validation import check_graph
from analytical.output.report import network_lines, rank_lines
from analytical.output.statistics import chain_statistics
from converters.execution_graph import ExecutionGraph
from foundation.errors import SimulationError


def report_chains(models: Models, graph: ExecutionGraph) -> Iterator[str] | None:
    """Return the lines of `graph`'s first step, ranks by finish and number; None if it is not for this way."""
    machine = models.machine
    check_graph(graph, machine.network, machine.system, machine.memory)
    plan = plan_chains(graph, machine)
    if plan is None:
        return None
    solver = CollectiveSolver(models, graph.groups)
    try:
        result = ChainEvaluator(machine, models.delays).evaluate(plan, graph, solver)
    except (NotAChainError, SimulationError):
        return None
    volume = _Volume(models, graph, solver).of(plan)
    return None if volume is None else _lines(models, graph, result.by_rank(), volume)


def _lines(
    models: Models, graph: ExecutionGraph, answer: dict[int, tuple[int, int]], volume: list[int]
) -> Iterator[str]:
    machine = models.machine
    of_rank = {rank: one for one in graph.rank_graphs for rank in one.ranks}
    known = {}
    for rank, (finish, exposed) in sorted(answer.items(), key=lambda item: (item[1][0], item[0])):
        key = (id(of_rank[rank]), finish)
        if key not in known:
            program = compile_graph(of_rank[rank], machine.system)
            known[key] = chain_statistics(program, 0, finish, machine.system, machine.memory)
        yield from rank_lines(rank, finish, exposed, known[key])
    yield from network_lines(machine.network, volume, max(finish for finish, _ in answer.values()))


class _Volume:
    """The bytes that a plan's collectives and messages send over each network dimension."""

    def __init__(self, models: Models, graph: ExecutionGraph, solver: CollectiveSolver) -> None:
        self._models = models
        self._graph = graph
        self._collectives = CollectiveVolume(models, solver)

    def of(self, plan: ChainPlan) -> list[int] | None:
        """Return the bytes by dimension; None where a phase's messages are only known by running it."""
        total = np.zeros(len(self._models.delays.counts), dtype=object)
        for stop in plan.stops:
            if isinstance(stop, MessageStop):
                total += self._message(plan, stop)
            elif isinstance(stop, SoloRun | CollectiveStop):
                for meeting, index, at in _meetings(stop):
                    size = int(self._graph.rank_graphs[index].comm_size[plan.sets[index].stop_rows[at]])
                    sent = self._collectives.of(meeting, size)
                    if sent is None:
                        return None
                    total += sent
        return [int(sent) for sent in total]

    def _message(self, plan: ChainPlan, stop: MessageStop) -> list[int]:
        index, at = stop.sender
        size = int(self._graph.rank_graphs[index].comm_size[plan.sets[index].stop_rows[at]])
        delays: DelayModel = self._models.delays
        sent = [0] * len(delays.counts)
        for rank in plan.sets[index].ranks:
            sent[delays.dimension(rank, rank + stop.delta)[0]] += size
        return sent


def _meetings(stop: SoloRun | CollectiveStop) -> Iterator[tuple[Meeting, int, int]]:
    """Yield each collective of a stop, with the set and number of one of its entries."""
    if isinstance(stop, SoloRun):
        for at, meeting in enumerate(stop.meetings, stop.first):
            yield meeting, stop.index, at
    else:
        yield stop.meeting, *stop.members[0]
