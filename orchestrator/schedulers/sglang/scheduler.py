"""SGLang's scheduler (0.5.5), decision for decision: prompts first, admission by estimate, retraction.

A step computes prompts, or else a token of everybody who decodes (both with `enable_mixed_chunk`). What prompts hold is
in a radix tree, before and after their requests end. Where a step is decided while the one before still runs, who has
finished is known a step late: its last row is computed in vain, and a token that was in flight when its request was
retracted is lost.

With several stages there is a micro-batch for each, decided in turn; a prompt that was cut may go on in another one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence, Set

from foundation.errors import InternalError, UserError
from orchestrator.engine.batch import Batch, Outcome
from orchestrator.kv_memory.holder import Holder
from orchestrator.kv_memory.prefix_chain import known_tokens
from orchestrator.kv_memory.radix import RadixKV
from orchestrator.kv_memory.radix_cohort import RadixCohort, make_room
from orchestrator.kv_memory.radix_foresight import lost
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.cohort import Cohort
from orchestrator.schedulers.interface import Alike, EngineLoop, KVUsage
from orchestrator.schedulers.ledger import Ledger
from orchestrator.schedulers.sglang.config import SglangConfig
from orchestrator.schedulers.sglang.draft import Draft
from orchestrator.schedulers.sglang.entry import Entry
from orchestrator.schedulers.sglang.estimate import NewTokenRatio
from orchestrator.schedulers.sglang.lane import Extend, Lane
from orchestrator.schedulers.sglang.order import WaitingOrder
from orchestrator.schedulers.sglang.prefill import PrefillAdder, Verdict
from orchestrator.schedulers.sglang.retraction import lacking, retract


class SglangScheduler:
    """See the module's docstring; `docs/scheduling.md` lists the rules."""

    def __init__(self, config: SglangConfig, kv: RadixKV) -> None:
        self.config = config
        self.kv = kv
        self.places = 2 if config.runs_ahead else config.stages
        self.loop = EngineLoop.QUEUE if config.runs_ahead else EngineLoop.STAGE_FREE
        self.ratio = NewTokenRatio(config.schedule_conservativeness)
        self.waiting: list[Entry] = []
        self.lanes = [Lane() for _ in range(config.stages)]
        self._order = WaitingOrder(config, kv)
        self._ledger: Ledger[Entry] = Ledger(kv)
        self._flying: deque[tuple[Lane, int]] = deque()
        self._cut: Entry | None = None
        self._entries: dict[int, Entry] = {}
        self._added = 0
        self._turn = 0
        self._landed_ns = 0
        self._opened = False

    # -- the contract of orchestrator.schedulers.interface.Scheduler

    def add(self, admission: Admission, now: int) -> None:
        """Take a request into the waiting queue. After a while of idleness the estimate begins anew."""
        if now > self._landed_ns and not self.has_unfinished() and not self._ledger.flights:
            self.ratio.reset()
        entry = self._track(admission)
        self._entries[admission.request.id] = entry
        self.waiting.append(entry)

    def abort(self, request: Request, now: int) -> bool:
        """Forget a request: no step that is decided from now on has it; its KV cache stays until its batch has ended.

        SGLang computes one more token of it, or the rest of its prompt.
        """
        entry = self._entries.pop(request.id)
        entry.finished = True
        if entry in self.waiting:
            self.waiting.remove(entry)
        if entry is self._cut:
            self._cut = None
        if not any(entry in flight.members for flight in self._ledger.flights):
            self._bury(entry)
        self._ledger.forget(request)
        return False

    def schedule(self, now: int) -> Batch | None:
        """Decide the next step of the micro-batch whose turn it is; one that is in flight is waited for."""
        self._opened = False
        for place in self._turns():
            batch = self._decide(self.lanes[place])
            if batch is not None:
                self._turn = (place + 1) % len(self.lanes)
                return batch
        if not self._ledger.flights:
            self.ratio.reset()  # as SGLang does when it finds nothing to run
        return None

    def next_decision(self, now: int) -> int | None:
        """Return `now` where the last decision, for nothing, was only that everybody has left."""
        return now if self._opened and self.waiting else None

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        """Account for a finished batch: tokens have arrived, prompts enter the tree, who is done gives up its pages."""
        flight = self._ledger.land(batch)
        _, prompts = self._flying.popleft()
        self._landed_ns = now
        emitted, finished = [], []
        columns = (batch.samples.tolist(), (batch.context_tokens + batch.new_tokens).tolist())
        for row, (entry, samples, computed) in enumerate(zip(flight.members, *columns, strict=True)):
            if entry.finished:
                self._bury(entry)
                continue
            if entry.retracted or not samples:
                continue
            entry.tokens += 1
            emitted.append(entry.request)
            if entry.is_last or entry.request in ended:
                self._finish(entry)
                finished.append(entry.request)
            elif row < prompts:
                self.kv.register(entry, computed)
        return Outcome(emitted, finished)

    def alike(self, most: int) -> Alike | None:
        """Foresee further decodes of the batches in flight, if nobody can be let in meanwhile."""
        flights = self._ledger.flights
        if self._cut is not None or not flights or not all(flight.plain for flight in flights):
            return None
        if self.waiting and not all(lane.full for lane in self.lanes):
            return None
        if not self._steady():
            return None
        if not self.config.runs_ahead:
            return self._ledger.alike_in_turn(most, Entry.steps_left)
        members = flights[-1].members
        steps = min(most, *map(Entry.steps_left, members))
        return self._ledger.alike([Cohort(members, self.kv.cohort(members))], steps)

    def repeat(self, times: int) -> Sequence[Batch]:
        """See `Scheduler.repeat`."""
        self.ratio.decay(times)
        batches = self._ledger.repeat(times)
        self._flying.rotate(-times)
        self._turn = (self.lanes.index(self._flying[-1][0]) + 1) % len(self.lanes)
        return batches

    def has_unfinished(self) -> bool:
        """Whether a request is not finished, or has yet to leave its micro-batch."""
        return bool(self._entries) or any(lane.running for lane in self.lanes)

    def rejects(self, request: Request) -> str | None:
        """Return why SGLang's front end refuses `request`: its prompt, or all that it asks for, is too long."""
        config = self.config
        if request.prompt_tokens > config.longest_prompt:
            limit = f"the {config.context_length} tokens of a sequence and {config.capacity} of KV cache allow"
            return f"its prompt has {request.prompt_tokens} tokens, {limit} {config.longest_prompt}"
        asked = request.prompt_tokens + request.max_tokens
        if asked >= config.context_length:
            return f"it asks for {asked} tokens, prompt included, a sequence has less than {config.context_length}"
        return None

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request`, grown to `tokens` tokens, gets no whole answer here: SGLang would cut it, or None."""
        config = self.config
        if config.capacity < config.context_length and tokens > config.longest - 2:
            most = config.longest - 2
            return f"it grows to {tokens} tokens, a KV cache of {config.capacity} lets a sequence have {most}"
        return None

    def usage(self) -> KVUsage:
        """Return the state now."""
        return KVUsage(self.kv.total, self.kv.free, len(self._entries) - len(self.waiting), len(self.waiting))

    def cached_tokens(self, request: Request, ahead: int) -> int:
        """See `orchestrator.schedulers.interface.FindsPrefixes`."""
        if not self.kv.caches_prefixes or request.prompt_token_ids is None:
            return 0
        steps = []
        for lane, further in self._ledger.foreseen(ahead):
            assert isinstance(lane.kv, RadixCohort)  # as this memory's are
            steps.append(lane.kv.takes_at(further))
        return self.kv.peek(Holder(request, 0), request.prompt_tokens - 1, lost(self.kv, steps))

    # -- one decision

    def _turns(self) -> Iterator[int]:
        """Return the micro-batches that may be decided now: from the one whose turn it is until one is in flight."""
        if self.config.runs_ahead:
            yield 0
            return
        flying = [lane for lane, _ in self._flying]
        for place in range(self._turn, self._turn + len(self.lanes)):
            lane = self.lanes[place % len(self.lanes)]
            if any(lane is other for other in flying):
                return
            yield place % len(self.lanes)

    def _decide(self, lane: Lane) -> Batch | None:
        """Decide a step of a micro-batch: prompts if there are any, else decodes."""
        if self._cut is not None:
            self.kv.register(self._cut, self._cut.computed)
        lane.merge(self._cut)
        if not (self._ledger.flights or any(other.running or other.last for other in self.lanes)):
            lane.full = False  # nobody is left whose leaving could change it
        draft = Draft()
        self._let_in(lane, draft)
        if draft.prompts:
            if self.config.enable_mixed_chunk:
                self._mix(lane, draft)
            lane.last = Extend(draft.entries, self._cut)
        else:
            self._decode(lane, draft)
        if not (draft.entries or draft.preempted):
            return None
        self._flying.append((lane, draft.prompts))
        return self._ledger.launch(draft.flight(self._ledger.serial))

    def _let_in(self, lane: Lane, draft: Draft) -> None:
        """Begin and go on with prompts as far as there is room."""
        if self._cut is None and (lane.full or not self.waiting):
            return
        if self._cut is None and len(lane.running) >= self.config.seats:
            lane.full = True
            return
        self._order.sort(self.waiting)
        mixed = len(lane.running) if self.config.enable_mixed_chunk else 0
        adder = PrefillAdder(self.config, self.kv, lane.running, self.ratio.value, mixed)
        if self._cut is not None:
            adder.go_on(self._cut)
        self._look_through(lane, adder)
        self._cut = adder.cut
        self._take(lane, adder, draft)

    def _look_through(self, lane: Lane, adder: PrefillAdder) -> None:
        """Let waiting requests in, from the first on, until one is not."""
        looked = 0
        for entry in self.waiting:
            if len(adder.rows) + len(adder.joined) >= self.config.seats - len(lane.running):
                lane.full = True
            if lane.full:
                break
            verdict = adder.look_at(entry)
            looked += 1
            if verdict is not Verdict.GO_ON:
                lane.full |= verdict is Verdict.NO_MEMORY
                break
        inside = {*adder.joined, *(row.entry for row in adder.rows)}
        self.waiting = [*(one for one in self.waiting[:looked] if one not in inside), *self.waiting[looked:]]

    def _take(self, lane: Lane, adder: PrefillAdder, draft: Draft) -> None:
        """Give those that are let in their pages, and their rows."""
        page = self.kv.block_size
        wanted = sum(row.tokens for row in adder.rows)
        self.kv.make_available(wanted if page == 1 else wanted + len(adder.rows) * page)
        for row in adder.rows:
            if row.begins:
                self._admitted(row.entry, draft)
            draft.extend(row.entry, row.tokens, whole=row.whole)
            self._give_room(row.entry, row.entry.computed + row.tokens)
        for entry in adder.joined:
            self._admitted(entry, draft)
            self._give_room(entry, entry.computed)
        if adder.joined:
            lane.running = [*lane.running, *adder.joined]

    def _admitted(self, entry: Entry, draft: Draft) -> None:
        """Note that a request has left the waiting queue, and how much of its prompt was found."""
        draft.admitted.append((entry.request, entry.shared))
        entry.landed = 0
        entry.retracted = False

    def _give_room(self, entry: Entry, tokens: int) -> None:
        if not self.kv.grow(entry, tokens):
            raise InternalError(f"request {entry.request.id} was let in without room for its prompt")
        entry.computed = tokens

    def _mix(self, lane: Lane, draft: Draft) -> None:
        """Let those that decode share a step with prompts. Where they find no pages, they wait for a step of their own.

        (There SGLang stops: it has not counted whole pages.)
        """
        lane.drop_finished()
        page = self.kv.block_size
        wanted = lacking(lane.running) * page
        self.kv.make_available(len(lane.running) * page)
        if wanted <= self.kv.available:
            self.kv.take(wanted)
            self._compute(lane.running, draft)
            lane.running = []

    def _decode(self, lane: Lane, draft: Draft) -> None:
        """Let everybody decode; where pages are short, some lose their place."""
        before = len(lane.running)
        if not before:
            return
        lane.drop_finished()
        if not lane.running:
            self._opened |= lane.full
            lane.full = False
            return
        if make_room(self.kv, lacking(lane.running), len(lane.running)):
            self.ratio.decay()
        else:
            self._retract(lane, draft)
        if len(lane.running) < before:
            lane.full = False
        self._compute(lane.running, draft)

    def _retract(self, lane: Lane, draft: Draft) -> None:
        """Send some back to the waiting queue, at its end, and let the others have their pages."""
        lane.running, gone = retract(self.kv, lane.running)
        for entry in gone:
            self._lose(entry)
        self.waiting += gone
        draft.preempted += [entry.request for entry in gone]
        self.ratio.estimate(lane.running)
        if not make_room(self.kv, lacking(lane.running), len(lane.running)):
            raise InternalError("requests go on after a retraction without pages to do so")

    def _lose(self, entry: Entry) -> None:
        """Let the token that is in flight for a request be thrown away."""
        for flight in self._ledger.flights:
            if entry in flight.members:
                brings = flight.batch.tokens().copy()
                brings[flight.members.index(entry)] = 0
                flight.batch.brings = brings
                flight.plain = False

    def _compute(self, running: list[Entry], draft: Draft) -> None:
        """Give each of those that decode a row; there is room for their tokens."""
        draft.decode(running)
        page = self.kv.block_size
        for entry in running:
            if entry.computed == entry.room:
                entry.room += page
            entry.computed += 1

    # -- coming and going

    def _steady(self) -> bool:
        """Whether everybody that decodes is in flight, and nobody else is in a micro-batch."""
        flights = self._ledger.flights
        if any(lane.last is not None for lane in self.lanes):
            return False
        if self.config.runs_ahead:
            return all(flight.members is self.lanes[0].running for flight in flights)
        flying = [lane for lane, _ in self._flying]
        at_work = all(lane.running is flight.members for lane, flight in zip(flying, flights, strict=True))
        return at_work and sum(bool(lane.running) for lane in self.lanes) == len(flying)

    def _finish(self, entry: Entry) -> None:
        """Let a request go whose answer is complete; its next row may be in flight."""
        entry.finished = True
        self.kv.release(entry)
        del self._entries[entry.request.id]
        for flight in self._ledger.flights:
            if entry in flight.members:
                flight.plain = False

    def _bury(self, entry: Entry) -> None:
        """Take the KV cache of a request whose client has gone, if it still has any."""
        if entry.leaf is None:
            return
        self.kv.release(entry)
        for lane in self.lanes:
            lane.full = False

    def _track(self, admission: Admission) -> Entry:
        """Return the counters of a new request; lengths that cannot be are an error."""
        request = admission.request
        if request.prompt_tokens < 1 or request.max_tokens < 1:
            raise UserError(
                f"request {request.name or request.id} has {request.prompt_tokens} prompt and "
                f"{request.max_tokens} output tokens",
                line=request.source_line,
                fix="both must be at least 1",
            )
        if request.prompt_tokens > self.config.longest_prompt:
            raise InternalError(f"request {request.id} should have been rejected: {self.rejects(request)}")
        known_tokens(request)  # says what is wrong with its token ids
        self._added += 1
        return Entry(admission, self._added, self.config.longest)
