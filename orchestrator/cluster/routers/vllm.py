"""`--router vllm`: as vLLM's own balancer of data-parallel engines, waiting x 4 + running, by counts that are old.

The rule is that of vLLM 0.19 (`DPLBAsyncMPClient` in vllm/v1/engine/core_client.py): engines are scored in their
order, and the first of the lowest score gets the request; with one API server the scan begins at engine 0. What it
knows of an engine is what a coordinator (`vllm/v1/engine/coordinator.py`) published last, plus one waiting request for
each that it has sent there since. What is published replaces what it added, also for requests that the engine had not
seen when it reported; engines report when their loop comes round (`Engine.reported`).

The coordinator publishes every 100 ms while counts change, else every 5 s. Its clock starts with the server; here it
starts at 0. That it waits up to 50 ms more for engines that report out of step is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from orchestrator.cluster.router import RouterPlace, routers

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine
    from orchestrator.requests.request import Request

WAITING_WEIGHT = 4
HEARTBEAT_NS = 5_000_000_000
"""Counts are published that often even if they have not changed."""


class VllmBalancer:
    """See the module's docstring; `interval_ns` lies between two publications."""

    def __init__(self, interval_ns: int) -> None:
        self._interval = interval_ns
        self._published: dict[int, tuple[int, int]] = {}
        self._published_ns = 0
        self._sent: dict[int, int] = {}

    def route(self, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
        """See `Router.route`."""
        scores = [self._score(engine.number) for engine in engines]
        chosen = scores.index(min(scores))
        number = engines[chosen].number
        self._sent[number] = self._sent.get(number, 0) + 1
        return chosen

    def looks(self, now: int, arrival_ns: int | None) -> int | None:
        """See `WatchingRouter.looks`: only what is published last before a request matters to it."""
        if arrival_ns is None:
            return (now // self._interval + 1) * self._interval
        last = arrival_ns // self._interval * self._interval
        return last if last > now else None

    def look(self, now: int, engines: Sequence[AnyEngine]) -> None:
        """Publish what the engines have reported, if that has changed or was said long ago."""
        reports = [(engine.number, engine.reported(now)) for engine in engines]
        counts = {number: (report.waiting, report.running) for number, report in reports}
        if counts != self._published or now - self._published_ns >= HEARTBEAT_NS:
            self._published, self._published_ns = counts, now
            self._sent.clear()

    def _score(self, number: int) -> int:
        waiting, running = self._published.get(number, (0, 0))
        return (waiting + self._sent.get(number, 0)) * WAITING_WEIGHT + running


@routers.register("vllm")
@dataclass(frozen=True)
class VllmBalancerSettings:
    """vLLM's balancer of data-parallel engines."""

    router_publish_interval: float = setting(
        100.0, "time between two publications of what engines have to do", unit="ms", least=0.001, most=3.6e6
    )

    def router(self, place: RouterPlace) -> VllmBalancer:
        """Return a new router."""
        return VllmBalancer(round(self.router_publish_interval * 1e6))
