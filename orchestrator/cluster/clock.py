"""One clock for all that acts in a cluster: what happens next, in order of (time, priority, serial).

    priority   -1 a client goes away, and its request is given up      0 a batch ends
                1 KV cache lands, or a router looks at the engines
                2 a request arrives and is routed                      3 a batch is decided
                4 a wave begins, which all have joined
    What is still equal goes in order of serial.

An actor is on the heap while it says when it acts next; one that is idle costs nothing. Whoever changes another actor's
next event says so (`changed`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Protocol

from orchestrator.engine.iterations import Iterations
from orchestrator.engine.records import Aborted, CompletedBatch, DummyPass, Rejected, Transferred

GOES, LANDS, ARRIVES, BEGINS = -1, 1, 2, 4
"""Priorities of what is no engine's event; see `orchestrator.engine.loops` for theirs."""

OfRequests = CompletedBatch | Aborted | Rejected | Transferred
"""What is told of requests."""
Told = OfRequests | DummyPass | Iterations


class Actor(Protocol):
    """Acts on a clock: an engine, the front where requests arrive, a link on which KV cache travels."""

    def next_event(self) -> tuple[int, int] | None:
        """Return when it acts next (ns) and the event's priority; None if only something else moves it."""

    def step(self, now: int) -> Iterable[Told]:
        """Do what is due at `now`, the time of the next event; return what observers are told."""


class Clock:
    """Moves `actors`, of which each is known by its place. Before it runs, each says when it begins."""

    def __init__(self, actors: Sequence[Actor]) -> None:
        self.now = 0
        self.untold: deque[Told] = deque()
        """What the last step brought and has not been told yet."""
        self._actors = actors
        self._places = {id(actor): place for place, actor in enumerate(actors)}
        self._heap: list[tuple[int, int, int, int]] = []
        self._due = [0] * len(actors)
        self._awake: set[int] = set()
        self._serial = 0

    def changed(self, actor: Actor) -> None:
        """Put an actor's next event on the heap; what was there of it counts no more."""
        place = self._places[id(actor)]
        self._serial += 1
        self._due[place] = self._serial
        event = actor.next_event()
        if event is None:
            self._awake.discard(place)
        else:
            self._awake.add(place)
            heappush(self._heap, (*event, self._serial, place))

    def is_awake(self, actor: Actor) -> bool:
        """Whether an actor will act without anything else happening."""
        return self._places[id(actor)] in self._awake

    def run(self) -> Iterator[Told]:
        """Yield what observers are told, until nothing more happens; an actor's records in order of time."""
        for actor in self._actors:
            self.changed(actor)
        while self._heap:
            time, _, serial, place = heappop(self._heap)
            if serial != self._due[place]:
                continue  # something has changed that event since
            self.now = max(self.now, time)
            actor = self._actors[place]
            self.untold.extend(actor.step(time))
            self.changed(actor)
            while self.untold:
                yield self.untold.popleft()
