"""Clients that go away before their answers are complete, or because not even the first token came in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush

from foundation.records import dataclass
from orchestrator.cluster.clock import GOES, Told
from orchestrator.engine.interface import AnyEngine
from orchestrator.engine.records import FRONT, Aborted
from orchestrator.requests.request import Request

COMPLETE, FIRST_TOKEN = 0, 1


@dataclass(frozen=True, slots=True)
class Patience:
    """How long clients wait from their arrival on, for the complete answer and for its first token (ns; None: on)."""

    answer_ns: int | None = None
    first_token_ns: int | None = None

    def ends(self, request: Request) -> Iterator[tuple[int, int]]:
        """Yield when the client of `request` goes away, and without what."""
        arrival = request.arrival_ns
        goes = [] if request.abort_ns is None else [request.abort_ns]
        goes += [] if self.answer_ns is None else [arrival + self.answer_ns]
        if goes:
            yield min(goes), COMPLETE
        if self.first_token_ns is not None:
            yield arrival + self.first_token_ns, FIRST_TOKEN


class Departures:
    """Clients that may go: their requests are given up where they are.

    `changed` is told of an engine that gave one up, `left` of every client that goes, `drop` of a request that has not
    reached an engine.
    """

    def __init__(
        self,
        patience: Patience,
        changed: Callable[[AnyEngine], None],
        left: Callable[[Request, int], None],
        drop: Callable[[Request], None],
    ) -> None:
        self._patience = patience
        self._changed = changed
        self._left = left
        self._drop = drop
        self._due: list[tuple[int, int, int, Request]] = []
        self._engines: dict[int, list[AnyEngine]] = {}

    def expect(self, request: Request, now: int) -> bool:
        """Note a request that arrives; return whether its client may go."""
        ends = list(self._patience.ends(request))
        if not ends:
            return False
        for time, lacks in ends:
            heappush(self._due, (max(time, now), request.id, lacks, request))
        self._engines[request.id] = []
        return True

    def sent(self, request: Request, engine: AnyEngine) -> None:
        """Note an engine that a request is at now, too."""
        if request.id in self._engines:
            self._engines[request.id].append(engine)

    def forget(self, requests: Sequence[Request]) -> bool:
        """Note that requests are over; return whether the next event may be another one now."""
        if not self._engines:
            return False
        for request in requests:
            self._engines.pop(request.id, None)
        before = len(self._due)
        while self._due and self._due[0][1] not in self._engines:
            heappop(self._due)
        return len(self._due) < before

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        return (self._due[0][0], GOES) if self._due else None

    def step(self, now: int) -> Sequence[Told]:
        """Let the next client go, if it lacks what it waited for."""
        _, _, lacks, request = heappop(self._due)
        engines = self._engines.get(request.id)
        if engines is None or (lacks == FIRST_TOKEN and self._begun(engines, request, now)):
            return ()
        self.forget([request])
        for engine in engines:
            engine.abort(request, now)
            self._changed(engine)
        if not engines:
            self._drop(request)
        self._left(request, now)
        return () if engines else (Aborted(FRONT, request, now),)

    def _begun(self, engines: Sequence[AnyEngine], request: Request, now: int) -> bool:
        """Whether the client has had a token; of an engine that hands its requests over it gets none."""
        begun = False
        for engine in engines:
            begun |= not engine.hands_over and engine.begun(request, now)
            self._changed(engine)  # looking may have cut what it had worked out ahead
        return begun
