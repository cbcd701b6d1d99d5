"""The contract of traffic: requests that come to a cluster, some of them because of what became of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from foundation.records import dataclass
from orchestrator.cluster.clock import Told
from orchestrator.engine.loops import NEVER
from orchestrator.engine.records import CompletedBatch, Rejected
from orchestrator.request_table import RequestTable
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request


@dataclass(frozen=True, slots=True)
class Left:
    """A client that has gone away before its answer was complete: when (ns). Its engine forgets it when it can."""

    request: Request
    now: int


News = Told | Left


class Source(Protocol):
    """Hands out requests as they come to the front of a cluster, in order of time."""

    reacts: bool
    """Whether requests may come because of what becomes of others."""

    def next_ns(self) -> int:
        """Return when the next request comes, as far as is known now; `NEVER`: none is known to come."""

    def take(self) -> Admission:
        """Return the next request; its time has come."""

    def hear(self, news: News) -> bool:
        """Take note of what has become of requests; True: `next_ns` may be another now, which is never in the past."""


class Ended(NamedTuple):
    """A request is over for its client at `now` (ns), with its answer (`served`) or without."""

    request: Request
    now: int
    served: bool


def ended(news: News) -> Sequence[Ended]:
    """Return for whom it is over; a client that has left does not wait until its engine forgets it."""
    if isinstance(news, CompletedBatch):
        finished = sorted(news.outcome.finished, key=lambda request: request.id)
        return [Ended(request, news.end_ns, True) for request in finished]
    return [Ended(news.request, news.now, False)] if isinstance(news, Left | Rejected) else ()


class Listed:
    """Requests whose times are known beforehand, in order of arrival."""

    reacts: bool = False

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

    def hear(self, news: News) -> bool:
        """Nothing that becomes of requests changes when others come."""
        return False


class Tabled(Listed):
    """The requests of a `table`, in order of arrival, each let in by `admit`."""

    def __init__(self, table: RequestTable, admit: Callable[[Request], Admission]) -> None:
        super().__init__(map(admit, table))
        self.table = table
