"""The contract with whatever simulates execution graphs: what a backend is, and what makes one.

A backend knows `ExecutionGraph` and answers with `IterationResult` (`converters.execution_graph`); who runs backends
(the orchestrator) and who wraps them (cross-checks) know these protocols. The orchestrator's registry names them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from converters.execution_graph import ExecutionGraph, IterationResult


class Backend(Protocol):
    """Simulates graphs, each alone and from t = 0 on an idle network, for one network/system/memory configuration.

    One that keeps count also has ``statistics() -> dict[str, int]``, which a run prints at its end.
    """

    def simulate(self, graph: ExecutionGraph) -> IterationResult:
        """Return every rank's finish time and exposed communication, for each of the graph's steps.

        Raises `foundation.errors.SimulationError` when the graph cannot complete, naming rank and node.
        """

    def close(self) -> None:
        """Release processes, containers and files. Called once, also after a failure."""


class BackendFactory(Protocol):
    """The settings of a backend, a frozen dataclass that starts it."""

    def start(self, *, network: str, system: str, memory: str) -> Backend:
        """Return a backend for the text of the three effective files (YAML, JSON, JSON); may raise `UserError`."""
