"""`zipf`: the n-th shortest length with a probability that goes with n to the power of -theta."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem
from orchestrator.requests.generators.lengths import MOST_TOKENS, Role, distributions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@distributions.register("zipf")
@dataclass(frozen=True)
class Zipf:
    """Zipf: short ones are the likeliest."""

    least: int = setting(1024, "least length of {them}", unit="tokens", least=1, most=MOST_TOKENS)
    most: int = setting(4096, "greatest length of {them}", unit="tokens", least=1, most=MOST_TOKENS)
    theta: float = setting(
        0.6, "exponent of Zipf's law of {them}; 0: all lengths as likely", least=0, most=20, implies=True
    )

    def problems(self) -> Iterator[Problem]:
        """The limits are in order."""
        if self.least > self.most:
            yield Problem("least", f"{self.least} is above the greatest length {self.most}", "exchange them")

    def tokens(self, uniforms: NDArray[np.float64], role: Role) -> NDArray[np.int64]:
        """See `LengthDistribution`."""
        found: NDArray[np.int64] = zipf_ranks(uniforms, self.most - self.least + 1, self.theta) + self.least
        return found


def zipf_ranks(uniforms: NDArray[np.float64], count: int, theta: float) -> NDArray[np.int64]:
    """Return places from 0 to `count` - 1, place n with a probability that goes with (n + 1) ** -theta."""
    import numpy as np

    if theta == 0.0:
        return np.floor(uniforms * count).astype(np.int64)
    reached = _cumulative(count, theta)
    found = np.searchsorted(reached, uniforms * reached[-1], side="right")
    places: NDArray[np.int64] = np.minimum(found, count - 1).astype(np.int64)
    return places


@lru_cache(maxsize=16)
def _cumulative(count: int, theta: float) -> NDArray[np.float64]:
    import numpy as np

    from orchestrator.requests.generators.elementary import power

    return np.cumsum(power(np.arange(1, count + 1, dtype=np.float64), -theta))
