"""`--arrivals diurnal`: a Poisson process whose rate swings about its mean as a sine, a day long or what is asked for.

The rate at time t is ``request_rate * (1 + amplitude * sin(2 pi (t / period + phase)))``, in 1,000 equal steps of a
period, each with the value at its middle.
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

_STEPS = 1000


@arrival_processes.register("diurnal")
@dataclass(frozen=True)
class Diurnal:
    """Poisson, at a rate that swings as a sine."""

    own_rate: ClassVar[bool] = False
    diurnal_period: float = setting(86400.0, "length of a swing", unit="s", least=1e-3, most=1e8, implies=True)
    diurnal_amplitude: float = setting(
        0.5, "how far the rate goes from its mean, in means", least=0, most=1, implies=True
    )
    diurnal_phase: float = setting(
        0.0, "where in a swing time 0 is: 0 at the mean and rising, 0.25 at the top", least=0, most=1, implies=True
    )

    def times(self, place: ArrivalPlace) -> Iterator[NDArray[np.int64]]:
        """See `ArrivalProcess`."""
        import numpy as np

        from orchestrator.requests.generators.clocks import nanoseconds, poisson_clock

        reached = self._reached()
        in_period = place.mean_rate * self.diurnal_period
        for clock in poisson_clock(place):
            swings = np.floor(clock / in_period)
            rest = (clock / in_period - swings) * reached[-1]
            step = np.minimum(np.searchsorted(reached, rest, side="right"), _STEPS) - 1
            height = reached[step + 1] - reached[step]
            within = np.where(height > 0.0, (rest - reached[step]) / np.where(height > 0.0, height, 1.0), 0.0)
            yield nanoseconds((swings + (step + within) / _STEPS) * self.diurnal_period)

    def _reached(self) -> NDArray[np.float64]:
        """Return the shares of a swing's requests that come before each step, from 0 on, the last before its end."""
        import numpy as np

        from orchestrator.requests.generators.elementary import sine_of_turn

        turns = [((step + 0.5) / _STEPS + self.diurnal_phase) % 1.0 for step in range(_STEPS)]
        rates = [max(0.0, 1.0 + self.diurnal_amplitude * sine_of_turn(turn)) for turn in turns]
        return np.concatenate(([0.0], np.cumsum(rates)))
