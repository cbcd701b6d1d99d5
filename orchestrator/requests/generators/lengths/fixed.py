"""`fixed`: all have the same length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.requests.generators.lengths import MOST_TOKENS, Role, distributions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@distributions.register("fixed")
@dataclass(frozen=True)
class Fixed:
    """All the same."""

    tokens_each: int = setting(512, "length of all {them}", unit="tokens", least=1, most=MOST_TOKENS, implies=True)

    def tokens(self, uniforms: NDArray[np.float64], role: Role) -> NDArray[np.int64]:
        """See `LengthDistribution`."""
        import numpy as np

        return np.full(len(uniforms), self.tokens_each, dtype=np.int64)
