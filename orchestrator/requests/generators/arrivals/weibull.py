"""`--arrivals weibull`: gaps of a Weibull distribution: below shape 1 long silences and bursts, above it regular."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.requests.generators.arrivals import ArrivalPlace, arrival_processes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@arrival_processes.register("weibull")
@dataclass(frozen=True)
class Weibull:
    """Weibull-distributed gaps."""

    own_rate: ClassVar[bool] = False
    weibull_shape: float = setting(
        1.0, "shape of Weibull-distributed gaps: 1 is Poisson, less is burstier", least=0.1, most=100, implies=True
    )

    def times(self, place: ArrivalPlace) -> Iterator[NDArray[np.int64]]:
        """See `ArrivalProcess`. The mean of a Weibull distribution of scale 1 is gamma(1 + 1 / shape)."""
        from orchestrator.requests.generators.clocks import renewal
        from orchestrator.requests.generators.elementary import exp, log, log_gamma

        inverse = 1.0 / self.weibull_shape
        mean = log_gamma(1.0 + inverse)
        return renewal(place, lambda uniforms: exp(log(-log(uniforms)) * inverse - mean))
