"""The backends (`--backend`): what each is called and which module holds its settings; and their registry.

To add one: put a module into this package that registers a record of its settings under a name (docs/adding.md).
`converters.backend` has the contracts. Ours stand in packages of their own, which know nothing of the orchestrator, and
are named here.
"""

from __future__ import annotations

from converters.backend import BackendFactory
from foundation.registry import Registry

backends: Registry[type[BackendFactory]] = Registry("backend", package="orchestrator.backends")

backends.register_lazy("embedded", "analytical.settings", "EmbeddedSettings")
backends.register_lazy("astra-sim", "external.astra_sim.settings", "ProcessSettings")
backends.register_lazy("docker", "external.astra_sim.settings", "ContainerSettings")
backends.register_lazy("spool", "external.astra_sim.settings", "SpoolSettings")
