"""The registry of backends: names, and the modules that hold their settings (`converters.backend` has the contract)."""

from __future__ import annotations

from converters.backend import BackendFactory
from foundation.registry import Registry

backends: Registry[type[BackendFactory]] = Registry("backend")

backends.register_lazy("embedded", "analytical.settings", "EmbeddedSettings")
backends.register_lazy("astra-sim", "external.astra_sim.settings", "ProcessSettings")
backends.register_lazy("docker", "external.astra_sim.settings", "ContainerSettings")
backends.register_lazy("spool", "external.astra_sim.settings", "SpoolSettings")
