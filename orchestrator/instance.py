"""One serving engine in simulated time: sees arrivals, asks its scheduler, runs batches, moves the clock.

    advance(until)
      next event -> batches that end now -> arrivals seen -> decision -> batch (1 + k steps) executed -> ...

At equal times batches end first, then arrivals are seen, then the next batch is decided. A request is seen at the
first decision at or after its arrival. Where a scheduler says that the next k steps would be decided alike, they run
as one batch of 1 + k steps, cut at the first step boundary at or after the next arrival: exactly what one step at a
time would give.

With pipeline stages, stage s starts a batch when stage s - 1 is done with it and with the batch before:

    stage 0   |A0 |B0 |   |A0'...
    stage 1       |A1 |B1 |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InternalError
from orchestrator.batch import Batch, BatchOutcome
from orchestrator.executor import Executor
from orchestrator.request import Request
from orchestrator.schedulers.interface import KVUsage, Scheduler

IntArray = NDArray[np.int64]
MAX_STEPS = 512
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that the engine came to see at `queued_ns`."""

    request: Request
    queued_ns: int


@dataclass(slots=True)
class CompletedBatch:
    """A batch that ran: decided and started when (ns), the end of each of its steps, shape ``[steps]``.

    `seen` lists the requests that the engine saw at the decision; `usage` is the KV memory's state as the last
    step ran; `outcome` is set when the batch has ended. `stage_spans_ns` says of each pipeline stage when it began
    the first step and when it ended the last.
    """

    batch: Batch
    decided_ns: int
    start_ns: int
    ends_ns: IntArray
    usage: KVUsage
    seen: list[Seen]
    outcome: BatchOutcome
    stage_spans_ns: tuple[tuple[int, int], ...]

    @property
    def end_ns(self) -> int:
        """When the last step ended."""
        return int(self.ends_ns[-1])

    @property
    def last_step_start_ns(self) -> int:
        """When the last step began."""
        return int(self.ends_ns[-2]) if len(self.ends_ns) > 1 else self.start_ns


class Instance:
    """A scheduler, an executor and the clock between them. See the module's docstring.

    `max_steps` bounds the like iterations that are simulated at once; results do not depend on it. Batches are also
    cut at multiples of `checkpoint_ns` (0: none), so that `usage` is known at each.
    """

    def __init__(
        self, scheduler: Scheduler, executor: Executor, *, max_steps: int = MAX_STEPS, checkpoint_ns: int = 0
    ) -> None:
        self.now = 0
        self._scheduler = scheduler
        self._executor = executor
        self._max_steps = min(max_steps, executor.max_steps)
        self._checkpoint_ns = checkpoint_ns
        self._arrivals: deque[Request] = deque()
        self._seen: list[Seen] = []
        self._in_flight: deque[CompletedBatch] = deque()
        self._stage_free: list[int] = [0] * executor.stages
        self._asleep = True
        self._wake: int | None = None
        self._last_step_ns = 1

    def submit(self, request: Request) -> None:
        """Route a request here; requests come in order of arrival, none before a decision already made."""
        self._arrivals.append(request)

    def advance(self, until: int | None = None) -> Iterator[CompletedBatch]:
        """Simulate every event before `until` (ns; None: to the end) and yield the batches that end, in order.

        `until` is when the next request may arrive: no decision is made at or after it.
        """
        horizon = _NEVER if until is None else until
        while (event := self._next_event()) < horizon:
            self.now = event
            while self._in_flight and self._in_flight[0].end_ns <= event:
                yield self._complete()
            if self._decision_time() <= event:
                self._decide(event, horizon)

    def idle(self) -> bool:
        """Whether nothing is in flight, waiting or yet to be seen."""
        return not (self._in_flight or self._arrivals or self._scheduler.has_unfinished())

    def _next_event(self) -> int:
        completion = self._in_flight[0].end_ns if self._in_flight else _NEVER
        return min(completion, self._decision_time())

    def _decision_time(self) -> int:
        """Return when the scheduler is asked next, if nothing ends before."""
        if len(self._in_flight) >= self._scheduler.max_in_flight:
            return _NEVER
        ready = max(self.now, self._ready_time())
        if not self._asleep:
            return ready
        if self._scheduler.decides_ahead and self._in_flight:
            return _NEVER
        arrival = self._arrivals[0].arrival_ns if self._arrivals else _NEVER
        wake = _NEVER if self._wake is None else self._wake
        return max(ready, min(arrival, wake))

    def _ready_time(self) -> int:
        """Return when there is a place for another batch: the first stage is free, or a step has begun (ahead)."""
        if self._scheduler.decides_ahead:
            return self._in_flight[-1].last_step_start_ns if self._in_flight else 0
        return self._stage_free[0]

    def _complete(self) -> CompletedBatch:
        done = self._in_flight.popleft()
        done.outcome = self._scheduler.update(done.batch, done.end_ns)
        self._asleep = False
        return done

    def _decide(self, now: int, horizon: int) -> None:
        while self._arrivals and self._arrivals[0].arrival_ns <= now:
            request = self._arrivals.popleft()
            self._scheduler.add(request, now)
            self._seen.append(Seen(request, now))
        batch = self._scheduler.schedule(now)
        self._asleep = batch is None
        self._wake = self._scheduler.next_decision(now) if batch is None else None
        if batch is not None:
            if self._arrivals:
                horizon = min(horizon, self._arrivals[0].arrival_ns)
            self._launch(batch, now, horizon)

    def _launch(self, batch: Batch, now: int, horizon: int) -> None:
        """Run `batch` with as many like steps as are decided before `horizon`."""
        if not (batch.kv_loads or batch.kv_evictions):  # blocks move before the first step alone
            batch.steps = 1 + min(self._scheduler.steady(batch), self._max_steps - 1, self._steps_until(now, horizon))
        finishes = self._executor.run(batch)
        if finishes.shape != (batch.steps, len(self._stage_free)):
            raise InternalError(f"{batch.steps} steps ran, {finishes.shape} finish times came back")
        stage_starts, stage_ends = self._pipeline(now, finishes[0])
        start = stage_starts[0]
        ends = np.array(stage_ends[-1:], dtype=np.int64)
        if batch.steps > 1:
            ends = np.concatenate((ends, ends + np.cumsum(finishes[1:, -1])))
            batch.steps = self._steps_before(start, ends, horizon)
            ends = ends[: batch.steps]
        if batch.steps > 1:
            stage_ends = (int(ends[-2]) + finishes[batch.steps - 1]).tolist()
        self._stage_free = stage_ends
        self._last_step_ns = int(finishes[0, -1])
        seen, self._seen = self._seen, []
        usage = self._scheduler.usage()
        spans = tuple(zip(stage_starts, stage_ends, strict=True))
        self._in_flight.append(CompletedBatch(batch, now, start, ends, usage, seen, BatchOutcome(), spans))

    def _pipeline(self, now: int, finishes: IntArray) -> tuple[list[int], list[int]]:
        """Return when each stage begins and ends a batch, given each stage's finish on an idle pipeline."""
        starts, ends, end, previous = [], [], now, 0
        for finish, free in zip(finishes.tolist(), self._stage_free, strict=True):
            starts.append(max(end, free))
            end = starts[-1] + finish - previous
            previous = finish
            ends.append(end)
        return starts, ends

    def _steps_before(self, start: int, ends: IntArray, horizon: int) -> int:
        """Return how many of the steps are decided before `horizon`, and none begun after a checkpoint but the first.

        Step j is decided when it begins, or (deciding ahead) when step j - 1 begins.
        """
        begins = np.concatenate(([start], ends[:-1]))
        ahead = 1 if self._scheduler.decides_ahead else 0
        steps = ahead + int(np.searchsorted(begins, horizon))
        if self._checkpoint_ns:
            checkpoint = (start // self._checkpoint_ns + 1) * self._checkpoint_ns
            steps = min(steps, int(np.searchsorted(begins, checkpoint)))
        return max(1, min(steps, len(ends)))

    def _steps_until(self, now: int, horizon: int) -> int:
        """Guess how many further steps begin before `horizon`, so that few are executed in vain."""
        if self._checkpoint_ns:
            horizon = min(horizon, (now // self._checkpoint_ns + 1) * self._checkpoint_ns)
        return min(self._max_steps, (horizon - now) // self._last_step_ns + 1)
