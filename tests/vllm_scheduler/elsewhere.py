"""KV cache elsewhere: a connector that knows what requests may fetch, how long it takes, and how long blocks stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from orchestrator.cluster.clock import LANDS, Clock, Told
from orchestrator.cluster.front import Front, FrontRules
from orchestrator.cluster.routers.round_robin import RoundRobin
from orchestrator.cluster.source import Listed
from orchestrator.engine.engine import Engine
from orchestrator.pricing.interface import Pricing
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.vllm import VllmScheduler, VllmSchedulerConfig
from orchestrator.schedulers.vllm.connector import NO_MATCH, KVConnector, Match
from orchestrator.schedulers.vllm.entry import Entry
from trace_gen.batch_shape import KVTransfer


@dataclass(frozen=True)
class Remote:
    """The first `tokens` tokens of a request's KV cache are elsewhere; `once`: they can be had one time only."""

    tokens: int
    asynchronous: bool = True
    takes_ns: int = 0
    once: bool = True


class Elsewhere(KVConnector):
    """Connector and mover at once; `kept_ns`: how long the blocks of requests that are done are still read."""

    def __init__(self, remote: dict[int, Remote], kept_ns: dict[int, int]) -> None:
        self._remote, self._kept_ns = remote, kept_ns
        self._taken: dict[int, Request] = {}
        self._due: list[tuple[int, int, str, Request]] = []
        self.fetches: list[tuple[int, int, int]] = []
        self.engine: Engine
        self.scheduler: VllmScheduler
        self.clock: Clock

    def matched(self, entry: Entry, local_tokens: int) -> Match | None:
        there = self._remote.get(entry.request.id)
        if there is None or (there.once and entry.request.id in self._taken):
            return NO_MATCH
        most = min(there.tokens, entry.tokens if there.asynchronous else entry.tokens - 1)
        return Match(most - local_tokens, there.asynchronous) if most > local_tokens else NO_MATCH

    def took(self, entry: Entry, local_tokens: int, tokens: int) -> KVTransfer | None:
        if not tokens:
            return None
        self._taken[entry.request.id] = entry.request
        return KVTransfer(entry.request.id, 1, tokens, 0, "elsewhere")

    def start(self, fetches: Sequence[KVTransfer], now: int) -> None:
        for fetch in fetches:
            self.fetches.append((now, fetch.request_id, fetch.tokens))
            takes = self._remote[fetch.request_id].takes_ns
            self._expect(now + takes, "landed", self._taken[fetch.request_id])

    def finished(self, entry: Entry, *, aborted: bool) -> bool:
        kept = self._kept_ns.get(entry.request.id)
        if kept is None or aborted:
            return False
        self._expect(self.clock.now + kept, "sent", entry.request)
        return True

    def next_event(self) -> tuple[int, int] | None:
        return (self._due[0][0], LANDS) if self._due else None

    def step(self, now: int) -> Sequence[Told]:
        _, _, what, request = heappop(self._due)
        self.engine.disturb(now)
        getattr(self.scheduler, what)(request)
        self.clock.changed(self.engine)
        return ()

    def _expect(self, time: int, what: str, request: Request) -> None:
        heappush(self._due, (time, request.id, what, request))
        self.clock.changed(self)


def serve(
    config: VllmSchedulerConfig,
    elsewhere: Elsewhere,
    requests: Sequence[Request],
    pricing: Pricing,
    max_steps: int = 512,
) -> list[Told]:
    """Serve `requests` with `elsewhere` beside the engine; return what it told."""
    scheduler = elsewhere.scheduler = VllmScheduler(config, connector=elsewhere)
    engine = elsewhere.engine = Engine(scheduler, pricing, max_steps=max_steps)
    arriving = sorted(requests, key=lambda request: request.arrival_ns)
    source = Listed(Admission(request) for request in arriving)
    front = Front([engine], RoundRobin(), source, FrontRules(), lambda actor: clock.changed(actor), alone=True)
    clock = elsewhere.clock = Clock([engine, front, front.departures, elsewhere])
    told = []
    for one in clock.run():
        front.hear(one)
        told.append(one)
    return told
