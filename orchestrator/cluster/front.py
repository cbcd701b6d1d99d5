"""The front of a cluster: requests arrive and are routed to engines, and clients go away.

An arrival is routed when it happens, from what the engines are doing at that moment, and disturbs only the engine that
it goes to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Protocol

from foundation.errors import InternalError
from orchestrator.cluster.clock import ARRIVES, GOES, Actor, Told
from orchestrator.cluster.router import Router
from orchestrator.cluster.source import Source
from orchestrator.engine.engine import Engine
from orchestrator.engine.loops import NEVER
from orchestrator.engine.records import Rejected
from orchestrator.requests.request import Request


class Departures:
    """Clients that go away before their answers are complete: their requests are given up where they are."""

    def __init__(self, changed: Callable[[Engine], None]) -> None:
        self._changed = changed
        self._due: list[tuple[int, int, int, Engine, Request]] = []

    def expect(self, request: Request, engine: Engine, now: int) -> bool:
        """Note that `request`, which is at `engine`, may be given up; return whether it may."""
        if request.abort_ns is None:
            return False
        heappush(self._due, (max(request.abort_ns, now), request.id, engine.number, engine, request))
        return True

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        return (self._due[0][0], GOES) if self._due else None

    def step(self, now: int) -> Sequence[Told]:
        """Let the next client go."""
        _, _, _, engine, request = heappop(self._due)
        engine.abort(request, now)
        self._changed(engine)
        return ()


class Between(Protocol):
    """What is between engines, as far as the front has to do with it."""

    def goes_ahead(self, engine: Engine) -> bool:
        """Whether requests that are routed to `engine` are sent on to another one before it sees them."""

    def send_ahead(self, request: Request, engine: Engine, now: int) -> Rejected | None:
        """Send on a request that was routed to `engine`."""


class Front:
    """Takes requests of `source` as they come and sends each to one of `engines`, as `router` says.

    `changed`: told of an engine that a request was sent to; `departures` of requests that were taken there. `alone`:
    the one engine gets nothing from anywhere else. `between`: what is between engines, if anything is.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        router: Router,
        source: Source,
        departures: Departures,
        changed: Callable[[Actor], None],
        *,
        alone: bool,
        between: Between | None = None,
    ) -> None:
        self._engines = engines
        self._router = router
        self._source = source
        self._departures = departures
        self._changed = changed
        self._alone = alone
        self._between = between
        self._look_ahead = LookAhead(engines)
        self._expect()

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        time = self._source.next_ns()
        return None if time == NEVER else (time, ARRIVES)

    def step(self, now: int) -> Sequence[Told]:
        """Route the request that arrives."""
        admission = self._source.take()
        engine = self._engines[routed(self._router, admission.request, now, self._engines)]
        if self._between is not None and self._between.goes_ahead(engine):
            rejected = self._between.send_ahead(admission.request, engine, now)
        else:
            rejected = engine.submit(admission, now)
            if rejected is None and self._departures.expect(admission.request, engine, now):
                self._changed(self._departures)
        self._expect(engine, now)
        self._changed(engine)
        return () if rejected is None else (rejected,)

    def _expect(self, engine: Engine | None = None, now: int = 0) -> None:
        """Tell how far it is worth working ahead: one engine alone until the next arrival, each of several its own."""
        following = self._source.next_ns()
        if self._alone:
            self._engines[0].expect(following)
        elif engine is not None:
            self._look_ahead.arrived(engine, now, more=following != NEVER)


class LookAhead:
    """How far it is worth for each of `engines` to work ahead: until about the next request that is sent to it."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._arrived = {engine.number: 0 for engine in engines}

    def arrived(self, engine: Engine, now: int, *, more: bool = True) -> None:
        """A request was sent to `engine`; `more`: there may be others."""
        self._arrived[engine.number] += 1
        mean_gap = now // self._arrived[engine.number]
        engine.expect(now + 2 * mean_gap if more else NEVER)


def routed(router: Router, request: Request, now: int, engines: Sequence[Engine]) -> int:
    """Return the place among `engines` that `router` sends a request to; one that is none is an `InternalError`."""
    place = router.route(request, now, engines)
    if not 0 <= place < len(engines):
        raise InternalError(f"{type(router).__name__} routes request {request.id} to engine {place} of {len(engines)}")
    return place
