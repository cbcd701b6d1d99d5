"""What routers that balance load have in common: who has the least to do, and whose turn it is among equals."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.engine.interface import AnyEngine


def outstanding(engine: AnyEngine, now: int) -> int:
    """Return the requests that `engine` has at `now`, waiting or running."""
    load = engine.load(now)
    return load.running + load.waiting


class Turns:
    """Whose turn it is: the engine with the number after that of the one chosen last, round and round."""

    def __init__(self) -> None:
        self._last = -1

    def next(self, engines: Sequence[AnyEngine]) -> int:
        """Choose the next engine and return its place."""
        return self._chosen(engines, self._first(engines))

    def least(self, engines: Sequence[AnyEngine], costs: Sequence[float]) -> int:
        """Choose the engine with the least of `costs`, among equal ones the next in turn, and return its place."""
        least, first, count = min(costs), self._first(engines), len(engines)
        if costs[first] == least:
            return self._chosen(engines, first)
        return self._chosen(engines, min(range(count), key=lambda at: (costs[at], (at - first) % count)))

    def _first(self, engines: Sequence[AnyEngine]) -> int:
        return bisect_right(engines, self._last, key=_number) % len(engines)

    def _chosen(self, engines: Sequence[AnyEngine], place: int) -> int:
        self._last = engines[place].number
        return place


def _number(engine: AnyEngine) -> int:
    return engine.number
