"""`--arrivals on-off`: a Poisson process that is there for a while, then away for a while (an interrupted one).

`request_rate` is the rate over all time; while it is there it is that times (on + off) / on. Both kinds of time are
exponential (a Markov-modulated process), or always the same. It begins with a time in which it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.requests.generators.arrivals import ArrivalPlace, arrival_processes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_S = 1e7


@arrival_processes.register("on-off")
@dataclass(frozen=True)
class OnOff:
    """Poisson for a while, nothing for a while."""

    own_rate: ClassVar[bool] = False
    on_time: float = setting(10.0, "mean time in which requests come", unit="s", least=1e-3, most=_MOST_S, implies=True)
    off_time: float = setting(10.0, "mean time in which none come", unit="s", least=0, most=_MOST_S, implies=True)
    on_off_times: str = setting(
        "exponential", "how both times are distributed", choices=("exponential", "fixed"), implies=True
    )

    def times(self, place: ArrivalPlace) -> Iterator[NDArray[np.int64]]:
        """See `ArrivalProcess`."""
        import numpy as np

        from orchestrator.requests.generators.clocks import nanoseconds, poisson_clock, summed

        peak = place.mean_rate * (self.on_time + self.off_time) / self.on_time
        on_ends = summed(self._drawn(place, "on", self.on_time), at_zero=False)
        off_ends = summed(self._drawn(place, "off", self.off_time), at_zero=False)
        on, off = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
        for clock in poisson_clock(place):
            # Time in which requests come goes by as the clock does; before its n-th part n times off have gone by.
            there = nanoseconds(clock / peak)
            while not len(on) or on[-1] <= there[-1]:
                on, off = np.concatenate((on, next(on_ends))), np.concatenate((off, next(off_ends)))
            yield there + off[np.searchsorted(on, there, side="right")]

    def _drawn(self, place: ArrivalPlace, purpose: str, mean_s: float) -> Callable[[int], NDArray[np.int64]]:
        """Return what draws so many times of one kind, in ns, at least 1."""
        import numpy as np

        from orchestrator.requests.generators.clocks import nanoseconds
        from orchestrator.requests.generators.elementary import log

        stream = place.stream(purpose)
        least = 1 if purpose == "on" else 0

        def drawn(size: int) -> NDArray[np.int64]:
            if self.on_off_times == "fixed":
                return np.full(size, max(least, round(mean_s * 1e9)), dtype=np.int64)
            return np.maximum(nanoseconds(-log(stream.uniforms(size)) * mean_s), least)

        return drawn
