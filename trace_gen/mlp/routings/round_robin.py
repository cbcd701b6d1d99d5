"""`--expert_routing round_robin`: copies are dealt out to the experts one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from trace_gen.mlp.routings import routings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trace_gen.architecture import ModelArchitecture
    from trace_gen.mlp.choices import ChosenRouting
    from trace_gen.mlp.experts import Experts


@dataclass(frozen=True)
class RoundRobinChoices:
    """Token t of a step begins at expert ``t x stride`` and takes those that follow it, round after round.

    `stride` None: as many as a token chooses. Where experts stand in groups, the token takes from the groups that
    begin at ``t x groups_per_token``, as if they stood one after another.
    """

    stride: int | None = None
    by_layer = by_step = False

    def popularity(self, experts: Experts, layers: Sequence[int]) -> NDArray[np.float64]:
        """See `Choices.popularity`: all alike."""
        import numpy as np

        return np.ones((len(layers), experts.count))

    def chosen(self, experts: Experts, layers: Sequence[int], step: int, tokens: range) -> NDArray[np.int64]:
        """See `Choices.chosen`."""
        import numpy as np

        size = experts.count // experts.groups
        stride = experts.per_token if self.stride is None else self.stride
        number = np.arange(tokens.start, tokens.stop)[:, None]
        place = (number * stride + np.arange(experts.per_token)) % (size * experts.groups_per_token)
        first_group = number * experts.groups_per_token
        expert = (first_group + place // size) % experts.groups * size + place % size
        counts = np.bincount(expert.ravel(), minlength=experts.count)
        return np.tile(counts, (len(layers), 1))


@routings.register("round_robin")
@dataclass(frozen=True)
class RoundRobinSettings:
    """Experts in turn, from the first one at every step and in every layer."""

    expert_stride: int | None = setting(
        None,
        "experts from where one token begins to where the next does",
        least=1,
        most=2048,
        shown_default="as many as a token chooses",
    )

    def routing(self, architecture: ModelArchitecture, seed: int) -> ChosenRouting:
        """Return the routing; nothing is drawn."""
        from trace_gen.mlp.choices import ChosenRouting

        return ChosenRouting("round_robin", RoundRobinChoices(self.expert_stride))
