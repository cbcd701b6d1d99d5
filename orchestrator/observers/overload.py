"""Notices overload: requests that arrive faster than they are served, so that the queue grows as long as they come."""

from __future__ import annotations

from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import Aborted, CompletedBatch, Rejected
from orchestrator.observers.finished import END, ID
from orchestrator.observers.interface import IntArray, Observer
from orchestrator.request_source import RequestSource
from orchestrator.requests.request import Request

_SERVED_SHARE = 0.9
_LEAST_WAITING = 10


class OverloadWatch(Observer):
    """Looks at the moment of the last arrival: who was done by then, and who had not even begun.

    Only those requests count that wait for no others. `closed`: clients wait for answers before they send more; then
    no queue grows without end, and there is nothing to say.
    """

    def __init__(self, source: RequestSource, *, closed: bool = False) -> None:
        opening = source.table.openings()
        self._first_ns, self._last_ns = int(opening.arrival_ns[0]), int(opening.arrival_ns[-1])
        self._count = len(opening)
        self._only = None if self._count == source.count else frozenset(opening.id.tolist())
        self._closed = closed
        self._served = 0
        self._begun: set[int] = set()

    def batch(self, done: CompletedBatch) -> None:
        """Count requests that had begun, and those that were done, when the last one arrived."""
        if done.start_ns <= self._last_ns:
            self._begun.update(request.id for request, _ in done.batch.admitted if self._counts(request))
            if done.end_ns <= self._last_ns:
                self._served += sum(map(self._counts, done.outcome.finished))

    def iterations(self, told: Iterations) -> None:
        """Count the same of many iterations at once."""
        self._begun.update(self._counted(told.begun[told.begun_ns <= self._last_ns]))
        over = told.finished[:, END] <= self._last_ns
        self._served += len(self._counted(told.finished[over, ID]))

    def turned_away(self, record: Rejected | Aborted) -> None:
        """Who is turned away does not wait."""
        if record.now <= self._last_ns and self._counts(record.request):
            self._begun.add(record.request.id)

    def _counts(self, request: Request) -> bool:
        return self._only is None or request.id in self._only

    def _counted(self, ids: IntArray) -> list[int]:
        listed: list[int] = ids.tolist()
        return listed if self._only is None else [identity for identity in listed if identity in self._only]

    def notes(self, end_ns: int) -> list[str]:
        """Return a sentence where the run, which ended at `end_ns`, was overloaded; nothing where not all arrived."""
        seconds = (self._last_ns - self._first_ns) / 1e9
        waiting = self._count - len(self._begun)
        begun = len(self._begun)
        if (
            self._closed
            or end_ns < self._last_ns
            or seconds <= 0
            or waiting < _LEAST_WAITING
            or begun >= _SERVED_SHARE * self._count
        ):
            return []
        return [
            f"overload: requests arrived at {_shown((self._count - 1) / seconds)} a second and were served at "
            f"{_shown(self._served / seconds)}; {waiting} of {self._count} had not begun when the last one arrived, so "
            "latencies grow with the length of the run"
        ]


def _shown(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
