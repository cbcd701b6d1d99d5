"""Iteration-level scheduling (Orca), with the rules of LLMServingSim v0.2.1.

Requests are served first come, first served; those that have started come first. An iteration takes the longest
prefix of the pool whose KV blocks fit, up to `max_batch` requests: prompts whole, decodes one token, mixed freely.
When not even the first fits, the requests added last are evicted to host memory, whole, until it does; they keep
their place in the pool and are reloaded when the prefix reaches them again. At most `pipeline` batches are in flight.

    pool:   started, in order of arrival (some on the host) | not started, in order of arrival
            \\________ prefix that fits: the batch ________/
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator, Set
from itertools import chain

from orchestrator.engine.batch import Batch, Outcome
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Alike, EngineLoop, KVUsage
from orchestrator.schedulers.ledger import Flight, Ledger
from orchestrator.schedulers.tracked import Tracked
from trace_gen.batch_shape import KVTransfer

ENDLESS = 2**62


class OrcaScheduler:
    """See the module's docstring. `max_batch` 0 is no limit.

    `order`: of the requests that wait, the one with the least goes first, of equals the first to come; by default all
    are equal.
    """

    loop = EngineLoop.STAGE_FREE

    def __init__(
        self,
        ledger: Ledger[Tracked],
        *,
        max_batch: int = 0,
        pipeline: int = 1,
        order: Callable[[Request], int] = lambda request: 0,
    ) -> None:
        self.places = pipeline
        self._order = order
        self._ledger = ledger
        self._kv = ledger.kv
        self._max_batch = max_batch
        self._started: list[Tracked] = []
        self._waiting: deque[Tracked] = deque()
        self._added = 0

    def add(self, admission: Admission, now: int) -> None:
        """Take a request into the waiting queue."""
        insort(self._waiting, Tracked(admission, self._added), key=lambda waiting: self._order(waiting.request))
        self._added += 1

    def abort(self, request: Request, now: int) -> bool:
        """Forget a request; one in flight keeps its blocks until its batch has finished."""
        pool: list[Tracked] | deque[Tracked]
        for pool in (self._started, self._waiting):
            for member in [member for member in pool if member.request is request]:
                pool.remove(member)
                self._kv.release(member)
        self._ledger.forget(request)
        return False

    def schedule(self, now: int) -> Batch | None:
        """Return the longest prefix of the pool that fits; None when nothing can run now."""
        first = next(self._pool(), None)
        if first is None:
            return None
        evicted = self._make_room_for(first)
        if evicted is None:
            return None
        chosen = self._prefix()
        loads = {member: self._kv.swap_in(member) for member in chosen if member.away}
        for member in chosen:
            self._kv.grow(member, member.tokens)
        new = self._leave_pool(chosen)
        admitted = [(member.request, 0) for member in chosen if member in new or member in loads]
        batch = Batch.of(
            self._ledger.serial,
            [member.request for member in chosen],
            [member.tokens - member.computed for member in chosen],
            [member.computed for member in chosen],
            [1] * len(chosen),
            admitted,
            [member.request for member, _ in evicted],
            tuple(loads.values()),
            tuple(transfer for _, transfer in evicted),
        )
        plain = not (evicted or admitted) and len(chosen) == int(batch.new_tokens.sum())
        for member in chosen:
            member.computed = member.tokens
        return self._ledger.launch(Flight(batch, chosen, plain))

    def next_decision(self, now: int) -> int | None:
        """Return None: only a completion or an arrival changes the decision."""
        return None

    def alike(self, most: int) -> Alike | None:
        """Foresee that the batches in flight come again; none with any prompt in them.

        What was left in the pool does not fit later either: free blocks only become fewer. With a pipeline, what
        was left may follow as the next batch at once, so then nothing is foreseen.
        """
        left = bool(self._started or self._waiting)
        if left and (self.places > 1 or self._kv.windowed):
            return None
        return self._ledger.alike_in_turn(most, lambda member: ENDLESS, pooled=self.places > 1)

    def repeat(self, times: int) -> list[Batch]:
        """See `Scheduler.repeat`."""
        return self._ledger.repeat(times)

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        """Count the batch's tokens; requests that ended free their blocks, the others return to the pool."""
        emitted, finished, back = [], [], []
        for member in self._ledger.land(batch).members:
            member.tokens += 1
            if member.gone:
                self._kv.release(member)
                continue
            emitted.append(member.request)
            if member.request in ended:
                self._kv.release(member)
                finished.append(member.request)
            else:
                back.append(member)
        self._started = sorted(back + self._started, key=lambda member: member.serial)
        return Outcome(emitted, finished)

    def has_unfinished(self) -> bool:
        """Whether any request that was added is not finished."""
        return bool(self._started or self._waiting or self._ledger.flights)

    def rejects(self, request: Request) -> str | None:
        """Return None: what fits is taken."""
        return None

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request`, grown to `tokens` tokens, can never run here, or None."""
        return self._kv.unfit(request, tokens)

    def usage(self) -> KVUsage:
        """Return the state now."""
        running = sum(len(flight.members) for flight in self._ledger.flights) + len(self._started)
        return KVUsage(self._kv.total, self._kv.free, running, len(self._waiting))

    def _pool(self) -> Iterator[Tracked]:
        return chain(self._started, self._waiting)

    def _need(self, member: Tracked) -> int:
        return self._kv.need(member, member.tokens)

    def _prefix(self) -> list[Tracked]:
        free, chosen = self._kv.free, []
        for member in self._pool():
            free -= self._need(member)
            if free < 0:
                break
            chosen.append(member)
            if len(chosen) == self._max_batch:
                break
        return chosen

    def _make_room_for(self, first: Tracked) -> list[tuple[Tracked, KVTransfer]] | None:
        """Evict from the back of the pool until `first` fits; None, evicting nothing, when that is not enough."""
        missing = self._need(first) - self._kv.free
        victims: list[Tracked] = []
        for member in reversed(self._started):
            if missing <= 0:
                break
            blocks = self._kv.held(member)
            if blocks and member is not first:
                victims.append(member)
                missing -= blocks
        if missing > 0:
            return None
        return [(member, self._kv.swap_out(member)) for member in victims]

    def _leave_pool(self, chosen: list[Tracked]) -> set[Tracked]:
        """Take `chosen`, a prefix of the pool, out of it; return those of them that had not run before."""
        from_started = min(len(chosen), len(self._started))
        del self._started[:from_started]
        for _ in range(len(chosen) - from_started):
            self._waiting.popleft()
        return set(chosen[from_started:])
