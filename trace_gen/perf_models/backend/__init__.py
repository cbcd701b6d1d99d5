"""`--perf_model backend`: the backend's own roofline decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from trace_gen.perf_models import perf_models

if TYPE_CHECKING:
    from trace_gen.perf_model import PerfModelOptions
    from trace_gen.perf_models.backend.model import BackendModel


@perf_models.register("backend")
@dataclass(frozen=True)
class BackendRooflineSettings:
    """The roofline of the backend. See `trace_gen.perf_models.backend.model`."""

    def model(self, options: PerfModelOptions) -> BackendModel:
        """Return the model that leaves latencies to the backend."""
        from trace_gen.perf_models.backend.model import BackendModel

        return BackendModel()
