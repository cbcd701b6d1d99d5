"""`--arrivals poisson`: independent exponential gaps, never cut short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from orchestrator.requests.generators.arrivals import ArrivalPlace, arrival_processes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@arrival_processes.register("poisson")
@dataclass(frozen=True)
class Poisson:
    """A Poisson process: exponential gaps."""

    own_rate: ClassVar[bool] = False

    def times(self, place: ArrivalPlace) -> Iterator[NDArray[np.int64]]:
        """See `ArrivalProcess`."""
        from orchestrator.requests.generators.clocks import renewal
        from orchestrator.requests.generators.elementary import log

        return renewal(place, lambda uniforms: -log(uniforms))
