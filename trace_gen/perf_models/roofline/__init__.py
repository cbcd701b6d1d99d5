"""`--perf_model roofline`: datasheet numbers and fitted efficiencies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from trace_gen.perf_models import perf_models

if TYPE_CHECKING:
    from trace_gen.perf_model import PerfModelOptions
    from trace_gen.perf_models.roofline.model import RooflineModel


@perf_models.register("roofline")
@dataclass(frozen=True)
class RooflineSettings:
    """Datasheet numbers and fitted efficiencies. See `trace_gen.perf_models.roofline.model`."""

    def model(self, options: PerfModelOptions) -> RooflineModel:
        """Return the roofline of the device."""
        from trace_gen.perf_models.roofline.model import RooflineModel

        return RooflineModel(options)
