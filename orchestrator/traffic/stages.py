"""The parts of a source with feedback: who sends a request when, from what became of those before.

    Arriving   at their times                    Clients   each sends when it has had its answer, and has thought
    Turns      adds what follows in sessions     Places    lets no more than so many be under way
    Heard      makes a source of them

A request arrives when it is sent: its `arrival_ns` is set then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Protocol

import numpy as np

from orchestrator.cluster.source import Listed, News, ended
from orchestrator.engine.loops import NEVER
from orchestrator.request_table import RequestTable
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request


class Stage(Protocol):
    """Hands out requests, as a `Source`; is told of each that is over."""

    def next_ns(self) -> int:
        """See `Source.next_ns`."""

    def take(self) -> Admission:
        """See `Source.take`."""

    def over(self, request: Request, now: int, *, served: bool) -> bool:
        """Note that the client of `request` has its answer, or will get none; True: `next_ns` may be another now."""


class Arriving(Listed):
    """Requests that come at their times, whatever becomes of others."""

    def over(self, request: Request, now: int, *, served: bool) -> bool:
        """See `Stage`."""
        return False


class Clients:
    """`count` clients take what is to be sent in its order, each `think_ns` after its request before is over.

    All begin at 0; when requests would have arrived does not matter.
    """

    def __init__(self, admissions: Iterable[Admission], count: int, think_ns: int) -> None:
        self._rest = iter(admissions)
        self._next = next(self._rest, None)
        self._think_ns = think_ns
        self._ready = [0] * count

    def next_ns(self) -> int:
        """See `Source`."""
        return NEVER if self._next is None or not self._ready else self._ready[0]

    def take(self) -> Admission:
        """See `Source`."""
        assert self._next is not None  # its time has come
        taken, self._next = self._next, next(self._rest, None)
        taken.request.arrival_ns = heappop(self._ready)
        return taken

    def over(self, request: Request, now: int, *, served: bool) -> bool:
        """See `Stage`."""
        heappush(self._ready, now + self._think_ns)
        return True


class Turns:
    """Adds to those that open sessions what follows: a turn comes its pause after the one before it has been answered.

    A turn without an answer is the last of its session; `unreleased` counts those that would have followed. To
    `opening` a session is over with its last turn.
    """

    def __init__(self, opening: Stage, table: RequestTable, admit: Callable[[Request], Admission]) -> None:
        assert table.sessions is not None
        self.unreleased = 0
        self._opening = opening
        self._table = table
        self._admit = admit
        self._sessions = table.sessions
        follows = np.flatnonzero(~table.sessions.opens())
        self._next_row = dict(zip(table.id[follows - 1].tolist(), follows.tolist(), strict=True))
        self._following: list[tuple[int, int]] = []

    def next_ns(self) -> int:
        """See `Source`."""
        opens = self._opening.next_ns()
        return min(opens, self._following[0][0]) if self._following else opens

    def take(self) -> Admission:
        """Return the next request; of those that come at one time, the turns that others were waited for first."""
        if not self._following or self._opening.next_ns() < self._following[0][0]:
            return self._opening.take()
        time, row = heappop(self._following)
        request = next(iter(self._table.at(np.array([row]))))
        request.arrival_ns = time
        return self._admit(request)

    def over(self, request: Request, now: int, *, served: bool) -> bool:
        """See `Stage`."""
        row = self._next_row.get(request.id)
        if row is None:
            return self._opening.over(request, now, served=served)
        if served:
            heappush(self._following, (now + int(self._sessions.pause_ns[row - 1]), row))
            return True
        self.unreleased += self._from(row)
        return self._opening.over(request, now, served=False)

    def _from(self, row: int) -> int:
        """Return how many turns a session has from a row on."""
        last, number = row, self._sessions.number
        while last < len(number) and number[last] == number[row]:
            last += 1
        return last - row


class Places:
    """Lets at most `count` requests of `inner` be under way; the others wait in their order, and arrive later."""

    def __init__(self, inner: Stage, count: int) -> None:
        self._inner = inner
        self._free = count
        self._since = 0

    def next_ns(self) -> int:
        """See `Source`."""
        return max(self._since, self._inner.next_ns()) if self._free else NEVER

    def take(self) -> Admission:
        """See `Source`."""
        now = self.next_ns()
        taken = self._inner.take()
        taken.request.arrival_ns = now
        self._free -= 1
        return taken

    def over(self, request: Request, now: int, *, served: bool) -> bool:
        """See `Stage`."""
        if not self._free:
            self._since = now
        self._free += 1
        self._inner.over(request, now, served=served)
        return True


class Heard:
    """Makes a `Source` of a stage."""

    reacts = True

    def __init__(self, stage: Stage) -> None:
        self.next_ns, self.take = stage.next_ns, stage.take
        self._over = stage.over

    def hear(self, news: News) -> bool:
        """See `Source`."""
        changed = False
        for request, now, served in ended(news):
            changed |= self._over(request, now, served=served)
        return changed
