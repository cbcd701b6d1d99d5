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
    """Lets `router` look at the engines that `front` sends requests to; `busy`: whether any engine is at work, `now`:
    the clock's time.
    """

    def __init__(self, router: WatchingRouter, front: Front, busy: Callable[[], bool], now: Callable[[], int]) -> None:
        self._router = router
        self._front = front
        self._busy = busy
        self._now = now
        self._looked_ns = 0

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`. A look at this very moment is still to come, unless a request has been routed in it."""
        arrival, after = self._front.coming_ns(), max(self._looked_ns, self._front.routed_ns)
        if not self._front.source.reacts:
            look = self._router.looks(after, arrival) if arrival != NEVER else None
        elif arrival != NEVER or self._busy():
            look = self._router.looks(max(after, self._now() - 1), None)
        else:
            look = None
        return None if look is None else (look, LANDS)

    def step(self, now: int) -> Sequence[Told]:
        """Look."""
        self._looked_ns = now
        self._router.look(now, self._front.engines)
        return ()
