"""Request-level scheduling (`--scheduling none`): a batch is formed once and runs until all its requests are done.

A batch is formed when `max_batch` requests wait, or `batch_delay` ns after the first of those waiting arrived; it
takes the longest prefix of the queue whose prompts fit. Nobody joins a running batch. A request that ends early is
computed no further and frees its memory, but its answer is returned with the batch: it ends when the batch ends.

With a pipeline, up to `pipeline` such batches run, each one iteration at a time; another starts beside running ones
only if all their requests fit at full length, so that no batch waits for memory that another holds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from orchestrator.batch import Batch, BatchOutcome
from orchestrator.kv_memory.paged import PagedKV
from orchestrator.request import Request
from orchestrator.schedulers.interface import KVUsage
from orchestrator.schedulers.orca import OrcaScheduler


@dataclass(slots=True, eq=False)
class Group:
    """A batch formed for good: `inner` iterates over its members alone; `done` wait for the others."""

    inner: OrcaScheduler
    members: list[Request]
    done: list[Request] = field(default_factory=list)
    in_flight: bool = False


class StaticScheduler:
    """See the module's docstring. `batch_delay` in ns."""

    decides_ahead = False

    def __init__(
        self,
        kv: PagedKV,
        *,
        max_batch: int = 0,
        batch_delay: int = 0,
        pipeline: int = 1,
        skip_prefill: bool = False,
    ) -> None:
        self.max_in_flight = pipeline
        self._kv = kv
        self._max_batch = max_batch
        self._batch_delay = batch_delay
        self._skip_prefill = skip_prefill
        self._sizer = OrcaScheduler(kv, skip_prefill=skip_prefill)
        self._waiting: deque[Request] = deque()
        self._groups: deque[Group] = deque()
        self._flying: deque[Group] = deque()
        self._serial = 0

    def add(self, request: Request, now: int) -> None:
        """Take a request into the waiting queue."""
        self._waiting.append(request)

    def schedule(self, now: int) -> Batch | None:
        """Return the next iteration of a running batch, else of a new one; None when neither can run now."""
        for group in self._groups:
            if not group.in_flight:
                batch = group.inner.schedule(now)
                if batch is not None:
                    return self._launch(group, batch)
        if not self._waiting or len(self._groups) == self.max_in_flight or now < self._deadline():
            return None
        members = self._take_members()
        if not members:
            return None
        group = Group(OrcaScheduler(self._kv, skip_prefill=self._skip_prefill), members)
        for request in members:
            group.inner.add(request, now)
        self._groups.append(group)
        batch = group.inner.schedule(now)
        return None if batch is None else self._launch(group, batch)

    def next_decision(self, now: int) -> int | None:
        """Return when the first waiting request's delay is over, if a batch may be formed then."""
        if not self._waiting or len(self._groups) == self.max_in_flight:
            return None
        deadline = self._deadline()
        return deadline if deadline > now else None

    def steady(self, batch: Batch) -> int:
        """Return the further steps in which no member finishes; 0 where another batch may be started meanwhile."""
        if self.max_in_flight > 1 and (len(self._groups) > 1 or self._waiting):
            return 0
        return self._flying[-1].inner.steady(batch)

    def update(self, batch: Batch, now: int) -> BatchOutcome:
        """Count the batch's tokens; its requests finish together, with the last of them."""
        group = self._flying.popleft()
        group.in_flight = False
        outcome = group.inner.update(batch, now)
        group.done.extend(outcome.finished)
        self._groups.remove(group)
        if len(group.done) < len(group.members):
            self._groups.append(group)
            return BatchOutcome(emitted=outcome.emitted)
        return BatchOutcome(emitted=outcome.emitted, finished=group.done)

    def has_unfinished(self) -> bool:
        """Whether any request that was added is not finished."""
        return bool(self._waiting or self._groups)

    def unfit(self, request: Request) -> str | None:
        """Return why `request` can never run here, or None."""
        return self._sizer.unfit(request)

    def usage(self) -> KVUsage:
        """Return the KV memory's state, the newest batch counted with all its steps."""
        for group in self._groups:
            group.inner.usage()
        running = sum(len(group.members) - len(group.done) for group in self._groups)
        return KVUsage(self._kv.space.total_blocks, self._kv.free_blocks, running, len(self._waiting))

    def _deadline(self) -> int:
        """Return when the next batch may be formed: at once (0) when it would be full."""
        if self._max_batch and len(self._waiting) >= self._max_batch:
            return 0
        return self._waiting[0].arrival_ns + self._batch_delay

    def _take_members(self) -> list[Request]:
        """Take the longest prefix of the queue that fits, by prompts, or by full lengths beside running batches."""
        beside = bool(self._groups)
        free = self._kv.free_blocks
        if beside:
            active = (request for group in self._groups for request in group.members if request not in group.done)
            free = self._kv.space.total_blocks - sum(map(self._peak_blocks, active))
        members: list[Request] = []
        for request in self._waiting:
            prompt = request.prompt_tokens + (1 if self._skip_prefill else 0)
            free -= self._peak_blocks(request) if beside else self._kv.blocks_for(request, prompt)
            if free < 0 or (self._max_batch and len(members) == self._max_batch):
                break
            members.append(request)
        for _ in members:
            self._waiting.popleft()
        return members

    def _peak_blocks(self, request: Request) -> int:
        return self._kv.blocks_for(request, self._sizer.peak_tokens(request))

    def _launch(self, group: Group, batch: Batch) -> Batch:
        batch.serial = self._serial
        self._serial += 1
        group.in_flight = True
        self._flying.append(group)
        return batch
