"""`--arrivals gamma`: gaps of a gamma distribution, as `vllm bench serve --burstiness` draws them.

`burstiness` is the distribution's shape: 1 is a Poisson process, less is burstier, ``inf`` is equal gaps. A gap's
coefficient of variation is ``burstiness ** -0.5`` (Vidur's `cv`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.requests.generators.arrivals import ArrivalPlace, arrival_processes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BURSTINESS = setting(
    1.0,
    "shape of gamma-distributed gaps: 1 is Poisson, less is burstier",
    least=1e-3,
    most=1e4,
    infinite=True,
    implies=True,
)


@arrival_processes.register("gamma")
@dataclass(frozen=True)
class Gamma:
    """Gamma-distributed gaps, more or less bursty."""

    own_rate: ClassVar[bool] = False
    burstiness: float = BURSTINESS

    def times(self, place: ArrivalPlace) -> Iterator[NDArray[np.int64]]:
        """See `ArrivalProcess`."""
        from orchestrator.requests.generators.clocks import renewal

        return renewal(place, lambda uniforms: gamma_gaps(self.burstiness, uniforms))


def gamma_gaps(burstiness: float, uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return gaps of mean 1."""
    import math

    import numpy as np

    from orchestrator.requests.generators.gamma import gamma_quantile

    return np.ones_like(uniforms) if math.isinf(burstiness) else gamma_quantile(burstiness, uniforms)
