"""The line of requests that wait for admission: those that lost their place first, then the others in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from orchestrator.requests.request import Request
from orchestrator.schedulers.orders import Order, line_up
from orchestrator.schedulers.tracked import Tracked

Member = TypeVar("Member", bound=Tracked)


class WaitingLine(Generic[Member]):
    """See the module's docstring. `order`: the one with the least goes first, of equals the first to come."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._back: deque[Member] = deque()
        self._new: deque[Member] = deque()

    def __len__(self) -> int:
        return len(self._back) + len(self._new)

    def head(self) -> Member:
        """Return who is admitted next; somebody waits."""
        return (self._back or self._new)[0]

    def pop(self) -> Member:
        """Remove and return the head."""
        return (self._back or self._new).popleft()

    def add(self, member: Member) -> None:
        """Take in a new request."""
        line_up(self._new, member, self._order)

    def put_back(self, members: Sequence[Member]) -> None:
        """Take in those that lost their place, the last of them first: as they were admitted, if the latest went first.

        They are before all who lost it earlier.
        """
        self._back.extendleft(members)

    def take(self, request: Request) -> Member | None:
        """Remove and return `request`'s, if it waits."""
        for line in (self._back, self._new):
            for member in line:
                if member.request is request:
                    line.remove(member)
                    return member
        return None
