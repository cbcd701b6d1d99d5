"""`uniform`: whole numbers from a least to a most, each as likely."""

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


@distributions.register("uniform")
@dataclass(frozen=True)
class Uniform:
    """Between two lengths, each as likely."""

    least: int = setting(1024, "least length of {them}", unit="tokens", least=1, most=MOST_TOKENS)
    most: int = setting(4096, "greatest length of {them}", unit="tokens", least=1, most=MOST_TOKENS)

    def problems(self) -> Iterator[Problem]:
        """The limits are in order."""
        if self.least > self.most:
            yield Problem("least", f"{self.least} is above the greatest length {self.most}", "exchange them")

    def tokens(self, uniforms: NDArray[np.float64], role: Role) -> NDArray[np.int64]:
        """See `LengthDistribution`."""
        import numpy as np

        return self.least + np.floor(uniforms * (self.most - self.least + 1)).astype(np.int64)
