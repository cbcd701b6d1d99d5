"""`normal`: a normal distribution, rounded; draws beyond the limits are the limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem
from orchestrator.requests.generators.lengths import MOST_TOKENS, Role, distributions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@distributions.register("normal")
@dataclass(frozen=True)
class Normal:
    """Normal, rounded, cut at the limits."""

    mean: float = setting(
        512.0, "mean length of {them}, before limits", unit="tokens", above=0, most=MOST_TOKENS, implies=True
    )
    std: float = setting(
        128.0, "standard deviation of the lengths of {them}", unit="tokens", least=0, most=MOST_TOKENS, implies=True
    )
    least: int = setting(1, "least length of {them}", unit="tokens", least=1, most=MOST_TOKENS)
    most: int = setting(MOST_TOKENS, "greatest length of {them}", unit="tokens", least=1, most=MOST_TOKENS)

    def problems(self) -> Iterator[Problem]:
        """The limits are in order."""
        if self.least > self.most:
            yield Problem("least", f"{self.least} is above the greatest length {self.most}", "exchange them")

    def tokens(self, uniforms: NDArray[np.float64], role: Role) -> NDArray[np.int64]:
        """See `LengthDistribution`."""
        import numpy as np

        from orchestrator.requests.generators.elementary import normal_quantile

        drawn = np.rint(self.mean + self.std * normal_quantile(uniforms))
        return np.clip(drawn, self.least, self.most).astype(np.int64)
