"""The front of a cluster: requests arrive and are routed to engines, and clients go away.

An arrival is routed when it happens, from what the engines are doing at that moment, and disturbs only the engine that
it goes to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from foundation.errors import InternalError
from orchestrator.cluster.clock import ARRIVES, GOES, Told
from orchestrator.cluster.router import Router
from orchestrator.cluster.source import Source
from orchestrator.engine.engine import Engine
from orchestrator.engine.loops import NEVER
from orchestrator.requests.request import Request


class Departures:
    """Clients that go away before their answers are complete: their requests are given up where they are."""

    def __init__(self, changed: Callable[[Engine], None]) -> None:
        self._changed = changed
        self._due: list[tuple[int, int, Engine, Request]] = []

    def expect(self, request: Request, engine: Engine, now: int) -> bool:
        """Note that `request`, which is at `engine`, may be given up; return whether it may."""
        if request.abort_ns is None:
            return False
        heappush(self._due, (max(request.abort_ns, now), request.id, engine, request))
        return True

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        return (self._due[0][0], GOES) if self._due else None

    def step(self, now: int) -> Sequence[Told]:
        """Let the next client go."""
        _, _, engine, request = heappop(self._due)
        engine.abort(request, now)
        self._changed(engine)
        return ()


class Front:
    """Takes requests of `source` as they come and sends each to one of `engines`, as `router` says.

    `changed`: told of an engine that a request was sent to; `departures` of requests that were taken there.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        router: Router,
        source: Source,
        departures: Departures,
        changed: Callable[[Engine | Departures], None],
    ) -> None:
        self._engines = engines
        self._router = router
        self._source = source
        self._departures = departures
        self._changed = changed
        self._arrived = {engine.number: 0 for engine in engines}
        self._look_ahead()

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        time = self._source.next_ns()
        return None if time == NEVER else (time, ARRIVES)

    def step(self, now: int) -> Sequence[Told]:
        """Route the request that arrives."""
        admission = self._source.take()
        engine = self._routed(admission.request, now)
        rejected = engine.submit(admission, now)
        if rejected is None and self._departures.expect(admission.request, engine, now):
            self._changed(self._departures)
        self._look_ahead(engine, now)
        self._changed(engine)
        return () if rejected is None else (rejected,)

    def _routed(self, request: Request, now: int) -> Engine:
        place = self._router.route(request, now, self._engines)
        if not 0 <= place < len(self._engines):
            name = type(self._router).__name__
            raise InternalError(f"{name} routes request {request.id} to engine {place} of {len(self._engines)}")
        return self._engines[place]

    def _look_ahead(self, engine: Engine | None = None, now: int = 0) -> None:
        """Tell how far it is worth working ahead: one engine alone until the next arrival, each of several its own."""
        following = self._source.next_ns()
        if len(self._engines) == 1:
            self._engines[0].expect(following)
        elif engine is not None:
            self._arrived[engine.number] += 1
            mean_gap = now // self._arrived[engine.number]
            engine.expect(NEVER if following == NEVER else now + 2 * mean_gap)
