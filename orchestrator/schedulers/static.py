"""Request-level scheduling (`--scheduling none`): a batch is formed once and runs until all its requests are done.

A batch is formed when `max_batch` requests wait, or `batch_delay` ns after the first of those waiting arrived; it
takes the longest prefix of the queue, in its order, whose prompts fit. Nobody joins a running batch. A request that
ends early is computed no further and frees its memory, but its answer is returned with the batch: it ends when the
batch ends.

How a batch is computed is its `inner` scheduler's, which has its requests to itself; `slots` has another one.

With a pipeline, up to `pipeline` such batches run, each one iteration at a time; another starts beside running ones
only if all their requests fit at the length expected of them, so that no batch waits for memory that another holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence, Set
from dataclasses import field, replace
from typing import Protocol

from foundation.records import dataclass
from orchestrator.engine.batch import Batch, Outcome
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Alike, EngineLoop, KVUsage
from orchestrator.schedulers.ledger import Ledger
from orchestrator.schedulers.orca import OrcaScheduler
from orchestrator.schedulers.orders import Order, fcfs, line_up
from orchestrator.schedulers.tracked import Tracked


class Inner(Protocol):
    """Iterates over the requests of one batch: those methods of `Scheduler` that it takes."""

    def add(self, admission: Admission, now: int) -> None:
        """Take a request of the batch."""

    def schedule(self, now: int) -> Batch | None:
        """Decide the next iteration, or None."""

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        """Account for a finished iteration."""

    def alike(self, most: int) -> Alike | None:
        """Foresee iterations of all batches in flight."""


@dataclass(slots=True, eq=False)
class Group:
    """A batch formed for good: `inner` iterates over its members alone; `done` wait for the others."""

    inner: Inner
    members: list[Admission]
    done: list[Request] = field(default_factory=list)
    in_flight: bool = False


class StaticScheduler:
    """See the module's docstring. `batch_delay` in ns."""

    loop = EngineLoop.STAGE_FREE

    def __init__(
        self,
        ledger: Ledger[Tracked],
        *,
        max_batch: int = 0,
        batch_delay: int = 0,
        pipeline: int = 1,
        order: Order = fcfs,
    ) -> None:
        self.places = pipeline
        self._order = order
        self._ledger = ledger
        self._kv = ledger.kv
        self._max_batch = max_batch
        self._batch_delay = batch_delay
        self._waiting: deque[Admission] = deque()
        self._groups: deque[Group] = deque()
        self._flying: deque[Group] = deque()

    def add(self, admission: Admission, now: int) -> None:
        """Take a request into the waiting queue."""
        line_up(self._waiting, admission, self._order)

    def abort(self, request: Request, now: int) -> bool:
        """Forget a waiting request; one in a running batch is computed to its end."""
        waiting = [admission for admission in self._waiting if admission.request is not request]
        runs = len(waiting) == len(self._waiting)
        self._waiting = deque(waiting)
        return runs

    def schedule(self, now: int) -> Batch | None:
        """Return the next iteration of a running batch, else of a new one; None when neither can run now."""
        for group in self._groups:
            if not group.in_flight:
                batch = group.inner.schedule(now)
                if batch is not None:
                    return self._launch(group, batch)
        if not self._waiting or len(self._groups) == self.places or now < self._deadline():
            return None
        members = self._take_members()
        if not members:
            return None
        group = Group(self._inner(members), members)
        for admission in members:
            group.inner.add(admission, now)
        self._groups.append(group)
        batch = group.inner.schedule(now)
        return None if batch is None else self._launch(group, batch)

    def next_decision(self, now: int) -> int | None:
        """Return when the first waiting request's delay is over, if a batch may be formed then."""
        if not self._waiting or len(self._groups) == self.places:
            return None
        deadline = self._deadline()
        return deadline if deadline > now else None

    def alike(self, most: int) -> Alike | None:
        """Foresee further steps of the running batches; none where another batch may be started meanwhile."""
        if self.places > 1 and self._waiting:
            return None
        if any(not group.in_flight for group in self._groups):
            return None
        return self._flying[-1].inner.alike(most)

    def repeat(self, times: int) -> list[Batch]:
        """See `Scheduler.repeat`; running batches take turns (all are in flight, and `_groups` in any order)."""
        self._flying.rotate(-times)
        return self._ledger.repeat(times)

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        """Count the batch's tokens; its requests finish together, with the last of them."""
        group = self._flying.popleft()
        group.in_flight = False
        outcome = group.inner.update(batch, ended, now)
        group.done.extend(outcome.finished)
        self._groups.remove(group)
        if len(group.done) < len(group.members):
            self._groups.append(group)
            return replace(outcome, finished=())
        return replace(outcome, finished=group.done)

    def has_unfinished(self) -> bool:
        """Whether any request that was added is not finished."""
        return bool(self._waiting or self._groups)

    def rejects(self, request: Request) -> str | None:
        """Return None: what fits is taken."""
        return None

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request`, grown to `tokens` tokens, can never run here, or None."""
        return self._kv.unfit(request, tokens)

    def usage(self) -> KVUsage:
        """Return the state now."""
        running = sum(len(group.members) - len(group.done) for group in self._groups)
        return KVUsage(self._kv.total, self._kv.free, running, len(self._waiting))

    def _inner(self, members: Sequence[Admission]) -> Inner:
        """Return what computes a new batch."""
        return OrcaScheduler(self._ledger)

    def _deadline(self) -> int:
        """Return when the next batch may be formed: at once (0) when it would be full."""
        if self._max_batch and len(self._waiting) >= self._max_batch:
            return 0
        return min(waiting.request.arrival_ns for waiting in self._waiting) + self._batch_delay

    def _take_members(self) -> list[Admission]:
        """Take the longest prefix of the queue that fits, `max_batch` requests at most."""
        members: list[Admission] = []
        for admission, fits in zip(self._waiting, self._fitting(), strict=False):
            if not fits or (self._max_batch and len(members) == self._max_batch):
                break
            members.append(admission)
        for _ in members:
            self._waiting.popleft()
        return members

    def _fitting(self) -> Iterator[bool]:
        """Yield whether each that waits still fits with those before it, by full lengths beside running batches."""
        beside = bool(self._groups)
        free = self._kv.free
        if beside:
            active = (one for group in self._groups for one in group.members if one.request not in group.done)
            free = self._kv.total - sum(map(self._peak_blocks, active))
        for admission in self._waiting:
            free -= self._peak_blocks(admission) if beside else self._first_blocks(admission)
            yield free >= 0

    def _first_blocks(self, admission: Admission) -> int:
        """Return the blocks of a request's first iteration."""
        request = admission.request
        return self._kv.peak_blocks(request, max(request.prompt_tokens, admission.computed_tokens + 1))

    def _peak_blocks(self, admission: Admission) -> int:
        """Return the blocks of a request as long as it is expected to become."""
        request = admission.request
        return self._kv.peak_blocks(request, admission.peak_tokens(request.expected_output))

    def _launch(self, group: Group, batch: Batch) -> Batch:
        group.in_flight = True
        self._flying.append(group)
        return batch
