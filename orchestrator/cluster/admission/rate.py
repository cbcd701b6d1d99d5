"""`--admission rate`: a token bucket: requests at a rate, and a burst of them after a pause.

The bucket is kept as its generic cell rate algorithm (ITU-T I.371): the moment at which it will be full again moves on
by the time between two requests, a whole number of ns, with each one that is let in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.cluster.admission import gates

if TYPE_CHECKING:
    from orchestrator.cluster.pool import Pool
    from orchestrator.requests.request import Request


class RateGate:
    """See the module's docstring: `apart_ns` between two requests, `burst` of them at once."""

    def __init__(self, apart_ns: int, burst: int) -> None:
        self._apart_ns = apart_ns
        self._slack_ns = (burst - 1) * apart_ns
        self._full_ns = 0

    def refuses(self, request: Request, now: int, pool: Pool) -> str | None:
        """See `Gate.refuses`."""
        if self._full_ns - now > self._slack_ns:
            return f"the rate limit was reached (one request in {self._apart_ns} ns)"
        self._full_ns = max(self._full_ns, now) + self._apart_ns
        return None


@gates.register("rate")
@dataclass(frozen=True)
class RateGateSettings:
    """By a token bucket."""

    rate_limit: float = setting(100.0, "requests/s that are let in over time", least=1e-6, most=1e9, implies=True)
    rate_burst: int = setting(1, "requests that are let in at once after a pause", least=1, most=10**6)

    def gate(self) -> RateGate:
        """Return a new gate."""
        return RateGate(max(1, round(1e9 / self.rate_limit)), self.rate_burst)
