"""`random`: as the random data set of `vllm bench serve`: whole numbers around a length, each as likely.

From floor(length x (1 - ratio)) to ceil(length x (1 + ratio)), from 1 on (vllm/benchmarks/datasets/random.py; the
special tokens of a tokenizer, which vLLM takes off the prompt's length, are none here).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.requests.generators.lengths import MOST_TOKENS, Role, distributions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@distributions.register("random")
@dataclass(frozen=True)
class Random:
    """As vLLM's benchmark: around a length, up to a ratio of it off."""

    names: ClassVar = {"length": "random_{role}_len", "ratio": "random_range_ratio"}

    length: int | None = setting(
        None,
        "length that those of {them} are around",
        unit="tokens",
        least=1,
        most=MOST_TOKENS,
        implies=True,
        aliases=("{role}_len",),
        shown_default="vLLM's: 1024 of prompts, 128 of answers",
    )
    ratio: float = setting(
        0.0, "how far random lengths are off at most, in lengths: 0.5 is half of it", least=0, most=0.999, implies=True
    )

    def tokens(self, uniforms: NDArray[np.float64], role: Role) -> NDArray[np.int64]:
        """See `LengthDistribution`."""
        import math

        import numpy as np

        length = role.benchmark if self.length is None else self.length
        low = max(1, math.floor(length * (1 - self.ratio)))
        high = math.ceil(length * (1 + self.ratio))
        return low + np.floor(uniforms * (high - low + 1)).astype(np.int64)
