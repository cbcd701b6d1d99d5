"""What is done around every choice of a router: its answer is checked, and the chosen engine learns how far to look."""

from __future__ import annotations

from collections.abc import Sequence

from foundation.errors import InternalError
from orchestrator.cluster.router import Router
from orchestrator.engine.interface import AnyEngine
from orchestrator.engine.loops import NEVER
from orchestrator.requests.request import Request


class LookAhead:
    """How far it is worth for each of `engines` to work ahead: until about the next request that is sent to it."""

    def __init__(self, engines: Sequence[AnyEngine]) -> None:
        self._arrived = {engine.number: 0 for engine in engines}

    def arrived(self, engine: AnyEngine, now: int, *, more: bool = True) -> None:
        """A request was sent to `engine`; `more`: there may be others."""
        self._arrived[engine.number] += 1
        mean_gap = now // self._arrived[engine.number]
        engine.expect(now + 2 * mean_gap if more else NEVER)


def routed(router: Router, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
    """Return the place among `engines` that `router` sends a request to; one that is none is an `InternalError`."""
    place = router.route(request, now, engines)
    if not 0 <= place < len(engines):
        raise InternalError(f"{type(router).__name__} routes request {request.id} to engine {place} of {len(engines)}")
    return place
