"""`--expert_routing zipf`: few experts are popular, other ones in every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from trace_gen.mlp.routings import routings

if TYPE_CHECKING:
    from trace_gen.architecture import ModelArchitecture
    from trace_gen.mlp.choices import ChosenRouting


@routings.register("zipf")
@dataclass(frozen=True)
class ZipfSettings:
    """The i-th most popular expert of a layer weighs i^-s, drawn for each token of each layer and step."""

    zipf_exponent: float = setting(
        1.0, "how popularity falls: the i-th expert weighs i^-s; 0: all alike", least=0, most=16
    )

    def routing(self, architecture: ModelArchitecture, seed: int) -> ChosenRouting:
        """Return the routing; which experts are popular is drawn for each layer."""
        from trace_gen.mlp.choices import ChosenRouting
        from trace_gen.mlp.popular import PopularChoices

        return ChosenRouting("zipf", PopularChoices(seed, self.zipf_exponent))
