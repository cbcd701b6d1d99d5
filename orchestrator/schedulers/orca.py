"""Iteration-level scheduling (Orca), with the rules of LLMServingSim v0.2.1.

Those that have started come first, in the order in which they did; the others follow in the order of the queue. An
iteration takes the longest prefix of the pool whose KV blocks fit, up to `max_batch` requests: prompts whole, decodes
one token, mixed freely. When not even the first fits, the requests begun last are evicted to host memory, whole, until
it does; they keep their place in the pool and are reloaded when the prefix reaches them again. At most `pipeline`
batches are in flight.

    pool:   started, in that order (some on the host) | not started, in the queue's order
            \\________ prefix that fits: the batch ________/
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence, Set
from itertools import chain

from orchestrator.engine.batch import Batch, Outcome
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Alike, EngineLoop, KVUsage
from orchestrator.schedulers.ledger import Flight, Ledger
from orchestrator.schedulers.orders import Order, fcfs, line_up
from orchestrator.schedulers.tracked import Tracked
from trace_gen.batch_shape import KVTransfer

ENDLESS = 2**62
NOT_STARTED = -1
"""The serial of who waits; who has started is numbered from 0."""


class OrcaScheduler:
    """See the module's docstring. `max_batch` 0 is no limit; requests wait in `order`."""

    loop = EngineLoop.STAGE_FREE

    def __init__(
        self,
        ledger: Ledger[Tracked],
        *,
        max_batch: int = 0,
        pipeline: int = 1,
        order: Order = fcfs,
    ) -> None:
        self.places = pipeline
        self._order = order
        self._ledger = ledger
        self._kv = ledger.kv
        self._max_batch = max_batch
        self._started: list[Tracked] = []
        self._waiting: deque[Tracked] = deque()
        self._begun = 0

    def add(self, admission: Admission, now: int) -> None:
        """Take a request into the waiting queue."""
        line_up(self._waiting, Tracked(admission, NOT_STARTED), self._order)

    def abort(self, request: Request, now: int) -> bool:
        """Forget a request; one in flight keeps its blocks until its batch has finished."""
        for queue in self._queues():
            for member in [member for member in queue if member.request is request]:
                queue.remove(member)
                self._kv.release(member)
        self._ledger.forget(request)
        return False

    def schedule(self, now: int) -> Batch | None:
        """Return the longest prefix of the pool that fits; None when nothing can run now."""
        first = next(self._pool(), None)
        if first is None:
            return None
        evicted = self._make_room_for(*first)
        if evicted is None:
            return None
        chosen = self._choose()
        loads = {member: self._kv.swap_in(member) for member, _ in chosen if member.away}
        for member, tokens in chosen:
            self._kv.grow(member, tokens)
        new = self._leave_pool([member for member, _ in chosen])
        admitted = [(member.request, 0) for member, _ in chosen if member in new or member in loads]
        batch = Batch.of(
            self._ledger.serial,
            [member.request for member, _ in chosen],
            [tokens - member.computed for member, tokens in chosen],
            [member.computed for member, _ in chosen],
            [int(tokens == member.tokens) for member, tokens in chosen],
            admitted,
            [member.request for member, _ in evicted],
            tuple(loads.values()),
            tuple(transfer for _, transfer in evicted),
        )
        plain = not (evicted or admitted or batch.prompt_work()[0])
        for member, tokens in chosen:
            member.computed = tokens
        return self._ledger.launch(Flight(batch, [member for member, _ in chosen], plain))

    def next_decision(self, now: int) -> int | None:
        """Return None: only a completion or an arrival changes the decision."""
        return None

    def alike(self, most: int) -> Alike | None:
        """Foresee that the batches in flight come again; none with any prompt in them.

        What was left in the pool does not fit later either: free blocks only become fewer. With a pipeline, what
        was left may follow as the next batch at once, so then nothing is foreseen.
        """
        left = any(self._queues())
        if left and (self.places > 1 or self._kv.windowed):
            return None
        return self._ledger.alike_in_turn(most, lambda member: ENDLESS, pooled=self.places > 1)

    def repeat(self, times: int) -> list[Batch]:
        """See `Scheduler.repeat`."""
        return self._ledger.repeat(times)

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        """Count the batch's tokens; requests that ended free their blocks, the others return to the pool."""
        emitted, finished, back = [], [], []
        for member, samples in zip(self._ledger.land(batch).members, batch.samples.tolist(), strict=True):
            member.tokens += samples
            if member.gone:
                self._kv.release(member)
                continue
            if samples:
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
        return any(self._queues()) or bool(self._ledger.flights)

    def rejects(self, request: Request) -> str | None:
        """Return None: what fits is taken."""
        return None

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request`, grown to `tokens` tokens, can never run here, or None."""
        return self._kv.unfit(request, tokens)

    def usage(self) -> KVUsage:
        """Return the state now."""
        running = sum(len(flight.members) for flight in self._ledger.flights) + len(self._started)
        _, *waiting = self._queues()
        return KVUsage(self._kv.total, self._kv.free, running, sum(map(len, waiting)))

    def _queues(self) -> Sequence[list[Tracked] | deque[Tracked]]:
        """Return who is not in flight: those that have started, then those that have not."""
        return self._started, self._waiting

    def _pool(self) -> Iterator[tuple[Tracked, int]]:
        """Yield who may be computed next, in order, and how many of its tokens are in the cache then."""
        for member in chain(self._started, self._waiting):
            yield member, member.tokens

    def _choose(self) -> list[tuple[Tracked, int]]:
        """Return the next iteration's requests, of the longest prefix of the pool that fits."""
        free, chosen = self._kv.free, []
        for member, tokens in self._pool():
            free -= self._kv.need(member, tokens)
            if free < 0:
                break
            chosen.append((member, tokens))
            if len(chosen) == self._max_batch:
                break
        return chosen

    def _make_room_for(self, first: Tracked, tokens: int) -> list[tuple[Tracked, KVTransfer]] | None:
        """Evict from the back of the pool until `first` fits; None, evicting nothing, when that is not enough."""
        missing = self._kv.need(first, tokens) - self._kv.free
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

    def _leave_pool(self, chosen: Sequence[Tracked]) -> set[Tracked]:
        """Take `chosen`, those that have started first, out of the pool; return the others, who start now."""
        before, begun = len(self._started), self._begun
        going = set(chosen)
        self._started = [member for member in self._started if member not in going]
        new = chosen[before - len(self._started) :]
        passed: list[Tracked] = []
        while self._begun < begun + len(new):
            member = self._waiting.popleft()
            if member in going:
                member.serial = self._begun
                self._begun += 1
            else:
                passed.append(member)
        self._waiting.extendleft(reversed(passed))
        return set(new)
