"""`--expert_routing balanced`: every rank has the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from trace_gen.mlp.routings import routings

if TYPE_CHECKING:
    from trace_gen.architecture import ModelArchitecture
    from trace_gen.mlp.routing import BalancedRouting


@routings.register("balanced")
@dataclass(frozen=True)
class BalancedSettings:
    """Every rank has the mean. See `trace_gen.mlp.routing`."""

    def routing(self, architecture: ModelArchitecture, seed: int) -> BalancedRouting:
        """Return the routing; nothing is drawn."""
        from trace_gen.mlp.routing import BalancedRouting

        return BalancedRouting()
