"""The contract of routers, what one is before it runs, and their registry (`--router`).

What a router may ask of an engine, at any moment and without disturbing it: `Engine.load` (waiting and running
requests, KV blocks), `Engine.reported` (what the engine's own loop said last) and `Engine.cached_tokens` (how much of a
prompt its KV memory holds).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from foundation.records import dataclass
from foundation.registry import Registry

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine
    from orchestrator.requests.request import Request


Balances = Literal["turns", "outstanding", "kv"]


class Router(Protocol):
    """Sends every request to one of several engines, as it arrives."""

    def route(self, request: Request, now: int, engines: Sequence[AnyEngine]) -> int:
        """Return the place in `engines` of the one that `request` goes to.

        `engines`, one at least, are those that take requests at the moment, in the order of their numbers. Others may
        be there the next time, so what a router remembers of an engine it remembers by `Engine.number`. What an engine
        says of itself is as of `now`: batches that end then have ended, nothing that arrives then has been seen.
        """


@runtime_checkable
class WatchingRouter(Router, Protocol):
    """A router that also looks at the engines at moments of its own, between two requests."""

    def looks(self, now: int, arrival_ns: int | None) -> int | None:
        """Return the last moment (ns) after `now` to look at, if one comes before the arrival of the next request.

        One at the very moment of the arrival comes before it. Earlier ones that nobody would notice are passed over.
        Where nobody knows when the next request comes (None), the first moment after `now`.
        """

    def look(self, now: int, engines: Sequence[AnyEngine]) -> None:
        """Take note of what the engines are doing at `now`."""


@runtime_checkable
class BalancingRouter(Router, Protocol):
    """A router that chooses the engine with the least of something, among equal ones the next in turn (`fewest`)."""

    balances: Balances
    """What of: requests that wait or run, the share of KV blocks in use, or nothing, which leaves whose turn it is."""


@dataclass(frozen=True, slots=True)
class RouterPlace:
    """What a router stands before: how many engines in all, numbered from 0; `seed` is there for those that draw."""

    engines: int
    seed: int = 0


class RouterSettings(Protocol):
    """The settings of a router."""

    def router(self, place: RouterPlace) -> Router:
        """Return a new router; settings that do not suit the place are a `foundation.errors.UserError`."""


routers: Registry[type[RouterSettings]] = Registry("router", package="orchestrator.cluster.routers")
"""Routers, one file each: which engine a request goes to (`--router`).

To add one: put a module into this package that registers a record of its settings under a name. All load lightly.
"""
