"""Small clusters with KV tiers, whose batches take a closed-form time, for the tests of what goes on between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.cluster.clock import Told
from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.routers.round_robin import RoundRobin
from orchestrator.cluster.source import Listed
from orchestrator.cluster.tiers import Tiers
from orchestrator.engine.engine import Engine
from orchestrator.engine.records import CompletedBatch
from orchestrator.kv_memory.second_tier import SecondTier
from orchestrator.observers.requests import RequestRecorder
from orchestrator.pricing.interface import Pricing
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Scheduler
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig
from orchestrator.settings.tiers import TierSettings
from tests.orchestrator.serving import BLOCK_BYTES, FormulaPricing
from tests.orchestrator.serving import scheduler as policy

GIB = 2**30


def tier(gb_s: float = 1.0, latency_ns: int = 0, blocks: float | None = None, group: str | None = None) -> TierSettings:
    """Return a tier that moves `gb_s` bytes a ns and has room for so many blocks."""
    size = None if blocks is None else blocks * BLOCK_BYTES / GIB
    return TierSettings("host", gb_s, latency_ns, size, group)


@dataclass
class Tiered:
    """Engines with a tier each, or (its group) one for all; of vLLM's configurations or of other policies.

    A policy is (name, KV blocks, options). `tiers` None: without any.
    """

    policies: Sequence[VllmSchedulerConfig | tuple[str, int, dict[str, Any]]]
    tiers: TierSettings | None
    max_steps: int = 512
    pricing: Pricing | None = None
    engines: list[Engine] = field(default_factory=list)
    schedulers: list[Scheduler] = field(default_factory=list)
    recorder: RequestRecorder = field(default_factory=lambda: RequestRecorder(keep_itl=True))
    made: Tiers = field(default_factory=Tiers)

    def run(self, requests: Sequence[Request]) -> list[Told]:
        """Serve `requests` and return what was told."""
        for number, settings in enumerate(self.policies):
            self._add(number, settings)
        arriving = sorted((replace(request) for request in requests), key=lambda request: request.arrival_ns)
        source = Listed(map(Admission, arriving))
        told = list(Cluster(self.engines, RoundRobin(), source, tiers=self.made).run())
        for record in told:
            hear = self.recorder.batch if isinstance(record, CompletedBatch) else self.recorder.turned_away
            hear(record)  # type: ignore[operator]
        self.recorder.hand_on(None)
        return told

    def rows(self) -> dict[int, dict[str, int]]:
        """Return a row a finished request, by id."""
        columns = self.recorder.columns()
        found = (dict(zip(columns, map(int, row), strict=True)) for row in zip(*columns.values(), strict=True))
        return {row["id"]: row for row in found}

    def held(self) -> list[SecondTier]:
        """Return what the tiers hold."""
        return [link.tier for link in self.made._links.values()]

    def _add(self, number: int, settings: VllmSchedulerConfig | tuple[str, int, dict[str, Any]]) -> None:
        pricing = self.pricing or FormulaPricing()
        if not isinstance(settings, VllmSchedulerConfig):
            name, blocks, options = settings
            made = policy(name, blocks, **options)
            moves = None if self.tiers is None else self.made.swapping(number, self.tiers)
            engine = Engine(made, pricing, number=number, max_steps=self.max_steps, moves=moves)
        elif self.tiers is None:
            made = VllmScheduler(settings)
            engine = Engine(made, pricing, number=number, max_steps=self.max_steps)
        else:
            sizes = {"block_size": settings.block_size, "block_bytes": BLOCK_BYTES}
            connector = self.made.connector(number, self.tiers, settings.block_size, **sizes)
            made = VllmScheduler(settings, connector=connector)
            engine = Engine(made, pricing, number=number, max_steps=self.max_steps)
            self.made.bind(connector, engine, made)
        self.engines.append(engine)
        self.schedulers.append(made)
