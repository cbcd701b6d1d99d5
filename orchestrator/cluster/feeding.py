"""Requests that come to engines thousands at a time, as columns, where nothing but a router stands before them.

What becomes of a request is what becomes of it one by one: it is taken in at its arrival, by the engine that the router
chooses from what all are doing at that moment. But nobody is asked whether it is let in, and no objects are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from foundation.compiling import compiles
from orchestrator.cluster.router import BalancingRouter, Router
from orchestrator.cluster.source import Source, Tabled
from orchestrator.engine.interface import AnyEngine, TakesMany
from orchestrator.engine.loops import NEVER
from orchestrator.request_table import RequestTable

AT_ONCE = 2048
"""Requests of an engine that are handed over at once."""


class Takes(Protocol):
    """An engine, or several behind a router."""

    def take(self, rows: RequestTable) -> None:
        """Take requests in, each when it arrives, in order of arrival; none arrived later has been taken before."""


class Feed:
    """Hands the requests of `table` to `takes`, part after part; `engines` are all who may get some."""

    def __init__(self, table: RequestTable, takes: Takes, engines: Sequence[AnyEngine]) -> None:
        self.engines = engines
        self._table = table
        self._takes = takes
        self._at = 0
        self._most = AT_ONCE * len(engines)

    def next_ns(self) -> int:
        """Return when the next request comes (ns); `NEVER`: all have come."""
        return int(self._table.arrival_ns[self._at]) if self._at < len(self._table) else NEVER

    def step(self) -> None:
        """Hand over the next requests."""
        end = min(self._at + self._most, len(self._table))
        self._takes.take(self._table.at(np.arange(self._at, end)))
        self._at = end


def feed_of(source: Source, router: Router, engines: Sequence[AnyEngine]) -> Feed | None:
    """Return what feeds `engines` from `source`, where they can be fed; None: requests come one by one."""
    if not isinstance(source, Tabled):
        return None
    table = source.table
    if not all(isinstance(engine, TakesMany) and engine.takes(table) for engine in engines):
        return None
    if len(engines) == 1:
        (alone,) = engines
        assert isinstance(alone, TakesMany)
        return Feed(table, alone, engines)
    if not isinstance(router, BalancingRouter) or not compiles():
        return None
    from orchestrator.engine.compiled.fleet import fleet_of

    fleet = fleet_of(engines, router.balances, table)
    return None if fleet is None else Feed(table, fleet, engines)
