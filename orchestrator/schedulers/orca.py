"""Iteration-level scheduling (Orca), with the rules of LLMServingSim v0.2.1.

Requests are served first come, first served; those that have started come first. An iteration takes the longest
prefix of the pool whose KV blocks fit, up to `max_batch` requests: prompts whole, decodes one token, mixed freely.
When not even the first fits, the requests added last are evicted to host memory, whole, until it does; they keep
their place in the pool and are reloaded when the prefix reaches them again. At most `pipeline` batches are in flight.

    pool:   started, in order of arrival (some on the host) | not started, in order of arrival
            \\________ prefix that fits: the batch ________/
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from foundation.errors import InternalError
from orchestrator.batch import Batch, BatchOutcome
from orchestrator.kv_memory.paged import PagedKV
from orchestrator.request import Request
from orchestrator.schedulers.interface import KVUsage
from trace_gen.batch_shape import KVTransfer


@dataclass(slots=True, eq=False)
class Progress:
    """How far a request is: `place` in the order of arrival, tokens in its KV cache, output tokens generated."""

    request: Request
    place: int
    context: int = 0
    generated: int = 0

    @property
    def started(self) -> bool:
        """Whether any of its tokens has been computed (or given)."""
        return self.context > 0


class OrcaScheduler:
    """See the module's docstring. `skip_prefill`: prompts count as computed already, every step is a decode."""

    decides_ahead = False

    def __init__(self, kv: PagedKV, *, max_batch: int = 0, pipeline: int = 1, skip_prefill: bool = False) -> None:
        self.max_in_flight = pipeline
        self._kv = kv
        self._max_batch = max_batch
        self._skip_prefill = skip_prefill
        self._started: list[Progress] = []
        self._waiting: deque[Progress] = deque()
        self._in_flight: deque[tuple[Batch, list[Progress]]] = deque()
        self._unsettled: tuple[Batch, list[Progress]] | None = None
        self._places = 0
        self._serial = 0

    def add(self, request: Request, now: int) -> None:
        """Take a request into the waiting queue."""
        context = request.prompt_tokens if self._skip_prefill else 0
        self._waiting.append(Progress(request, self._places, context))
        self._places += 1

    def schedule(self, now: int) -> Batch | None:
        """Return the longest prefix of the pool that fits; None when nothing can run now."""
        self._settle()
        first = next(self._pool(), None)
        if first is None:
            return None
        evicted = self._make_room_for(first)
        if evicted is None:
            return None
        chosen = self._prefix()
        loads = tuple(self._kv.reload(p.request) for p in chosen if self._kv.on_host(p.request))
        loaded = {load.request_id for load in loads}
        for progress in chosen:
            self._kv.take(progress.request, self._tokens_after(progress))
        new = self._leave_pool(chosen)
        batch = Batch(
            serial=self._serial,
            requests=[p.request for p in chosen],
            new_tokens=[self._tokens_after(p) - p.context for p in chosen],
            context_tokens=[p.context for p in chosen],
            samples=[True] * len(chosen),
            admitted=[(p.request, 0) for p in chosen if p in new or p.request.id in loaded],
            preempted=[progress.request for progress, _ in evicted],
            kv_loads=loads,
            kv_evictions=tuple(transfer for _, transfer in evicted),
        )
        self._serial += 1
        self._in_flight.append((batch, chosen))
        self._unsettled = (batch, chosen)
        return batch

    def next_decision(self, now: int) -> int | None:
        """Return None: only a completion or an arrival changes the decision."""
        return None

    def steady(self, batch: Batch) -> int:
        """Return the further steps before a request finishes or memory runs out; 0 with any prompt in the batch.

        What was left in the pool does not fit later either: free blocks only become fewer. With a pipeline, what
        was left may follow as the next batch at once, so then nothing is steady.
        """
        newest, members = self._in_flight[-1]
        if newest is not batch:
            raise InternalError("steady() is for the batch scheduled last")
        alone = len(self._in_flight) == 1 and not self._started and not self._waiting
        if (self.max_in_flight > 1 and not alone) or any(not progress.started for progress in members):
            return 0
        most = min(p.request.output_tokens - p.generated for p in members) - 1
        return self._kv.steps_that_fit([p.context + 1 for p in members], most) if most else 0

    def update(self, batch: Batch, now: int) -> BatchOutcome:
        """Count the batch's tokens; finished requests free their blocks, the others return to the pool."""
        self._settle()
        scheduled, members = self._in_flight.popleft()
        if scheduled is not batch:
            raise InternalError(f"batch {batch.serial} finished before batch {scheduled.serial}")
        finished, back = [], []
        for progress in members:
            progress.context = self._tokens_after(progress) + batch.steps - 1
            progress.generated += batch.steps
            if progress.generated >= progress.request.output_tokens:
                self._kv.release(progress.request)
                finished.append(progress.request)
            else:
                back.append(progress)
        self._started = sorted(back + self._started, key=lambda progress: progress.place)
        return BatchOutcome(emitted=batch.requests, finished=finished)

    def has_unfinished(self) -> bool:
        """Whether any request that was added is not finished."""
        return bool(self._started or self._waiting or self._in_flight)

    def unfit(self, request: Request) -> str | None:
        """Return why `request` can never run here, or None."""
        return self._kv.unfit(request, self.peak_tokens(request))

    def usage(self) -> KVUsage:
        """Return the KV memory's state, the newest batch counted with all its steps."""
        self._settle()
        running = sum(len(members) for _, members in self._in_flight) + len(self._started)
        return KVUsage(self._kv.space.total_blocks, self._kv.free_blocks, running, len(self._waiting))

    def peak_tokens(self, request: Request) -> int:
        """Return the most tokens in the KV cache of `request`: its last output token is never written."""
        return request.prompt_tokens + request.output_tokens - (0 if self._skip_prefill else 1)

    def _pool(self) -> Iterator[Progress]:
        return chain(self._started, self._waiting)

    def _tokens_after(self, progress: Progress) -> int:
        """Return the tokens in the KV cache after the next step: the whole prompt, or one more."""
        return progress.context + 1 if progress.started else progress.request.prompt_tokens

    def _need(self, progress: Progress) -> int:
        return self._kv.need(progress.request, self._tokens_after(progress))

    def _prefix(self) -> list[Progress]:
        free, chosen = self._kv.free_blocks, []
        for progress in self._pool():
            free -= self._need(progress)
            if free < 0:
                break
            chosen.append(progress)
            if len(chosen) == self._max_batch:
                break
        return chosen

    def _make_room_for(self, first: Progress) -> list[tuple[Progress, KVTransfer]] | None:
        """Evict from the back of the pool until `first` fits; None, evicting nothing, when that is not enough."""
        missing = self._need(first) - self._kv.free_blocks
        victims: list[Progress] = []
        for progress in reversed(self._started):
            if missing <= 0:
                break
            blocks = self._kv.on_device(progress.request)
            if blocks and progress is not first:
                victims.append(progress)
                missing -= blocks
        if missing > 0:
            return None
        return [(progress, self._kv.evict(progress.request)) for progress in victims]

    def _leave_pool(self, chosen: list[Progress]) -> set[Progress]:
        """Take `chosen`, a prefix of the pool, out of it; return those of them that had not run before."""
        from_started = min(len(chosen), len(self._started))
        del self._started[:from_started]
        for _ in range(len(chosen) - from_started):
            self._waiting.popleft()
        return set(chosen[from_started:])

    def _settle(self) -> None:
        """Take the blocks of the steps that the instance added to the newest batch after it was scheduled."""
        if self._unsettled is None:
            return
        batch, members = self._unsettled
        self._unsettled = None
        if batch.steps > 1:
            for progress in members:
                self._kv.take(progress.request, self._tokens_after(progress) + batch.steps - 1)
