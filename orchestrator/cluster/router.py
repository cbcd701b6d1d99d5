"""The contract of routers, what one is before it runs, and their registry (`--router`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from foundation.registry import Registry

if TYPE_CHECKING:
    from orchestrator.engine.engine import Engine
    from orchestrator.requests.request import Request


class Router(Protocol):
    """Sends every request to one of several engines, as it arrives."""

    def route(self, request: Request, now: int, engines: Sequence[Engine]) -> int:
        """Return the number of the engine that `request` goes to.

        What an engine says of itself (`Engine.load`) is as of `now`: batches that end then have ended, nothing that
        arrives then has been seen.
        """


class RouterSettings(Protocol):
    """The settings of a router."""

    def router(self) -> Router:
        """Return a new router."""


routers: Registry[type[RouterSettings]] = Registry("router", package="orchestrator.cluster.routers")
