"""The embedded backend: simulates execution graphs in this process, giving ASTRA-sim's cycles."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from analytical.chains.evaluator import ChainEvaluator, NotAChainError
from analytical.chains.plan import ChainPlan, plan_chains
from analytical.chains.solver import CollectiveSolver
from analytical.collectives.models import Models
from analytical.machine.description import Machine
from analytical.machine.options import parse_options
from analytical.machine.validation import check_graph
from analytical.plan_cache import StructureCache
from astra_files.memory import RemoteMemoryConfig
from astra_files.network import NetworkConfig
from astra_files.per_node import read_per_node
from astra_files.system import SystemConfig
from converters.execution_graph import ExecutionGraph, IterationResult
from converters.metadata import without_metadata
from foundation.errors import SimulationError
from foundation.records import dataclass

if TYPE_CHECKING:
    from analytical.events.runner import EventRunner
    from analytical.ordered.evaluator import OrderedEvaluator, OrderedPlan


class EmbeddedBackend:
    """Simulates graphs on one machine.

    Graphs of chains are evaluated without an event queue (`chains`), others by an order of events found once for like
    graphs and steps (`ordered`), and what keeps no order that can be proven is run: with collectives as a whole and
    ranks that are alike as one (`actors`), for every rank with whole phases solved at once, or message by message where
    the order of events could decide something that these cannot know.
    All ways give the same answers.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._models = Models(machine)
        self.chains = ChainEvaluator(machine, self._models.delays)
        self.plans = StructureCache(self._plan)

    @cached_property
    def ordered(self) -> OrderedEvaluator:
        """The evaluator of graphs that are no chains, loaded when there is one: most runs have none."""
        from analytical.ordered.evaluator import OrderedEvaluator

        return OrderedEvaluator(self.machine, self._models.delays)

    @cached_property
    def events(self) -> EventRunner:
        """The simulation by events, loaded when a graph needs it."""
        from analytical.events.runner import EventRunner

        return EventRunner(self._models)

    def simulate(self, graph: ExecutionGraph) -> IterationResult:
        """Return the finish time and exposed communication of every rank, in ns, for each of the graph's steps.

        The columns of a graph that `plan_cache.STRUCTURE` names are not to be changed in place between calls.
        Raises `SimulationError` naming rank and node where ASTRA-sim stops, hangs, crashes or answers nonsense.
        """
        if self.machine.options.skip_metadata:
            graph = without_metadata(graph)
        planned = self.plans.get(graph)
        if not isinstance(planned.plan, ChainPlan):
            return self.ordered.evaluate(planned.plan, graph, planned.solver, self._by_events)
        try:
            return self.chains.evaluate(planned.plan, graph, planned.solver)
        except (NotAChainError, SimulationError):
            return self._by_events(graph)  # which knows better, or says where it is stuck

    def _by_events(self, graph: ExecutionGraph) -> IterationResult:
        from analytical.actors.runner import ActorRunner

        check_graph(graph, self.machine.network, self.machine.system, self.machine.memory)
        return ActorRunner(self._models, graph).simulate() or self.events.simulate(graph)

    def close(self) -> None:
        """Nothing to release."""

    def _plan(self, graph: ExecutionGraph) -> Planned:
        machine = self.machine
        check_graph(graph, machine.network, machine.system, machine.memory)
        plan: ChainPlan | OrderedPlan | None = plan_chains(graph, machine)
        if plan is None:
            from analytical.ordered.evaluator import OrderedPlan

            plan = OrderedPlan()
        return Planned(plan, CollectiveSolver(self._models, graph.groups))


@dataclass(frozen=True, slots=True)
class Planned:
    """What is kept of a graph's structure: its plan, and the collectives solved so far."""

    plan: ChainPlan | OrderedPlan
    solver: CollectiveSolver


def create(*, network: str, system: str, memory: str, options: dict[str, str]) -> EmbeddedBackend:
    """Return a backend for the text of the three configuration files.

    `options`: ``congestion`` (unaware, aware), ``num_queues_per_dim``, ``injection_scale``, ``rendezvous_protocol``
    (true, false). Raises `UserError`.
    """
    parsed = SystemConfig.from_text(system, "system configuration")
    return EmbeddedBackend(
        Machine(
            NetworkConfig.from_text(network, "network configuration"),
            parsed,
            RemoteMemoryConfig.from_text(memory, "memory configuration"),
            parse_options(options),
            read_per_node(parsed),
        )
    )
