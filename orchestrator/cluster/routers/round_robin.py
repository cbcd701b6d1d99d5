"""`--router round-robin`: each request goes to the engine after the one before it, whatever they are doing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cluster.router import routers

if TYPE_CHECKING:
    from orchestrator.engine.engine import Engine
    from orchestrator.requests.request import Request


class RoundRobin:
    """See the module's docstring; the first request goes to engine 0."""

    def __init__(self) -> None:
        self._next = 0

    def route(self, request: Request, now: int, engines: Sequence[Engine]) -> int:
        """See `Router.route`."""
        number = self._next % len(engines)
        self._next = number + 1
        return number


@routers.register("round-robin")
@dataclass(frozen=True)
class RoundRobinSettings:
    """One after the other."""

    def router(self) -> RoundRobin:
        """Return a new router."""
        return RoundRobin()
