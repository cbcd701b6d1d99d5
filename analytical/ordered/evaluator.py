"""Graphs that are no chains, all steps at once: an order found on one step serves every step that provably keeps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, replace

import numpy as np

from analytical.chains.message_delays import MessageDelays
from analytical.chains.solver import CollectiveSolver
from analytical.events.program import Task
from analytical.machine.compute import step_runtimes
from analytical.machine.description import Machine
from analytical.machine.limits import LONGEST_NS
from analytical.machine.network import DelayModel
from analytical.machine.remote_memory import transfer_ns
from analytical.ordered.compiling import compile_order
from analytical.ordered.evaluating import NotOrderedError, OrderEvaluator
from analytical.ordered.finding import OrderFinder
from analytical.ordered.order import Order
from analytical.ordered.results import Results
from analytical.ordered.structure import Structure, structure_of
from converters.execution_graph import ExecutionGraph, IntArray, IterationResult, RankGraph
from foundation.errors import SimulationError
from foundation.records import dataclass

ORDERS_KEPT = 8
"""Of a structure, the latest."""

FUTILE_SEARCHES = 4
"""After so many orders in a row that did not hold for the very step they were found on, no more are looked for."""

SEARCH_COST = 3
"""What a structure and its first order cost, a set of ranks: as much as so many ranks for a step in the event queue."""

Fallback = Callable[[ExecutionGraph], IterationResult]
"""What simulates the steps that no order is proven for."""


@dataclass(slots=True)
class OrderedPlan:
    """What is known of a graph's structure: itself, once it is worth it, and the orders found, the latest used last.

    `seen`: how many graphs of it came. `known`: whether `structure` has been looked for.
    """

    seen: int = 0
    known: bool = False
    structure: Structure | None = None
    orders: list[Order] = field(default_factory=list)

    def of(self, graph: ExecutionGraph, machine: Machine) -> Structure:
        """Return the structure. Raises `NotOrderedError` if it has what only the event queue knows."""
        if not self.known:
            self.structure, self.known = structure_of(graph, machine), True
        if self.structure is None:
            raise NotOrderedError
        return self.structure

    def worth_it(self, graph: ExecutionGraph) -> bool:
        """Count a graph, and say whether it pays to look for its order.

        Not for a single step of ranks that all differ, which may never come again.
        """
        self.seen += 1
        return self.seen > 1 or graph.steps * graph.num_ranks >= SEARCH_COST * len(graph.rank_graphs)

    def used(self, order: Order) -> None:
        """Keep `order` as the latest."""
        self.orders = [*(one for one in self.orders if one is not order), order][-ORDERS_KEPT:]


class OrderedEvaluator:
    """Evaluates plans for one machine."""

    def __init__(self, machine: Machine, delays: DelayModel) -> None:
        self._machine = machine
        self._delays = MessageDelays(delays)

    def evaluate(
        self, plan: OrderedPlan, graph: ExecutionGraph, solver: CollectiveSolver, fallback: Fallback
    ) -> IterationResult:
        """Return the result of every step; `fallback` has the last word, and says what is wrong with a graph."""
        if not plan.worth_it(graph):
            return fallback(graph)
        try:
            results = self.proven(plan, graph, solver)
        except (NotOrderedError, SimulationError):
            return fallback(graph)
        steps = results.unproven()
        if len(steps) == graph.steps:
            return fallback(graph)
        if steps.size:
            results.fill(steps, fallback(_at(graph, steps)))
        return results.joined()

    def proven(self, plan: OrderedPlan, graph: ExecutionGraph, solver: CollectiveSolver) -> Results:
        """Return the results of the steps that an order, known or new, is proven for.

        Raises `NotOrderedError` or `SimulationError` where the event queue has to take all of them.
        """
        structure = plan.of(graph, self._machine)
        results = Results(structure, graph.steps)
        for order in reversed(plan.orders):
            if results.left.size:
                self._apply(plan, order, graph, solver, results)
        futile = 0
        while results.left.size and futile < FUTILE_SEARCHES:
            step = int(results.left[0])
            found = self._find(structure, graph, step, solver)
            if found is None:
                break
            self._apply(plan, found, graph, solver, results)
            if results.left.size and int(results.left[0]) == step:
                results.put_off(step)
                futile += 1
            else:
                futile = 0
        return results

    def _apply(
        self, plan: OrderedPlan, order: Order, graph: ExecutionGraph, solver: CollectiveSolver, results: Results
    ) -> None:
        """Evaluate the steps that are left in one order, and take those that keep it."""
        steps = results.left
        part = graph if len(steps) == graph.steps else _at(graph, steps)
        timed = OrderEvaluator(plan.of(part, self._machine), part, self._machine, solver, self._delays).evaluate(order)
        if timed.proven.any():
            plan.used(order)
            results.take(steps, timed)

    def _find(self, structure: Structure, graph: ExecutionGraph, step: int, solver: CollectiveSolver) -> Order | None:
        runtimes = [
            self._runtime(own.program.task, own.program.order, one, step)
            for own, one in zip(structure.sets, graph.rank_graphs, strict=True)
        ]
        log = OrderFinder(structure, graph, runtimes, solver, self._delays).find()
        return None if log is None else compile_order(structure, log, self._machine)

    def _runtime(self, task: bytes, order: IntArray, graph: RankGraph, step: int) -> Sequence[int]:
        """Return by row the ns of the nodes that take a time of their own."""
        known = step_runtimes(graph, step, self._machine.system)[order]
        if known.max() > LONGEST_NS:
            raise NotOrderedError
        runtime: list[int] = known.astype(np.int64).tolist()
        if Task.MEMORY in task:
            sizes = graph.work.at(step)[1][order].tolist()
            for row, kind in enumerate(task):
                if kind == Task.MEMORY:
                    runtime[row] = transfer_ns(self._machine.memory, sizes[row])
        return runtime


def _at(graph: ExecutionGraph, steps: IntArray) -> ExecutionGraph:
    """Return some steps of a graph."""
    some = [replace(one, work=one.work.of_steps(steps), annotations={}) for one in graph.rank_graphs]
    return ExecutionGraph(some, graph.groups)
