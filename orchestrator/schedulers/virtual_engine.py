"""One of vLLM's v0 schedulers: a virtual engine, with blocks of its own and one batch in flight at most.

    waiting    prompts, and those that lost their place: first come, first served
    running    those that have started, in the order of their admission; the last loses its place first
    swapped    those whose blocks are in host memory: while there are any, no prompt is begun

By default a step is prompts only, as many as find tokens, seats and blocks, or else decodes only (`_schedule_default`).
With chunks it is those who run, then those that come back, then prompts, while tokens are left
(`_schedule_chunked_prefill`). The names are those of vLLM 0.6's vllm/core/scheduler.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence, Set
from itertools import chain

from foundation.records import dataclass
from orchestrator.engine.batch import Outcome
from orchestrator.kv_memory.store import KVStore
from orchestrator.requests.request import Request
from orchestrator.schedulers.ledger import Flight
from orchestrator.schedulers.line import WaitingLine
from orchestrator.schedulers.orders import Order
from orchestrator.schedulers.phased import Phased, Step, arrive
from orchestrator.schedulers.watermark import Watermark


@dataclass(frozen=True, slots=True)
class V0Limits:
    """What a step may hold, and how v0 goes about it; `longest` is max_model_len.

    `chunked`: prompts are computed in chunks beside decodes. `swaps`: who loses its place is swapped to host memory.
    `watermark`: the share of KV blocks that an admission leaves free.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    longest: int
    chunked: bool = False
    swaps: bool = False
    watermark: float = 0.01


class VirtualEngine:
    """See the module's docstring. `settled`: nobody came or went since the last decision."""

    def __init__(self, kv: KVStore, limits: V0Limits, order: Order) -> None:
        self.kv = kv
        self.watermark = Watermark(kv, limits.watermark, limits.longest)
        self.waiting: WaitingLine[Phased] = WaitingLine(order)
        self.running: list[Phased] = []
        self.swapped: deque[Phased] = deque()
        self.in_flight: Sequence[Phased] = ()
        self.settled = False
        self._limits = limits

    @property
    def started(self) -> int:
        """Requests that run."""
        return len(self.running) + sum(not member.gone for member in self.in_flight)

    @property
    def unfinished(self) -> int:
        """Requests that are not done."""
        return self.started + len(self.waiting) + len(self.swapped)

    @property
    def refuses_for_good(self) -> bool:
        """Whether who was not served by the last decision is not served by those like it: free blocks only get fewer.

        What leaves a window makes them more.
        """
        return self.settled and not (self.kv.windowed and (self.waiting or self.swapped))

    def add(self, member: Phased) -> None:
        """Take a request into the waiting queue."""
        self.waiting.add(member)
        self.settled = False

    def forget(self, request: Request) -> None:
        """Drop a request; one in flight keeps its blocks until its batch has finished."""
        self.settled = False
        gone = [member for member in (*self.running, *self.swapped) if member.request is request]
        self.running = [member for member in self.running if member not in gone]
        self.swapped = deque(member for member in self.swapped if member not in gone)
        waiting = self.waiting.take(request)
        for member in gone if waiting is None else [waiting]:
            self.kv.release(member)

    def decide(self) -> Step | None:
        """Return the next step, or None where nothing can run.

        A step that only sends requests away takes v0 no time; it decides again at once.
        """
        step = Step(self._limits.max_num_batched_tokens)
        sent_away = -1
        while not step.members and sent_away < len(step.preempted):
            sent_away = len(step.preempted)
            if self._limits.chunked:
                self._chunks_beside_decodes(step)
            else:
                self._prompts_or_decodes(step)
        self.settled = True
        self.in_flight = step.members
        for member in step.members:
            self.kv.register(member, member.computed)
        return step if step.members else None

    def land(self, flight: Flight[Phased], ended: Set[Request]) -> Outcome:
        """Account for its batch, which has finished."""
        self.in_flight = ()
        outcome, going = arrive(self.kv, flight, ended, self._limits.longest)
        self.running.extend(going)
        return outcome

    def _prompts_or_decodes(self, step: Step) -> None:
        """Fill the step with prompts; if there are none, with decodes."""
        seats = self._limits.max_num_seqs - len(self.running)
        if not self.swapped:
            self._admit(step, seats)
        if not step.members:
            lost = self._run(step)
            if not lost:
                self._take_back(step, seats)
            self._send_away(lost)

    def _chunks_beside_decodes(self, step: Step) -> None:
        """Fill the step with those who run, who come back, and new prompts; the next looks at decodes first.

        v0 puts those who came back before the others, and prompts after decodes.
        """
        lost = self._run(step)
        ran, seats = len(step.members), self._limits.max_num_seqs - len(step.members) - len(self.running)
        if not lost:
            self._take_back(step, seats)
        came = len(step.members)
        self._admit(step, seats - (came - ran))
        self._send_away(lost)
        old = (sorted(rows, key=step.is_prompt) for rows in (range(ran, came), range(ran)))
        step.arrange([*chain.from_iterable(old), *range(came, len(step.members))])

    def _run(self, step: Step) -> list[Phased]:
        """Add those who run, and return who loses its place to them, the last first."""
        queue = deque(self.running)
        lost: list[Phased] = []
        while queue and (tokens := self._share(queue[0].left, step.budget)):
            member = queue.popleft()
            while member not in lost and not self.watermark.may_append(member):
                lost.append(queue.pop() if queue else member)
                self._preempt(lost[-1], step)
            if member not in lost:
                self.kv.grow(member, member.tokens)
                step.add(member, tokens)
        self.running = list(queue)
        return lost

    def _take_back(self, step: Step, seats: int) -> None:
        """Add those that were swapped out, while they find blocks, seats and tokens."""
        last = len(step.members) + seats
        while self.swapped and len(step.members) < last and self.watermark.admits(self.swapped[0]):
            member = self.swapped[0]
            tokens = self._share(member.left, step.budget)
            if not 0 < tokens <= step.budget:
                return
            self.swapped.popleft()
            step.loads.append(self.kv.swap_in(member))
            self.kv.grow(member, member.tokens)
            step.admitted.append((member.request, 0))
            step.add(member, tokens)

    def _admit(self, step: Step, seats: int) -> None:
        """Add requests that wait, from the first on, while they find blocks, seats and tokens."""
        last = len(step.members) + seats
        while self.waiting and len(step.members) < last and self.watermark.admits(self.waiting.head()):
            member = self.waiting.head()
            hit = self.kv.lookup(member, member.tokens)
            computed = max(member.computed, hit.tokens)
            tokens = self._share(member.tokens - computed, step.budget)
            if not 0 < tokens <= step.budget:
                return
            self.waiting.pop()
            self.kv.admit(member, hit, member.tokens)
            member.computed, member.prompt = computed, member.tokens
            step.admitted.append((member.request, hit.tokens))
            step.add(member, tokens)

    def _share(self, wanted: int, budget: int) -> int:
        """Return how many of the tokens that a request wants a step computes, if they are within the budget.

        The chunks of prompts are whole blocks where prefixes are reused.
        """
        if not self._limits.chunked or wanted <= budget:
            return wanted
        return budget // self.kv.block_size * self.kv.block_size if self.kv.caches_prefixes else budget

    def _preempt(self, member: Phased, step: Step) -> None:
        """Take its blocks from a request: they go to host memory, or what is in them is computed anew."""
        step.preempted.append(member.request)
        member.preemptions += 1
        if self._limits.swaps:
            step.evictions.append(self.kv.swap_out(member))
        else:
            self.kv.release(member, resumes=True)
            member.computed = 0

    def _send_away(self, lost: Sequence[Phased]) -> None:
        """Put those that lost their place where they wait for another."""
        if self._limits.swaps:
            self.swapped.extend(lost)
        else:
            self.waiting.put_back(lost)
