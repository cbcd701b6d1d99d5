"""The contract between the orchestrator and whatever simulates execution graphs, and the registry of backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from foundation.registry import Registry

if TYPE_CHECKING:
    from converters.execution_graph import ExecutionGraph, IterationResult


class Backend(Protocol):
    """Simulates graphs, each alone and from t = 0 on an idle network, for one network/system/memory configuration."""

    def simulate(self, graph: ExecutionGraph) -> IterationResult:
        """Return every rank's finish time and exposed communication, for each of the graph's steps.

        Raises `foundation.errors.SimulationError` when the graph cannot complete, naming rank and node.
        """

    def close(self) -> None:
        """Release processes, containers and files. Called once, also after a failure."""


class BackendSettings(Protocol):
    """The settings of a backend."""

    external: ClassVar[bool]
    """Whether a program outside this process simulates."""

    def start(self, *, network: str, system: str, memory: str) -> Backend:
        """Return a backend for the text of the three effective files (YAML, JSON, JSON); may raise `UserError`."""


backends: Registry[type[BackendSettings]] = Registry("backend")

backends.register_lazy("embedded", "analytical.settings", "EmbeddedSettings")
backends.register_lazy("astra-sim", "external.astra_sim.settings", "ProcessSettings")
backends.register_lazy("docker", "external.astra_sim.settings", "ContainerSettings")
backends.register_lazy("spool", "external.astra_sim.settings", "SpoolSettings")
