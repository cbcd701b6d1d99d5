"""Stall-free batching with chunked prompts: Sarathi-Serve (Agrawal et al., OSDI 2024, Algorithm 3).

A step has a budget of tokens. Who decodes is in every step, then come the next chunks of prompts that were begun, then
new prompts, each with as many tokens as are left::

    chunk_size 8    D D D | P P P P P      a prompt of 7 tokens beside three decodes: 5 of its tokens in one step,
                    D D D | P P | N N N    2 in the next, which begins another prompt

Admission takes the blocks of a whole prompt and leaves a watermark of blocks free. When a decode finds no block, those
that came last lose theirs and are computed anew later; a step in which that happens admits nobody. (Sarathi-Serve
admits in it: it may give the victim back the blocks that it has just lost, and go on so step after step.) With pipeline
stages up to as many batches are in flight, of different requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set

from orchestrator.engine.batch import Batch, Outcome
from orchestrator.kv_memory.store import KVStore
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Alike, EngineLoop, KVUsage
from orchestrator.schedulers.ledger import Ledger
from orchestrator.schedulers.line import WaitingLine
from orchestrator.schedulers.orders import Order, fcfs
from orchestrator.schedulers.phased import Phased, Step, arrive
from orchestrator.schedulers.watermark import Watermark


class SarathiScheduler:
    """See the module's docstring. `longest`: tokens at which a sequence ends; `watermark`: share of KV blocks.

    Requests wait in `order`.
    """

    loop = EngineLoop.STAGE_FREE

    def __init__(
        self,
        kv: KVStore,
        *,
        longest: int,
        chunk_size: int = 512,
        max_num_seqs: int = 128,
        watermark: float = 0.01,
        pipeline: int = 1,
        order: Order = fcfs,
    ) -> None:
        self.places = pipeline
        self._kv = kv
        self._watermark = Watermark(kv, watermark, longest)
        self._longest = longest
        self._chunk_size = chunk_size
        self._max_num_seqs = max_num_seqs
        self._ledger: Ledger[Phased] = Ledger(kv)
        self._waiting: WaitingLine[Phased] = WaitingLine(order)
        self._running: list[Phased] = []
        self._untold: list[Request] = []
        self._added = 0

    def add(self, admission: Admission, now: int) -> None:
        """Take a request into the waiting queue."""
        self._waiting.add(Phased(admission, self._added))
        self._added += 1

    def abort(self, request: Request, now: int) -> bool:
        """Forget a request; one in flight keeps its blocks until its batch has finished."""
        waiting = self._waiting.take(request)
        gone = [member for member in self._running if member.request is request] if waiting is None else [waiting]
        self._running = [member for member in self._running if member not in gone]
        for member in gone:
            self._kv.release(member)
        self._ledger.forget(request)
        return False

    def schedule(self, now: int) -> Batch | None:
        """Return the next step; None when nothing can run now.

        Where all that could run lost their places, it is decided again at once, and the next batch tells of them.
        """
        step = self._decide()
        self._untold += step.preempted
        if not step.members and step.preempted:
            step = self._decide()
        if not step.members:
            return None
        step.preempted, self._untold = self._untold, []
        return self._ledger.launch(step.flight(self._ledger.serial))

    def next_decision(self, now: int) -> int | None:
        """Return None: only a completion or an arrival changes the decision."""
        return None

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        """Count the batch's tokens; requests that are done free their blocks."""
        outcome, going = arrive(self._kv, self._ledger.land(batch), ended, self._longest)
        self._running.extend(going)
        return outcome

    def alike(self, most: int) -> Alike | None:
        """Foresee that the decodes in flight come again in turn.

        Who was left out stays so: free blocks only get fewer. With windows they may get more; and in a pipeline the
        next batch may be of others.
        """
        left = bool(self._running or self._waiting)
        if left and (self.places > 1 or self._kv.windowed):
            return None
        return self._ledger.alike_in_turn(
            most,
            lambda member: self._longest - member.tokens - 1,
            spare=self._watermark.spare,
            pooled=self.places > 1,
        )

    def repeat(self, times: int) -> list[Batch]:
        """See `Scheduler.repeat`."""
        return self._ledger.repeat(times)

    def has_unfinished(self) -> bool:
        """Whether any request that was added is not finished."""
        return bool(self._running or self._waiting or self._ledger.flights)

    def rejects(self, request: Request) -> str | None:
        """Return why the front end refuses `request`: no room for an answer below max_model_len."""
        if request.prompt_tokens < self._longest:
            return None
        return f"its prompt of {request.prompt_tokens} tokens is not below max_model_len ({self._longest})"

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request`, grown to `tokens` tokens, can never run here, or None."""
        return self._watermark.unfit(request, tokens)

    def usage(self) -> KVUsage:
        """Return the state now."""
        return KVUsage(self._kv.total, self._kv.free, self._started(), len(self._waiting))

    def _started(self) -> int:
        flying = sum(not member.gone for flight in self._ledger.flights for member in flight.members)
        return len(self._running) + flying

    def _decide(self) -> Step:
        """Return the step of those who are not in flight."""
        step = Step(self._chunk_size)
        begun = self._decode(step)
        for member in begun:
            self._chunk(member, step)
        if not step.preempted:
            self._admit(step)
        return step

    def _decode(self, step: Step) -> list[Phased]:
        """Add all that decode, the first to come first; return those whose prompts are under way."""
        queue = deque(sorted(self._running, key=lambda member: member.serial))
        begun: list[Phased] = []
        while queue:
            member = queue.popleft()
            if not member.decodes:
                begun.append(member)
                continue
            victim = None
            while victim is not member and not self._watermark.may_append(member):
                victim = queue.pop() if queue else member
                self._preempt(victim, step)
            if victim is not member:
                self._kv.grow(member, member.tokens)
                step.add(member, 1)
        self._running = []
        return begun

    def _chunk(self, member: Phased, step: Step) -> None:
        """Add the next chunk of a prompt, or let it wait for tokens."""
        tokens = min(member.left, step.budget)
        if tokens > 0:
            step.add(member, tokens)
        else:
            self._running.append(member)

    def _admit(self, step: Step) -> None:
        """Begin prompts that wait, from the first on, while they find blocks, seats and tokens."""
        seats = self._max_num_seqs - self._started() - len(step.members)
        while self._waiting and seats > 0 and step.budget > 0 and self._watermark.admits(self._waiting.head()):
            member = self._waiting.pop()
            self._kv.grow(member, member.tokens)
            member.prompt = member.tokens
            step.admitted.append((member.request, 0))
            self._chunk(member, step)
            seats -= 1

    def _preempt(self, member: Phased, step: Step) -> None:
        """Take its blocks from a request, which is computed anew; it is the next to be admitted."""
        self._kv.release(member, resumes=True)
        member.computed = 0
        member.preemptions += 1
        step.preempted.append(member.request)
        self._waiting.put_back([member])
