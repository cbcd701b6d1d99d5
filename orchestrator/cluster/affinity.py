"""`--session_affinity`: the requests of a session go where its first one went; any router decides about that one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.cluster.router import Router, WatchingRouter

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine
    from orchestrator.requests.request import Request


class SessionAffinity:
    """See the module's docstring. `router` is not told of requests that follow their session.

    Requests without a session are always the router's. Where a session's engine takes no requests any more, the router
    decides anew, and the session stays with the engine that it names then.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._watching = router if isinstance(router, WatchingRouter) else None
        self._home: dict[int, int] = {}

    def route(self, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
        """See `Router.route`."""
        if request.session is None:
            return self._router.route(request, now, engines)
        home = self._home.get(request.session)
        if home is not None:
            for place, engine in enumerate(engines):
                if engine.number == home:
                    return place
        place = self._router.route(request, now, engines)
        self._home[request.session] = engines[place].number
        return place

    def looks(self, now: int, arrival_ns: int | None) -> int | None:
        """See `WatchingRouter.looks`."""
        return None if self._watching is None else self._watching.looks(now, arrival_ns)

    def look(self, now: int, engines: Sequence[AnyEngine]) -> None:
        """See `WatchingRouter.look`."""
        if self._watching is not None:
            self._watching.look(now, engines)
