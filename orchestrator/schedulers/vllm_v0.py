"""vLLM's v0 engine (0.4 to 0.6): prompts go first, and a step is prompts only or decodes only.

Every pipeline stage has a virtual engine, which is a scheduler with its share of the KV blocks (`virtual_engine`). A
new request goes to the one with the fewest. Each has one batch in flight at most and waits for its tokens, so batches
of different virtual engines follow each other through the stages::

    virtual engine 0    A0 . . A1 . . A2            stage 0   A0 B0 A1 B1
    virtual engine 1     B0 . . B1 . .              stage 1      A0 B0 A1
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence, Set

from orchestrator.engine.batch import Batch, Outcome
from orchestrator.kv_memory.prefix_chain import PrefixChain, known_tokens
from orchestrator.kv_memory.store import KVStore
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Alike, EngineLoop, KVUsage
from orchestrator.schedulers.ledger import Ledger
from orchestrator.schedulers.orders import Order, fcfs
from orchestrator.schedulers.phased import Phased
from orchestrator.schedulers.virtual_engine import V0Limits, VirtualEngine


class VllmV0Scheduler:
    """See the module's docstring. `stores`: the memory of each virtual engine, all alike.

    Requests wait in `order`.
    """

    loop = EngineLoop.STAGE_FREE

    def __init__(self, stores: Sequence[KVStore], limits: V0Limits, *, order: Order = fcfs) -> None:
        self.places = len(stores)
        self.engines = [VirtualEngine(store, limits, order) for store in stores]
        self._limits = limits
        self._ledger: Ledger[Phased] = Ledger(*stores)
        self._idle = deque(range(len(stores)))
        self._added = 0

    def add(self, admission: Admission, now: int) -> None:
        """Take a request into the waiting queue of the virtual engine with the fewest."""
        member = Phased(admission, self._added)
        self._added += 1
        engine = min(self.engines, key=lambda engine: engine.unfinished)
        if engine.kv.caches_prefixes:
            request = admission.request
            member.chain = PrefixChain(known_tokens(request), engine.kv.block_size, request.adapter)
        engine.add(member)

    def abort(self, request: Request, now: int) -> bool:
        """Forget a request; one in flight keeps its blocks until its batch has finished."""
        for engine in self.engines:
            engine.forget(request)
        self._ledger.forget(request)
        return False

    def schedule(self, now: int) -> Batch | None:
        """Return the next step of a virtual engine that has none in flight, the one that ended first being asked first.

        None when none can run.
        """
        for number in self._idle:
            step = self.engines[number].decide()
            if step is not None:
                self._idle.remove(number)
                return self._ledger.launch(step.flight(self._ledger.serial, number))
        return None

    def next_decision(self, now: int) -> int | None:
        """Return None: only a completion or an arrival changes the decision."""
        return None

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        """Count the batch's tokens; requests that are done free their blocks."""
        flight = self._ledger.land(batch)
        self._idle.append(flight.store)
        return self.engines[flight.store].land(flight, ended)

    def alike(self, most: int) -> Alike | None:
        """Foresee that the decodes in flight come again in turn; none where a virtual engine may decide otherwise."""
        if any(self.engines[number].unfinished for number in self._idle):
            return None
        if not all(self.engines[flight.store].refuses_for_good for flight in self._ledger.flights):
            return None
        spare = self.engines[0].watermark.spare
        return self._ledger.alike_in_turn(most, lambda member: self._limits.longest - member.tokens - 1, spare=spare)

    def repeat(self, times: int) -> list[Batch]:
        """See `Scheduler.repeat`; virtual engines that are idle have no requests."""
        return self._ledger.repeat(times)

    def has_unfinished(self) -> bool:
        """Whether any request that was added is not finished."""
        return bool(self._ledger.flights or any(engine.unfinished for engine in self.engines))

    def rejects(self, request: Request) -> str | None:
        """Return why the front end refuses `request`: no room for an answer below max_model_len."""
        if request.prompt_tokens < self._limits.longest:
            return None
        return f"its prompt of {request.prompt_tokens} tokens is not below max_model_len ({self._limits.longest})"

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request`, grown to `tokens` tokens, can never run in a virtual engine, or None."""
        return self.engines[0].watermark.unfit(request, tokens)

    def usage(self) -> KVUsage:
        """Return the state now; those that are swapped out wait."""
        started = sum(engine.started for engine in self.engines)
        waiting = sum(len(engine.waiting) + len(engine.swapped) for engine in self.engines)
        total, free = (sum(counts) for counts in zip(*((e.kv.total, e.kv.free) for e in self.engines), strict=True))
        return KVUsage(total, free, started, waiting)
