"""`--autoscaler utilization`: so many instances that their KV memory is used to a share.

Source: Kubernetes' HorizontalPodAutoscaler: the instances that are there times the measured value over the target,
rounded up; nothing changes while their ratio is within a tenth of 1.
"""

from __future__ import annotations

from math import ceil

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.cluster.autoscaling import PoolState, ScalingSettings, autoscalers

TOLERANCE = 0.1


@dataclass(frozen=True)
class UtilizationRule:
    """See the module's docstring."""

    target: float

    def wanted(self, state: PoolState) -> int:
        """See `ScalingRule`."""
        ratio = state.kv_used / self.target
        if abs(ratio - 1) <= TOLERANCE:
            return state.active + state.starting
        return ceil(state.active * ratio)


@autoscalers.register("utilization")
@dataclass(frozen=True)
class UtilizationScaling(ScalingSettings):
    """By the KV memory in use."""

    target_kv_use: float = setting(
        0.8, "share of the KV blocks of the instances that should be in use", above=0, most=1
    )

    def rule(self) -> UtilizationRule:
        """Return the rule."""
        return UtilizationRule(self.target_kv_use)
