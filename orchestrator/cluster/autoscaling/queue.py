"""`--autoscaler queue`: so many instances that each has a number of requests, running or waiting.

Source: Ray Serve's autoscaling (`target_ongoing_requests`): the ongoing requests of all replicas over the target,
rounded up.
"""

from __future__ import annotations

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.cluster.autoscaling import PoolState, ScalingSettings, autoscalers


@dataclass(frozen=True)
class QueueRule:
    """See the module's docstring."""

    target: int

    def wanted(self, state: PoolState) -> int:
        """See `ScalingRule`."""
        return -(-(state.running + state.waiting) // self.target)


@autoscalers.register("queue")
@dataclass(frozen=True)
class QueueScaling(ScalingSettings):
    """By the requests of an instance."""

    target_requests: int = setting(
        32, "requests, running or waiting, that an instance should have", least=1, most=10**9
    )

    def rule(self) -> QueueRule:
        """Return the rule."""
        return QueueRule(self.target_requests)
