"""The contract between the orchestrator and whatever simulates execution graphs, and the registry of backends."""

from __future__ import annotations

from typing import Protocol

from converters.execution_graph import ExecutionGraph, IterationResult
from foundation.registry import Registry


class Backend(Protocol):
    """Simulates graphs, each alone and from t = 0 on an idle network, for one network/system/memory configuration."""

    def simulate(self, graph: ExecutionGraph) -> IterationResult:
        """Return every rank's finish time and exposed communication, for each of the graph's steps.

        Raises `foundation.errors.SimulationError` when the graph cannot complete, naming rank and node.
        """

    def close(self) -> None:
        """Release processes, containers and files. Called once, also after a failure."""


class BackendFactory(Protocol):
    """Builds a backend. The three files are the effective ones, already written or generated."""

    def __call__(self, *, network: str, system: str, memory: str, options: dict[str, str]) -> Backend:
        """Take the configuration files' text (YAML, JSON, JSON) and the backend's own options from the flags."""


backends: Registry[BackendFactory] = Registry("backend")
EMBEDDED = "embedded"
"""The backend in this process, which needs no options."""

backends.register_lazy(EMBEDDED, "analytical.embedded", "create")
backends.register_lazy("astra-sim", "external.astra_sim.factories", "create_process")
backends.register_lazy("docker", "external.astra_sim.factories", "create_docker")
backends.register_lazy("spool", "external.astra_sim.factories", "create_spool")
