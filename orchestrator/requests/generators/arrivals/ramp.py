"""`--arrivals ramp`: the rate goes from one value to another with the number of requests, as vLLM's benchmark ramps it.

The i-th of n gaps is drawn at the rate start + (end - start) x i / (n - 1), or start x (end / start) ^ (i / (n - 1))
(vllm/benchmarks/serve.py). Where a ramp stands depends on how many requests there are: it ends with the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.requests.generators.arrivals import ArrivalPlace, arrival_processes
from orchestrator.requests.generators.arrivals.gamma import BURSTINESS, gamma_gaps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@arrival_processes.register("ramp")
@dataclass(frozen=True)
class Ramp:
    """From one rate to another."""

    own_rate: ClassVar[bool] = True
    ramp_up_strategy: str = setting("linear", "how the rate changes", choices=("linear", "exponential"), implies=True)
    ramp_up_start_rps: float = setting(
        1.0, "rate of the first requests", unit="requests/s", above=0, most=1e9, implies=True
    )
    ramp_up_end_rps: float = setting(
        10.0, "rate of the last requests", unit="requests/s", above=0, most=1e9, implies=True
    )
    burstiness: float = BURSTINESS

    def times(self, place: ArrivalPlace) -> Iterator[NDArray[np.int64]]:
        """See `ArrivalProcess`."""
        from orchestrator.requests.generators.clocks import nanoseconds, summed

        stream = place.stream("arrival")
        drawn = 0

        def gaps(size: int) -> NDArray[np.int64]:
            nonlocal drawn
            rates = self._rates(drawn, size, place.count) * place.fraction
            drawn += size
            return nanoseconds(gamma_gaps(self.burstiness, stream.uniforms(size)) / rates)

        return summed(gaps, at_zero=place.at_zero)

    def _rates(self, begin: int, size: int, count: int) -> NDArray[np.float64]:
        import numpy as np

        from orchestrator.requests.generators.elementary import exp, log

        progress = np.minimum(np.arange(begin, begin + size, dtype=np.float64) / max(count - 1, 1), 1.0)
        start, end = self.ramp_up_start_rps, self.ramp_up_end_rps
        if self.ramp_up_strategy == "linear":
            return start + (end - start) * progress
        return start * exp(progress * float(log(np.array([end / start]))[0]))
