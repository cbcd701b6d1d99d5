"""`--perf_model aiconfigurator`: kernels as NVIDIA's aiconfigurator measured them; the roofline for all others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from trace_gen.perf_models import perf_models

if TYPE_CHECKING:
    from trace_gen.perf_model import PerfModel, PerfModelOptions

FRAMEWORKS = ("vllm", "sglang", "trtllm")
"""The engines whose kernels were measured."""


@perf_models.register("aiconfigurator")
@dataclass(frozen=True)
class AiconfiguratorSettings:
    """Tables of measured kernels. See `trace_gen.perf_models.aiconfigurator.model`."""

    aiconfigurator_tables: Path | None = setting(
        None,
        "a folder of aiconfigurator's systems",
        shown_default="those of the installed package aiconfigurator-core",
        folder=True,
        implies=True,
    )
    aiconfigurator_system: str | None = setting(
        None, "the system whose tables are read", shown_default="what the device's file names"
    )
    aiconfigurator_framework: str = setting("vllm", "the engine whose kernels were measured", choices=FRAMEWORKS)

    def model(self, options: PerfModelOptions) -> PerfModel:
        """Return the model; tables that are not there or wrong, or a device without any, are a `UserError`."""
        from trace_gen.perf_models.aiconfigurator.building import build

        return build(options, self.aiconfigurator_tables, self.aiconfigurator_system, self.aiconfigurator_framework)
