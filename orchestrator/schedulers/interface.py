"""The contract between an instance and its scheduler; `settings` beside it has the registry of policies.

An instance drives its scheduler in this order, all in simulated time (ns):

    add(request, now)          every arrival that the engine has come to see, in arrival order
    schedule(now) -> Batch     at a step boundary, while fewer than `max_in_flight` batches are outstanding
    steady(batch) -> k         right after: how many *further* steps would be decided alike; the instance may then
                               set ``batch.steps`` to anything up to ``1 + k``, before anything else is called
    update(batch, now)         when the batch has finished; batches finish in the order they were scheduled

Memory that runs out is not an error: the scheduler preempts, waits or returns None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestrator.batch import Batch, BatchOutcome
from orchestrator.request import Request


@dataclass(frozen=True, slots=True)
class KVUsage:
    """Blocks of device KV memory at one moment, and requests by state."""

    total_blocks: int
    free_blocks: int
    running: int
    waiting: int


class Scheduler(Protocol):
    """One instance's policy. See the module's docstring for the order of calls."""

    max_in_flight: int
    """Batches that may be outstanding at once: 1, the pipeline stages, or 2 for asynchronous scheduling."""

    decides_ahead: bool
    """False: a batch is decided when the first stage is free. True (vLLM's batch queue): as soon as fewer than
    `max_in_flight` are outstanding, so decisions are made before the previous batch's tokens are known."""

    def add(self, request: Request, now: int) -> None:
        """Take a request into the waiting queue. `now` is the step boundary at which the engine sees it."""

    def schedule(self, now: int) -> Batch | None:
        """Decide the next iteration; None when nothing can run now (idle, or waiting for memory or a deadline)."""

    def next_decision(self, now: int) -> int | None:
        """After `schedule` returned None with work waiting: when to ask again without any event, or None."""

    def steady(self, batch: Batch) -> int:
        """Return how many further steps are decided exactly alike, no arrival being seen: 0 when unsure."""

    def update(self, batch: Batch, now: int) -> BatchOutcome:
        """Account for a finished batch (all its `steps`): tokens emitted, requests finished, memory freed."""

    def has_unfinished(self) -> bool:
        """Whether any request that was added is not finished."""

    def unfit(self, request: Request) -> str | None:
        """Return why `request` can never run here (one clause with both sizes), or None. Called before the run."""

    def usage(self) -> KVUsage:
        """Return the KV memory's state now."""
