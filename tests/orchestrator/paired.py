"""Small disaggregated clusters whose batches take a closed-form time, for the tests of what is between engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.cluster.clock import Told
from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.disaggregation import Disaggregation
from orchestrator.cluster.routers.round_robin import RoundRobin
from orchestrator.cluster.source import Listed
from orchestrator.engine.engine import Engine
from orchestrator.observers.requests import RequestRecorder
from orchestrator.pricing.interface import Pricing
from orchestrator.pricing.layers import StageLayers
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig
from orchestrator.settings.engine import Role
from tests.orchestrator.serving import FormulaPricing

BLOCK_BYTES = 1000
FREE = 10**18
"""A link so fast (bytes/s) that any transfer takes a nanosecond at most."""


@dataclass
class Paired:
    """Engines of these `roles`, all of `config` (or each of its own), on a network; `run` serves requests."""

    config: VllmSchedulerConfig | Sequence[VllmSchedulerConfig]
    roles: Sequence[Role] = ("prefill", "decode")
    bytes_per_s: int = FREE
    latency_ns: int = 0
    layerwise: bool = False
    max_steps: int = 512
    pricing: Sequence[Pricing] | None = None
    engines: list[Engine] = field(default_factory=list)
    schedulers: list[VllmScheduler] = field(default_factory=list)
    recorder: RequestRecorder = field(default_factory=lambda: RequestRecorder(keep_itl=True))

    def run(self, requests: Sequence[Request]) -> list[Told]:
        """Serve `requests` and return what was told."""
        between = Disaggregation(RoundRobin(), self.latency_ns, layerwise=self.layerwise)
        for number, role in enumerate(self.roles):
            config = self.config if isinstance(self.config, VllmSchedulerConfig) else self.config[number]
            size = {"block_size": config.block_size, "block_bytes": BLOCK_BYTES, "bytes_per_s": self.bytes_per_s}
            peer = between.peer(number, role, layers=lambda batch: [StageLayers([25, 50, 75, 90], 100)], **size)
            scheduler = VllmScheduler(config, connector=peer)
            pricing = FormulaPricing() if self.pricing is None else self.pricing[number]
            hands_over = role == "prefill"
            engine = Engine(scheduler, pricing, number=number, max_steps=self.max_steps, hands_over=hands_over)
            peer.bind(engine, scheduler)
            self.engines.append(engine)
            self.schedulers.append(scheduler)
        fresh = [replace(request) for request in requests]
        arriving = sorted(fresh, key=lambda request: request.arrival_ns)
        cluster = Cluster(self.engines, RoundRobin(), Listed(map(Admission, arriving)), disaggregation=between)
        told = list(cluster.run())
        self.between = between
        for record in told:
            self._record(record)
        self.recorder.hand_on(None)
        return told

    def rows(self) -> dict[int, dict[str, int]]:
        """Return a row a finished request, by id."""
        columns = self.recorder.columns()
        found = (dict(zip(columns, map(int, row), strict=True)) for row in zip(*columns.values(), strict=True))
        return {row["id"]: row for row in found}

    def _record(self, record: Told) -> None:
        from orchestrator.engine.records import CompletedBatch, Transferred

        if isinstance(record, CompletedBatch):
            self.recorder.batch(record)
        elif isinstance(record, Transferred):
            self.recorder.transferred(record)
        else:
            self.recorder.turned_away(record)
