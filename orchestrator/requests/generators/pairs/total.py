"""`--lengths total`: a prompt and its answer come to a length that is drawn, and the answer is a fixed part of it.

Vidur's uniform and Zipf lengths are of this kind: the answer has ceil(total / (1 + ratio)) tokens, the prompt the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import choice, setting
from orchestrator.requests.generators.lengths import Published, Role
from orchestrator.requests.generators.pairs import TITLE, PairPlace, length_pairs
from orchestrator.requests.generators.roles import InRole, in_role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.requests.generators.pairs import Sampler

_ROLE = Role("total", 1024 + 128, Published(161.31 + 337.99, 1.0, 8, 2048))


@length_pairs.register("total")
@dataclass(frozen=True)
class Total:
    """The sum of both is drawn and divided by a ratio."""

    total_lengths: InRole = choice(
        in_role("total"),
        None,
        "distribution of the tokens of a prompt and its answer together",
        title=TITLE,
        otherwise="uniform",
    )
    prefill_to_decode_ratio: float = setting(
        20.0, "tokens of a prompt over those of its answer", least=0, most=1e6, implies=True
    )

    def sampler(self, place: PairPlace) -> Sampler:
        """See `LengthPairs`."""
        import numpy as np

        distribution, stream = self.total_lengths.plain(), place.stream("prompt")

        def draw(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            total = np.maximum(distribution.tokens(stream.uniforms(count), _ROLE), 2)
            outputs = np.ceil(total / (1.0 + self.prefill_to_decode_ratio)).astype(np.int64)
            outputs = np.clip(outputs, 1, total - 1)
            return total - outputs, outputs

        return draw
