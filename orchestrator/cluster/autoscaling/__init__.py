"""Autoscaling, a rule a file: how many instances there should be (`--autoscaler`).

To add one: put a module into this package that registers a record of its settings under a name; it derives from
`ScalingSettings`, which has what all rules share. All load lightly. `orchestrator.cluster.scaling` does what a rule
wants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

from foundation.records import dataclass
from foundation.registry import Registry
from foundation.settings import setting
from foundation.settings.reading import Problem

MOST_SECONDS = 1e6


@dataclass(frozen=True, slots=True)
class PoolState:
    """What a rule decides by: instances that take requests and that are starting, and what those that take them do.

    `running` and `waiting` are requests over all of them, `kv_used` their KV blocks in use as a share of all.
    """

    active: int
    starting: int
    running: int
    waiting: int
    kv_used: float


class ScalingRule(Protocol):
    """Says how many instances there should be."""

    def wanted(self, state: PoolState) -> int:
        """Return the number; the bounds of the run are kept by whoever asks."""


@dataclass(frozen=True)
class ScalingSettings(ABC):
    """What all rules share."""

    min_instances: int = setting(1, "instances that are never dropped, and that a run starts with", least=1)
    max_instances: int | None = setting(None, "instances at most", least=1, shown_default="all of the run")
    startup_delay: float = setting(
        30.0,
        "time from the decision to start an instance until it takes requests",
        unit="s",
        least=0,
        most=MOST_SECONDS,
    )
    scale_interval: float = setting(
        10.0, "time between two looks at how many instances there should be", unit="s", least=1e-3, most=MOST_SECONDS
    )
    scale_cooldown: float = setting(
        0.0, "time after a change in which there is no other", unit="s", least=0, most=MOST_SECONDS
    )

    def problems(self) -> Iterator[Problem]:
        """There are no fewer at most than at least."""
        if self.max_instances is not None and self.max_instances < self.min_instances:
            what = f"{self.max_instances} instances at most, {self.min_instances} at least"
            yield Problem("max_instances", what, "give no fewer than --min_instances")

    @abstractmethod
    def rule(self) -> ScalingRule:
        """Return the rule."""


autoscalers: Registry[type[ScalingSettings]] = Registry("autoscaler", package="orchestrator.cluster.autoscaling")
