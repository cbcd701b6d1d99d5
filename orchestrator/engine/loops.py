"""When an engine decides: the ways of `orchestrator.schedulers.interface.EngineLoop`, each with its state.

An engine asks its loop whether the oldest batch ends next or a decision is due; it tells the loop what became of both.
Places in vLLM's batch queue that hold a decision for nothing are None.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from orchestrator.engine.in_flight import InFlight
from orchestrator.schedulers.interface import EngineLoop, Scheduler

NEVER = 2**63 - 1
ENDS, DECIDES = 0, 3
"""Priorities of an engine's events on the clock: between them come landings of KV cache and arrivals."""


class Loop(Protocol):
    """Says when an engine acts. `queue` are the batches in flight, oldest first."""

    queue: deque[InFlight | None]

    def next_event(self, now: int, stage_free_ns: int, arrival_ns: int) -> tuple[int, int]:
        """Return when the engine acts next (ns, `NEVER` for never), and whether a batch `ENDS` then or it `DECIDES`.

        `arrival_ns`: when the next request that the engine has not seen is there.
        """

    def decided(self, flight: InFlight | None, now: int) -> None:
        """Take note of a decision; None was one for nothing."""

    def nothing_to_decide(self, now: int) -> None:
        """Take note that there is no request to decide about."""

    def ended(self) -> InFlight:
        """Take the oldest batch out of the queue."""

    def disturbed(self) -> None:
        """A request has gone, or KV cache has come: what could not run before may run now."""

    def repeated(self, flights: list[InFlight], times: int) -> None:
        """So many further decisions were made, each when a batch had ended; `flights` are in flight now."""


class StageFreeLoop:
    """Decides when the first stage is free; asleep while nothing can run, until an arrival or an end."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.queue: deque[InFlight | None] = deque()
        self._scheduler = scheduler
        self._asleep = True
        self._wake = NEVER

    def next_event(self, now: int, stage_free_ns: int, arrival_ns: int) -> tuple[int, int]:
        """See `Loop`."""
        decision = NEVER
        if len(self.queue) < self._scheduler.places:
            decision = max(now, stage_free_ns, min(arrival_ns, self._wake) if self._asleep else 0)
        oldest = self.queue[0] if self.queue else None
        if oldest is not None and oldest.end_ns <= decision:
            return oldest.end_ns, ENDS
        return decision, DECIDES

    def decided(self, flight: InFlight | None, now: int) -> None:
        """See `Loop`."""
        self._asleep = flight is None
        wake = self._scheduler.next_decision(now) if flight is None else None
        self._wake = NEVER if wake is None else wake
        if flight is not None:
            self.queue.append(flight)

    def nothing_to_decide(self, now: int) -> None:
        """See `Loop`."""
        self._asleep, self._wake = True, NEVER

    def ended(self) -> InFlight:
        """See `Loop`."""
        self._asleep = False
        return _oldest(self.queue)

    def disturbed(self) -> None:
        """See `Loop`."""
        self._asleep = False

    def repeated(self, flights: list[InFlight], times: int) -> None:
        """See `Loop`."""
        self.queue = deque(flights)


class QueueLoop:
    """vLLM's batch queue (`EngineCore.step_with_batch_queue`): decides while there is a place, else awaits the oldest.

    A decision for nothing takes a place and is awaited in its turn. After it the engine awaits the oldest batch at
    once, or (`fills`) only when the queue is full. While nothing at all is in flight it sleeps until a request comes.
    """

    def __init__(self, scheduler: Scheduler, *, fills: bool) -> None:
        self.queue: deque[InFlight | None] = deque()
        self._scheduler = scheduler
        self._fills = fills
        self._awaits = False
        self._asleep = True

    def next_event(self, now: int, stage_free_ns: int, arrival_ns: int) -> tuple[int, int]:
        """See `Loop`."""
        if self._awaits:
            oldest = self.queue[0]
            assert oldest is not None  # see `_await`
            return oldest.end_ns, ENDS
        return max(now, arrival_ns) if self._asleep else now, DECIDES

    def decided(self, flight: InFlight | None, now: int) -> None:
        """See `Loop`."""
        self._asleep = False
        self.queue.append(flight)
        if len(self.queue) < self._scheduler.places:
            oldest = self.queue[0]
            executed = flight is not None and bool(flight.batch.requests)
            if self._fills or (executed and oldest is not None and oldest.end_ns > now):
                return
        self._await(now)

    def nothing_to_decide(self, now: int) -> None:
        """See `Loop`."""
        while self.queue and self.queue[0] is None:
            self.queue.popleft()
        self._awaits = bool(self.queue)
        self._asleep = not self.queue

    def ended(self) -> InFlight:
        """See `Loop`."""
        self._awaits = False
        return _oldest(self.queue)

    def disturbed(self) -> None:
        """See `Loop`."""
        self._asleep = False

    def repeated(self, flights: list[InFlight], times: int) -> None:
        """See `Loop`. Decisions for nothing come and go as they would have."""
        pattern = [flight is not None for flight in self.queue]
        if all(pattern):
            self.queue = deque(flights)
            return
        for _ in range(times):
            self._turn(pattern)
        following = iter(flights)
        self.queue = deque(next(following) if real else None for real in pattern)

    def _await(self, now: int) -> None:
        """Wait for the oldest batch; a decision for nothing in front of it is done at once."""
        if self.queue[0] is not None:
            self._awaits = True
            return
        self.queue.popleft()
        if all(flight is None for flight in self.queue) and self._scheduler.has_unfinished():
            self._asleep = self._scheduler.next_decision(now) is None

    def _turn(self, pattern: list[bool]) -> None:
        """Let the oldest batch end, a like one be decided, and then nothing until the next one is awaited.

        Every batch in flight has come again before anything is foreseen, so the queue is as long as it gets.
        """
        pattern.pop(0)
        pattern.append(True)
        while not pattern[0]:
            pattern.pop(0)
            pattern.append(False)


def engine_loop(scheduler: Scheduler) -> Loop:
    """Return the loop that `scheduler` asks for."""
    if scheduler.loop is EngineLoop.STAGE_FREE:
        return StageFreeLoop(scheduler)
    return QueueLoop(scheduler, fills=scheduler.loop is EngineLoop.FILLED_QUEUE)


def _oldest(queue: deque[InFlight | None]) -> InFlight:
    flight = queue.popleft()
    assert flight is not None  # loops never await a decision for nothing
    return flight
