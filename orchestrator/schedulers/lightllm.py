"""LightLLM's scheduling (`--scheduling lightllm`): a request is admitted where the predicted peak of memory allows it.

Memory is kept by the token. A running request has `known` tokens and will compute at most `left` more, so when memory
will be fullest is known beforehand: at the end of one of them. Sorted by `left`, the longest first, the first i
requests are there when the i-th computes its last token, and hold then::

    left_i * i + known_1 + ... + known_i          known 9, 6, 4; left 5, 3, 0:    14, 21, 19 tokens; the peak is 21

Waiting requests are taken, in the order of the queue, while the peak with them stays below the memory, and computed in
an iteration of their own, `batch_max_tokens` new tokens at most. They are looked at when nothing runs, or when
`max_waiting_iters` decodes have gone by since the last such iteration; else all that run decode. `left` follows from
`max_tokens`, so memory never runs out, and nobody is preempted. Blocks of more than a token are counted as full.

LightLLM has no stages: on a pipeline there is one batch at a time.

Source: `lightllm/server/router` of LightLLM (08f28f95: `manager.py`, `req_queue.py`); later versions predict the same,
with shorter answers where memory is far from full (which need pauses), and look at the queue in every step. Likewise
Vidur's `lightllm_replica_scheduler.py`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InternalError
from orchestrator.engine.batch import Batch, Outcome
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Alike, EngineLoop, KVUsage
from orchestrator.schedulers.ledger import Flight, Ledger
from orchestrator.schedulers.orders import Order, fcfs, line_up
from orchestrator.schedulers.tracked import Tracked

IntArray = NDArray[np.int64]


class LightllmScheduler:
    """See the module's docstring. `max_total_tokens`: those that the memory of `ledger` holds."""

    loop = EngineLoop.STAGE_FREE
    places = 1

    def __init__(
        self,
        ledger: Ledger[Tracked],
        *,
        max_total_tokens: int,
        batch_max_tokens: int,
        max_waiting_iters: int,
        running_max_req_size: int,
        order: Order = fcfs,
    ) -> None:
        self._ledger = ledger
        self._kv = ledger.kv
        self._max_total_tokens = max_total_tokens
        self._batch_max_tokens = batch_max_tokens
        self._max_waiting_iters = max_waiting_iters
        self._running_max = running_max_req_size
        self._order = order
        self._running: list[Tracked] = []
        self._waiting: list[Tracked] = []
        self._added = 0
        self._decodes = 0

    def add(self, admission: Admission, now: int) -> None:
        """Take a request into the waiting queue."""
        line_up(self._waiting, Tracked(admission, self._added), self._order)
        self._added += 1

    def abort(self, request: Request, now: int) -> bool:
        """Forget a request; one in flight keeps its memory until its batch has finished."""
        flying = {member for flight in self._ledger.flights for member in flight.members}
        for queue in (self._running, self._waiting):
            for member in [member for member in queue if member.request is request]:
                queue.remove(member)
                if member not in flying:
                    self._kv.release(member)
        self._ledger.forget(request)
        return False

    def schedule(self, now: int) -> Batch | None:
        """Return the prompts that are admitted, or a decode of all that run; None when there is neither."""
        if not self._running or self._decodes >= self._max_waiting_iters:
            admitted = self._admit()
            if admitted:
                self._decodes = 0
                self._running += admitted
                return self._launch(admitted, plain=False)
        if not self._running:
            return None
        self._decodes += 1
        return self._launch(list(self._running), plain=True)

    def next_decision(self, now: int) -> int | None:
        """Return None: only a completion or an arrival changes the decision."""
        return None

    def alike(self, most: int) -> Alike | None:
        """Foresee decodes until the head of the queue is admitted. `left` shrinks, so it may be with nobody done."""
        if not all(flight.plain for flight in self._ledger.flights):
            return None
        if self._waiting and len(self._running) < self._running_max:
            most = self._decodes_before_admission(most)
        return self._ledger.alike_in_turn(most, left_after)

    def repeat(self, times: int) -> list[Batch]:
        """See `Scheduler.repeat`."""
        self._decodes += times
        return self._ledger.repeat(times)

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        """Count the batch's tokens; requests that ended free their memory."""
        emitted, finished = [], []
        for member in self._ledger.land(batch).members:
            member.tokens += 1
            if not member.gone:
                emitted.append(member.request)
                if member.request in ended:
                    finished.append(member.request)
            if member.gone or member.request in ended:
                self._kv.release(member)
        if finished:
            self._running = [member for member in self._running if member.request not in ended]
        return Outcome(emitted, finished)

    def has_unfinished(self) -> bool:
        """Whether any request that was added is not finished."""
        return bool(self._running or self._waiting or self._ledger.flights)

    def rejects(self, request: Request) -> str | None:
        """Return why no iteration takes the prompt of `request`, or None."""
        if request.prompt_tokens <= self._batch_max_tokens:
            return None
        return f"its prompt of {request.prompt_tokens} tokens is above batch_max_tokens ({self._batch_max_tokens})"

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request` is never admitted, or None: its own peak, by `max_tokens`, must be below the memory."""
        alone = self._peak([request.prompt_tokens + 1], [max(0, request.max_tokens - 2)])
        if alone >= self._max_total_tokens:
            return (
                f"it is predicted to hold {alone} tokens at its peak, which is not below the {self._max_total_tokens} "
                "that the KV cache holds"
            )
        return self._kv.unfit(request, tokens)

    def usage(self) -> KVUsage:
        """Return the state now."""
        return KVUsage(self._kv.total, self._kv.free, len(self._running), len(self._waiting))

    def _admit(self) -> list[Tracked]:
        """Take those out of the queue whose prompts are computed now."""
        known = [member.tokens for member in self._running]
        left = [left_after(member) for member in self._running]
        admitted = 0
        new_tokens = 0
        for member in self._waiting:
            known.append(member.tokens + 1)
            left.append(left_after(member, 1))
            new_tokens += member.tokens - member.computed
            if len(known) > self._running_max or new_tokens > self._batch_max_tokens:
                break
            if self._peak(known, left) >= self._max_total_tokens:
                break
            admitted += 1
        taken, self._waiting = self._waiting[:admitted], self._waiting[admitted:]
        return taken

    def _decodes_before_admission(self, most: int) -> int:
        """Return how many decisions, `most` or fewer, come before one that admits the head of the queue."""
        head = self._waiting[0]
        left = np.array([left_after(member) for member in self._running], dtype=np.int64)
        known = np.array([member.tokens for member in self._running], dtype=np.int64)
        most = min(most, int(left.min()))
        for ahead in range(max(1, self._max_waiting_iters - self._decodes + 1), most + 1):
            with_head = [*(known + ahead), head.tokens + 1], [*(left - ahead), left_after(head, 1)]
            if self._peak(*with_head) < self._max_total_tokens:
                return ahead - 1
        return most

    def _peak(self, known: Sequence[int], left: Sequence[int]) -> int:
        """Return the most tokens that requests will hold, their last blocks counted as full."""
        return predicted_peak(known, left, self._kv.block_size - 1)

    def _launch(self, members: list[Tracked], *, plain: bool) -> Batch:
        for member in members:
            if not self._kv.grow(member, member.tokens):
                raise InternalError(f"memory that was predicted for request {member.request.id} is not there")
        batch = Batch.of(
            self._ledger.serial,
            [member.request for member in members],
            [member.tokens - member.computed for member in members],
            [member.computed for member in members],
            [1] * len(members),
            [] if plain else [(member.request, 0) for member in members],
        )
        for member in members:
            member.computed = member.tokens
        return self._ledger.launch(Flight(batch, members, plain))


def left_after(member: Tracked, tokens: int = 0) -> int:
    """Return the tokens that a request may still compute after the next `tokens` of its answer, the last one aside."""
    return max(0, member.request.prompt_tokens + member.request.max_tokens - member.tokens - tokens - 1)


def predicted_peak(known: Sequence[int], left: Sequence[int], spare: int = 0) -> int:
    """Return the most tokens that requests will hold at once, each `spare` more than it knows."""
    lefts = np.array(left, dtype=np.int64)
    longest_first = np.argsort(-lefts, kind="stable")
    knowns = np.array(known, dtype=np.int64)[longest_first] + spare
    held: IntArray = lefts[longest_first] * np.arange(1, len(lefts) + 1) + knowns.cumsum()
    return int(held.max())
