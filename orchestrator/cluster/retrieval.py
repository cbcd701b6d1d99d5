"""What is retrieved for a request before the engines see it: a stage of servers with a queue, first come first served.

A server takes the same time for each; where there is no limit to them nobody queues, and a retrieval is a latency. One
whose client has gone leaves the queue; a server that is at work for it goes on to the end.
"""

from __future__ import annotations

from array import array
from collections import deque
from heapq import heappop, heappush

from orchestrator.engine.loops import NEVER
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request


class Retrieval:
    """`servers` (None: without limit) that take `service_ns` for each request; `spent_ns` has each one's time here."""

    def __init__(self, service_ns: int, servers: int | None = None) -> None:
        self.spent_ns = array("q")
        self._service_ns = service_ns
        self._free = servers
        self._queue: deque[tuple[int, Admission]] = deque()
        self._served: list[tuple[int, int, int, Admission]] = []
        self._gone: set[int] = set()
        self._serial = 0

    def submit(self, admission: Admission, now: int) -> None:
        """Take a request in."""
        self._queue.append((now, admission))
        self._serve(now)

    def next_ns(self) -> int:
        """Return when the next retrieval is done (ns), `NEVER` when none is under way."""
        return self._served[0][0] if self._served else NEVER

    def take(self, now: int) -> Admission | None:
        """Return the request whose retrieval is done, None where its client has gone."""
        _, _, came, admission = heappop(self._served)
        if self._free is not None:
            self._free += 1
        self._serve(now)
        if admission.request.id in self._gone:
            self._gone.remove(admission.request.id)
            return None
        self.spent_ns.append(now - came)
        return admission

    def drop(self, request: Request) -> None:
        """Forget a request, which is here."""
        waiting = [entry for entry in self._queue if entry[1].request is not request]
        if len(waiting) < len(self._queue):
            self._queue = deque(waiting)
        else:
            self._gone.add(request.id)

    def _serve(self, now: int) -> None:
        while self._queue and self._free != 0:
            came, admission = self._queue.popleft()
            heappush(self._served, (now + self._service_ns, self._serial, came, admission))
            self._serial += 1
            if self._free is not None:
                self._free -= 1
