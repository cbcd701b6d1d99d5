"""The contract between an engine and its scheduler; `settings` beside it has the registry of policies.

An engine drives its scheduler in this order, all in simulated time (ns):

    add(admission, now)            every request that the engine has come to see, in order of arrival
    schedule(now) -> Batch         when its place in the loop comes (see `EngineLoop`)
    update(batch, ended, now)      when a batch has finished; batches finish in the order they were scheduled
    abort(request, now)            when its client has gone

Where nothing but one token a request changes from iteration to iteration, many are counted at once:

    alike(most) -> times, period   were nothing to intervene, so many further times the oldest batch would finish with
                                   nobody done and a decision would follow that is like the one `period` before it:
                                   the same requests, each a token further
    repeat(m) -> batches           so it happened m times, m <= times; returns the batches in flight now, oldest first

Between the two nothing else is called. In a pipeline of two batches that take turns the period
is 2::

    in flight  A0 B0       finish A0, decide A1;  finish B0, decide B1;  finish A1, decide A2 ...

A policy knows of a request what its client said: the prompt, `max_tokens`, a priority. How long the answer really is
the engine tells it (`ended`). Memory that runs out is not an error: a policy preempts, waits or returns None.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from foundation.records import dataclass

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.engine.batch import Batch, Outcome
    from orchestrator.requests.admission import Admission
    from orchestrator.requests.request import Request

    IntArray = NDArray[np.int64]


class EngineLoop(Enum):
    """When an engine asks its scheduler."""

    STAGE_FREE = auto()
    """When the first stage is free. Where nothing can run it asks again at an arrival, or when a batch has finished."""

    QUEUE = auto()
    """As vLLM's batch queue: as soon as a place in the queue is free, so decisions run ahead of the tokens they need. A
    decision for nothing takes a place, too; then the engine waits for the oldest batch."""

    FILLED_QUEUE = "filled queue"
    """As `QUEUE`, but the engine goes on deciding until the queue is full, be it with decisions for nothing."""


class KVUsage(NamedTuple):
    """Blocks of device KV memory at one moment, and requests by state."""

    total_blocks: int
    free_blocks: int
    running: int
    waiting: int

    def with_free(self, free_blocks: int) -> KVUsage:
        """Return the state with another number of free blocks."""
        return KVUsage(self.total_blocks, free_blocks, self.running, self.waiting)


@dataclass(frozen=True, slots=True, eq=False)
class Alike:
    """`times` further decisions, each like the one `period` before it.

    `free_blocks` ``[times + 1]``: free KV blocks now and after each. `pooled`: that holds only as long as no decision
    comes so late that the next batch has ended as well, about whose requests it would decide, too.
    """

    times: int
    period: int
    free_blocks: IntArray
    pooled: bool = False


class Scheduler(Protocol):
    """One engine's policy. See the module's docstring for the order of calls."""

    loop: EngineLoop

    places: int
    """Batches that may be outstanding at once."""

    def add(self, admission: Admission, now: int) -> None:
        """Take a request into the waiting queue. `now` is the step boundary at which the engine sees it."""

    def abort(self, request: Request, now: int) -> bool:
        """Forget a request that was added and has not finished: False, and nothing of it is reported any more.

        True: it is computed to its end all the same; it ends, and is reported, as if nothing had happened.
        """

    def schedule(self, now: int) -> Batch | None:
        """Decide the next iteration; None when nothing can run now (idle, or waiting for memory or a deadline)."""

    def next_decision(self, now: int) -> int | None:
        """After `schedule` returned None with work waiting: when to ask again without any event, or None."""

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        """Account for a finished batch: tokens emitted, requests finished, memory freed.

        `ended` are the requests in it whose answer is complete with this token.
        """

    def alike(self, most: int) -> Alike | None:
        """Return how many further decisions, `most` or fewer, are like those in flight; None when unsure."""

    def repeat(self, times: int) -> Sequence[Batch]:
        """Account for `times` of them and return the batches now in flight, oldest first."""

    def has_unfinished(self) -> bool:
        """Whether any request that was added is not finished, or a decision is due all the same."""

    def rejects(self, request: Request) -> str | None:
        """Return why the engine's front end does not take `request` (one clause with both sizes), or None."""

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request`, grown to `tokens` tokens, can never run (one clause, both sizes), or None."""

    def usage(self) -> KVUsage:
        """Return the state now."""


@runtime_checkable
class FindsPrefixes(Protocol):
    """What a scheduler offers beside whose KV memory finds prefixes; of others nothing is ever found."""

    def cached_tokens(self, request: Request, ahead: int) -> int:
        """Return how many tokens of `request`, which was not added, would be found if it were admitted.

        That is after the first `ahead` of the decisions that `alike` foresaw, none of which is booked yet. Asking
        changes nothing.
        """
