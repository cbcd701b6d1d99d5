"""The contract of traffic: requests that come to a cluster, some of them because of what became of others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from orchestrator.cluster.clock import Told
from orchestrator.engine.loops import NEVER
from orchestrator.requests.admission import Admission


class Source(Protocol):
    """Hands out requests as they come to the front of a cluster, in order of time."""

    reacts: bool
    """Whether requests may come because of what becomes of others."""

    def next_ns(self) -> int:
        """Return when the next request comes, as far as is known now; `NEVER`: none is known to come."""

    def take(self) -> Admission:
        """Return the next request; its time has come."""

    def hear(self, told: Told) -> bool:
        """Take note of what has become of requests; True: `next_ns` may be another now, which is never in the past."""


class Listed:
    """Requests whose times are known beforehand, in order of arrival."""

    reacts = False

    def __init__(self, admissions: Iterable[Admission]) -> None:
        self._rest = iter(admissions)
        self._next = next(self._rest, None)

    def next_ns(self) -> int:
        """See `Source`."""
        return NEVER if self._next is None else self._next.request.arrival_ns

    def take(self) -> Admission:
        """See `Source`."""
        assert self._next is not None  # its time has come
        taken, self._next = self._next, next(self._rest, None)
        return taken

    def hear(self, told: Told) -> bool:
        """Nothing that becomes of requests changes when others come."""
        return False
