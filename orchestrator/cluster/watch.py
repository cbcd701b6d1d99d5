"""When a router looks at the engines between two requests: an actor on the clock.

Where all arrivals are known beforehand, only the last look before each is worth taking. Where others may come because
of what becomes of requests, every look is, as long as anybody is at work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.cluster.clock import LANDS, Told
from orchestrator.cluster.front import Front
from orchestrator.cluster.router import WatchingRouter
from orchestrator.engine.loops import NEVER


class Watch:
    """Lets `router` look at the engines that `front` sends requests to; `busy`: whether any engine is at work."""

    def __init__(self, router: WatchingRouter, front: Front, busy: Callable[[], bool]) -> None:
        self._router = router
        self._front = front
        self._busy = busy
        self._now = 0

    def arrived(self, now: int) -> None:
        """A request has arrived and been routed."""
        self._now = now

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        arrival = self._front.coming_ns()
        if self._front.source.reacts:
            look = self._router.looks(self._now, None) if arrival != NEVER or self._busy() else None
        else:
            look = self._router.looks(self._now, arrival) if arrival != NEVER else None
        return None if look is None else (look, LANDS)

    def step(self, now: int) -> Sequence[Told]:
        """Look."""
        self._now = now
        self._router.look(now, self._front.engines)
        return ()
