"""`--expert_routing random`: each token chooses its experts uniformly, none of them twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from trace_gen.mlp.routings import routings

if TYPE_CHECKING:
    from trace_gen.architecture import ModelArchitecture
    from trace_gen.mlp.choices import ChosenRouting


@routings.register("random")
@dataclass(frozen=True)
class RandomSettings:
    """All experts alike, drawn for each token of each layer and step."""

    def routing(self, architecture: ModelArchitecture, seed: int) -> ChosenRouting:
        """Return the routing: Zipf's where all ranks of popularity weigh the same."""
        from trace_gen.mlp.choices import ChosenRouting
        from trace_gen.mlp.popular import PopularChoices

        return ChosenRouting("random", PopularChoices(seed, exponent=0))
