"""One clock for any number of engines: what happens next, in order of (time, priority, serial).

    priority   -1 a client goes away, and its request is given up      0 a batch ends
                1 KV cache lands, or a router looks at the engines
                2 a request arrives and is routed                      3 a batch is decided
    What is still equal goes in order of serial.

An engine is on the heap while it says when it acts next; one that is idle costs nothing. An arrival is routed when it
happens, from what the engines are doing at that moment, and disturbs only the engine that it goes to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush

from foundation.errors import InternalError
from orchestrator.cluster.router import Router, WatchingRouter
from orchestrator.engine.engine import Engine
from orchestrator.engine.loops import NEVER
from orchestrator.engine.records import Aborted, CompletedBatch, Rejected
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request

ABORTS, LOOKS, ARRIVES = -1, 1, 2
NOTHING = (NEVER, 4)


class Clock:
    """Runs `engines` on the admissions of `source`, which come in order of arrival, each routed by `router`.

    An engine is known by its number, its place in `engines`.
    """

    def __init__(self, engines: Sequence[Engine], router: Router, source: Iterable[Admission]) -> None:
        self.now = 0
        self._engines = engines
        self._router = router
        self._watching = router if isinstance(router, WatchingRouter) else None
        self._source = iter(source)
        self._next: Admission | None = None
        self._aborts: list[tuple[int, int, int, Request]] = []
        self._heap: list[tuple[int, int, int, int]] = []
        self._due = [0] * (len(engines) + 1)
        self._awake: set[int] = set()
        self._serial = 0
        self._arrived = [0] * len(engines)

    def run(self) -> Iterator[CompletedBatch | Aborted | Rejected]:
        """Yield what observers are told, until nothing more happens; an engine's records in order of their ends."""
        self._draw()
        while True:
            arrival = (self._arrival_ns(), ARRIVES)
            abort = (self._aborts[0][0], ABORTS) if self._aborts else NOTHING
            event = self._heap[0][:2] if self._heap else NOTHING
            if event < min(arrival, abort):
                yield from self._step()
            elif abort < arrival:
                self._abort()
            elif self._next is not None:
                yield from self._arrive()
            else:
                return

    def told_until(self) -> int:
        """Return the moment (ns) before which everything has been told that ever will be."""
        # What is in flight ends, which is an event: of engines that have none there is nothing to tell.
        return min([self.now, *(self._engines[number].told_until() for number in self._awake)])

    def _step(self) -> Iterator[CompletedBatch | Aborted]:
        """Let the engine act whose event is next, unless something has changed that event since."""
        time, _, serial, number = heappop(self._heap)
        if serial != self._due[number]:
            return
        self.now = max(self.now, time)
        if self._watching is not None and number == len(self._engines):
            self._watching.look(time, self._engines)
            return
        told = self._engines[number].step(time)
        self._push(number)
        yield from told

    def _arrive(self) -> Iterator[Rejected]:
        admission = self._next
        assert admission is not None  # its arrival is due
        request = admission.request
        self.now = request.arrival_ns
        number = self._router.route(request, self.now, self._engines)
        if not 0 <= number < len(self._engines):
            name = type(self._router).__name__
            raise InternalError(f"{name} routes request {request.id} to engine {number} of {len(self._engines)}")
        self._arrived[number] += 1
        rejected = self._engines[number].submit(admission, self.now)
        if rejected is not None:
            yield rejected
        elif request.abort_ns is not None:
            heappush(self._aborts, (max(request.abort_ns, self.now), request.id, number, request))
        self._draw()
        if len(self._engines) > 1:
            mean_gap = self.now // self._arrived[number]
            self._engines[number].expect(NEVER if self._next is None else self.now + 2 * mean_gap)
        self._push(number)

    def _abort(self) -> None:
        self.now, _, number, request = heappop(self._aborts)
        self._engines[number].abort(request, self.now)
        self._push(number)

    def _arrival_ns(self) -> int:
        return NEVER if self._next is None else self._next.request.arrival_ns

    def _draw(self) -> None:
        """Draw the next admission; a single engine need not work ahead further than that."""
        self._next = next(self._source, None)
        if self._watching is not None and self._next is not None:
            look = self._watching.looks(self.now, self._arrival_ns())
            if look is not None:
                heappush(self._heap, (look, LOOKS, self._due[-1], len(self._engines)))
        if len(self._engines) == 1:
            self._engines[0].expect(self._arrival_ns())

    def _push(self, number: int) -> None:
        """Put an engine's next event on the heap; what was there of it counts no more."""
        self._serial += 1
        self._due[number] = self._serial
        event = self._engines[number].next_event()
        if event is None:
            self._awake.discard(number)
        else:
            self._awake.add(number)
            heappush(self._heap, (*event, self._serial, number))
