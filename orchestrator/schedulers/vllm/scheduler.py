"""vLLM's v1 scheduler, decision for decision: synchronous or running ahead of the tokens, on one stage or several.

There is no prefill or decode phase. Every request has tokens that are known and tokens that are computed, and each
step computes more of them: first for the running requests in the order of their admission, then for waiting ones,
while tokens of the step's budget are left. When a running request finds no KV block, others lose theirs and are
computed anew later (preemption by recomputation). Where decisions do not wait for tokens (asynchronous scheduling) a
placeholder stands for each that is in flight.

Where tokens are guessed ahead (`speculation`), a request's last token and its drafts are computed at once. All count as
computed until their batch has finished, and then those that were wrong count no more.

While nothing but decodes happens, those who decode are a cohort (`decoding`), and a step costs next to nothing.

With a connector (`connector`), KV cache that was computed elsewhere may be had instead of computing it: a request waits
in its blocks until it has come (`remote`).
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from foundation.errors import UserError
from orchestrator.engine.batch import Batch, Outcome
from orchestrator.kv_memory.groups import FULL, LayerGroup
from orchestrator.kv_memory.holder import Holder
from orchestrator.kv_memory.prefix_chain import chain_of
from orchestrator.kv_memory.store import Hit
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.cohort import Cohort
from orchestrator.schedulers.interface import Alike, EngineLoop, KVUsage
from orchestrator.schedulers.ledger import Flight, Ledger
from orchestrator.schedulers.speculation import Acceptance
from orchestrator.schedulers.vllm.asking import Asking
from orchestrator.schedulers.vllm.config import VllmSchedulerConfig
from orchestrator.schedulers.vllm.connector import KVConnector, Match
from orchestrator.schedulers.vllm.decoding import Decoding
from orchestrator.schedulers.vllm.draft import Draft, Refusal
from orchestrator.schedulers.vllm.entry import Entry, Status, new_entry
from orchestrator.schedulers.vllm.guesses import Guesses
from orchestrator.schedulers.vllm.memory import vllm_memory
from orchestrator.schedulers.vllm.queues import waiting_queue
from orchestrator.schedulers.vllm.remote import RemoteKV
from trace_gen.batch_shape import KVTransfer


class VllmScheduler:
    """See the module's docstring; the rules are those of `config.version`, and `docs/vllm_scheduler.md` lists them.

    `acceptance` says what becomes of drafts, where the configuration speculates; `connector` what KV cache there is
    elsewhere.
    """

    def __init__(
        self,
        config: VllmSchedulerConfig,
        groups: Sequence[LayerGroup] = (FULL,),
        acceptance: Acceptance | None = None,
        connector: KVConnector | None = None,
    ) -> None:
        self.config = config
        if connector is not None and not config.rules.connects:
            what = f"KV cache that comes from elsewhere is not modelled for {config.version}"
            raise UserError(what, field="version", fix="use 0.19")
        speculation = config.speculation
        self._guesses = None if speculation is None else Guesses(speculation, acceptance, config.max_model_len)
        self.rules = config.rules
        self.places = config.places
        self.loop = EngineLoop.FILLED_QUEUE if config.fills_the_queue else EngineLoop.QUEUE
        self.kv = vllm_memory(config, groups)
        self.ledger: Ledger[Entry] = Ledger(self.kv)
        self.remote = None if connector is None else RemoteKV(connector, self.kv)
        self._asking = Asking(config, self.kv, self._guesses, self.remote)
        self.waiting = waiting_queue(config.policy)
        self.running: list[Entry] = []
        self.decoding = Decoding(
            self.ledger, ahead=config.decides_ahead, in_turn=config.takes_turns or speculation is not None
        )
        self._entries: dict[int, Entry] = {}
        self._added = 0
        self._decisions = 0
        self._untold = False
        self._refusal, self._refused_finds = Refusal.NOBODY, False

    # -- the contract of orchestrator.schedulers.interface.Scheduler

    def add(self, admission: Admission, now: int) -> None:
        """Take a request into the waiting queue."""
        self._added += 1
        finds = self.kv.caches_prefixes or (self.remote is not None and self.remote.connector.writes)
        entry = new_entry(admission, self._added, self.config, finds=finds)
        self._entries[admission.request.id] = entry
        self.waiting.add(entry)

    def abort(self, request: Request, now: int) -> bool:
        """Forget a request at once: its KV blocks are free, and what is in flight for it is thrown away."""
        self.decoding.dissolve()
        self._finish(self._entries[request.id], aborted=True)
        self.ledger.forget(request)
        return False

    def landed(self, request: Request) -> None:
        """KV cache that `request` fetched is in its blocks; the next pass looks, and it goes on after that."""
        assert self.remote is not None  # nothing is fetched without a connector
        self.remote.landed(request)

    def sent(self, request: Request) -> None:
        """The blocks that a connector kept of `request` are read; the next pass looks, and they are free after that."""
        assert self.remote is not None
        self.remote.sent(request)

    def settle(self) -> None:
        """Nothing more will be decided: take note of what no pass has looked up."""
        if self.remote is not None:
            self.remote.settle()

    def schedule(self, now: int) -> Batch | None:
        """Decide one step as one pass of vLLM's scheduler does; it may preempt and compute nothing.

        None: it neither computes nor preempts anything, and the pass leaves no trace.
        """
        self._decisions += 1
        self._untold = False
        self._refusal = Refusal.NOBODY
        cohort = self.decoding.step(self.running)
        fetches: Sequence[KVTransfer] = ()
        if cohort is None or len(self.waiting):
            draft = self._draft(cohort)
            self._refusal, self._refused_finds = draft.refusal, draft.refused_finds
            cohort, fetches = draft.cohort, draft.fetches
            if cohort is None:
                return self._launch(draft, now)
        flight = self.decoding.flight(cohort)
        flight.batch.fetches = tuple(fetches)
        return self._launched(flight, now)

    def next_decision(self, now: int) -> int | None:
        """Return None: decisions change with arrivals and batches that finish; `now` where some wait their turn."""
        waits = any(entry.next_decode > self._decisions and entry.wanted() > 0 for entry in self.running)
        return now if waits else None

    def update(self, batch: Batch, ended: Set[Request], now: int) -> Outcome:
        """Account for a finished batch: its tokens have arrived; requests that are done release their KV blocks."""
        flight = self.ledger.land(batch)
        if self.remote is None:
            return self._account(flight, ended)
        self.remote.computed(flight)
        outcome = self._account(flight, ended)
        self.remote.ended(batch.serial, now)
        return outcome

    def _account(self, flight: Flight[Entry], ended: Set[Request]) -> Outcome:
        batch = flight.batch
        together = self.decoding.arrive(flight, ended)
        if together and not flight.others:
            return Outcome(batch.requests)
        if not together:
            self.decoding.dissolve()
        alone = frozenset(flight.others) if together else range(len(flight.members))
        emitted: list[Request] = []
        tokens: list[int] = []
        finished: list[Entry] = []
        columns = (batch.new_tokens.tolist(), batch.samples.tolist(), batch.tokens().tolist())
        for row, (entry, new, samples, brings) in enumerate(zip(flight.members, *columns, strict=True)):
            got = 1
            if row in alone:
                got = self._arrive(entry, new, samples, brings, ended=entry.request in ended)
            if got:
                emitted.append(entry.request)
                tokens.append(got)
                if row in alone and (entry.is_last or entry.request in ended):
                    finished.append(entry)
        for entry in finished:
            self._finish(entry)
        if self._guesses is None:
            return Outcome(emitted, [entry.request for entry in finished])
        if not self.config.decides_ahead:
            self._guesses.take(flight)
        return Outcome(emitted, [entry.request for entry in finished], tokens)

    def alike(self, most: int) -> Alike | None:
        """Foresee further decodes of the batches in flight, if everybody that runs is in one of them."""
        flights = self.ledger.flights
        if self._guesses is not None or not flights or not flights[-1].plain or not self._stays_refused():
            return None
        return self.decoding.alike(most, len(self.running))

    def repeat(self, times: int) -> list[Batch]:
        """See `Scheduler.repeat`."""
        self._decisions += times
        return self.ledger.repeat(times)

    def has_unfinished(self) -> bool:
        """Whether any request that was added is not finished, or the workers have not been told of one that is."""
        return bool(self.running or len(self.waiting) or self._untold)

    def rejects(self, request: Request) -> str | None:
        """Return why vLLM's front end refuses `request`: no room for an answer below max_model_len."""
        limit = self.config.max_model_len
        if request.prompt_tokens < limit:
            return None
        return f"its prompt of {request.prompt_tokens} tokens is not below max_model_len ({limit})"

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request`, grown to `tokens` tokens, can never run: a KV cache need above what there is."""
        stored = min(tokens, self.config.max_model_len - 1)
        blocks = self.kv.peak_blocks(request, stored)
        if blocks > self.kv.total:
            return f"it needs {blocks} KV blocks of {self.config.block_size} tokens, the cache holds {self.kv.total}"
        return None

    def usage(self) -> KVUsage:
        """Return the state now."""
        return KVUsage(self.kv.total, self.kv.free, len(self.running), len(self.waiting))

    def cached_tokens(self, request: Request, ahead: int) -> int:
        """See `orchestrator.schedulers.interface.FindsPrefixes`."""
        if not self.kv.caches_prefixes or request.prompt_token_ids is None:
            return 0
        asking = Holder(request, 0)
        asking.chain = chain_of(request, self.config.block_size)
        return self.kv.cached_tokens(asking, request.prompt_tokens, self.ledger.later(ahead))

    # -- one decision

    def _draft(self, cohort: Cohort[Entry] | None) -> Draft:
        """Write down a decision whose first rows are those of `cohort`, or else of whoever runs."""
        draft = Draft(self.config.step_tokens)
        threshold = self._threshold()
        if cohort is None:
            self._schedule_running(draft, threshold)
        else:
            draft.start_with(cohort)
        if not draft.preempted:
            self._admit(draft, threshold)
        return draft

    def _launch(self, draft: Draft, now: int) -> Batch | None:
        """Book a decision that is more than a cohort's, if anything is decided or there is word of KV cache."""
        news = self.remote is not None and self.remote.has_news
        if not (draft.entries or draft.preempted or draft.fetches or news):
            return None
        self.decoding.look(self.running)
        if self.config.staggers:
            self._stagger(draft)
        batch = draft.batch(self.ledger.serial)
        if self._guesses is not None:
            self._guesses.verify(draft, batch)
        return self._launched(Flight(batch, draft.entries, draft.plain), now)

    def _launched(self, flight: Flight[Entry], now: int) -> Batch:
        return self.ledger.launch(flight if self.remote is None else self.remote.launch(flight, now))

    def _schedule_running(self, draft: Draft, threshold: int) -> None:
        """Give running requests tokens in their order, preempting when KV blocks run out."""
        index = 0
        while index < len(self.running) and draft.budget > 0:
            entry = self.running[index]
            tokens = entry.wanted() if self._decisions >= entry.next_decode else 0
            if tokens <= 0:
                index += 1
                continue
            if 0 < threshold < tokens:
                tokens = threshold
            tokens = min(tokens, draft.budget)
            slots = entry.computed + tokens if self._guesses is None else self._guesses.slots(entry.computed + tokens)
            while not self.kv.grow(entry, slots):
                index -= self._preempt_one(draft, index)
                if entry.status is not Status.RUNNING:
                    break
            if entry.status is Status.RUNNING:
                self._compute(draft, entry, tokens)
                index += 1
            elif self.config.policy == "fcfs" or not self.rules.goes_on_after_self_preemption:
                return

    def _preempt_one(self, draft: Draft, index: int) -> int:
        """Preempt one running request while the one at `index` waits for blocks; return how far `index` moves."""
        place = self.waiting.victim(self.running)
        victim = self.running.pop(place)
        dropped = draft.drop(victim)
        self._preempt(victim)
        draft.preempted.append(victim.request)
        return int(place < index if self.rules.follows_every_victim else dropped)

    def _admit(self, draft: Draft, threshold: int) -> None:
        """Admit waiting requests from the head until the first that finds no seat, tokens or KV blocks.

        Those that cannot be admitted whatever there is are passed over.
        """
        passed: list[Entry] = []
        adapters = self._asking.adapters(draft, self.running)
        while len(self.waiting):
            head = self.waiting.head()
            draft.refused_finds = self._asking.may_find_otherwise(head)
            if draft.budget <= 0 or len(self.running) >= self.config.max_num_seqs:
                draft.refusal = Refusal.TOKENS if draft.budget <= 0 else Refusal.SEATS
                break
            if self._asking.is_held_up(head, adapters):
                passed.append(self.waiting.pop())
                continue
            match = self._asking.match(head)
            if match is None:
                passed.append(self.waiting.pop())
                continue
            refusal = self._admit_head(draft, threshold, *match)
            if refusal is not None:
                draft.refusal = refusal
                break
            if head.status is Status.FETCHING:
                passed.append(head)
            else:
                adapters.add(head.request.adapter)
        for entry in reversed(passed):
            (self.waiting.set_aside if self.rules.keeps_skipped_apart else self.waiting.put_back)(entry)
            if entry.status is not Status.FETCHING:
                draft.refusal = Refusal.STALE

    def _admit_head(self, draft: Draft, threshold: int, hit: Hit, match: Match) -> Refusal | None:
        """Admit the head of the waiting queue, or let it fetch KV cache, or return why not."""
        config, entry = self.config, self.waiting.head()
        there = entry.computed or hit.tokens + match.tokens
        tokens = 0 if match.asynchronous else entry.tokens - there
        if 0 < threshold < tokens:
            tokens = threshold
        if tokens > draft.budget:
            if not config.enable_chunked_prefill:
                return Refusal.TOKENS
            tokens = draft.budget
        if config.scheduler_reserve_full_isl and not self._asking.fits(entry, hit):
            return Refusal.BLOCKS
        if not self._asking.take_room(entry, hit, there + tokens):
            return Refusal.CHUNK
        if self.remote is not None:
            self.remote.took(draft, entry, there - match.tokens, match.tokens, asynchronous=match.asynchronous)
        self.waiting.pop()
        if match.asynchronous:
            return None
        self.decoding.open(draft)
        self.running.append(entry)
        draft.admitted.append((entry.request, there))
        entry.status = Status.RUNNING
        entry.computed = there
        self._compute(draft, entry, tokens)
        return None

    def _compute(self, draft: Draft, entry: Entry, tokens: int) -> None:
        """Add a row and count its tokens; blocks it fills can be found from now on, even in this step."""
        after = entry.computed + tokens
        self.kv.register(entry, min(after, entry.tokens))
        guessed = after - entry.tokens - entry.placeholders
        samples = 0 if guessed < 0 else 1 + min(guessed, entry.drafts)
        draft.append(entry, tokens, samples)
        entry.computed = after
        entry.in_flight += tokens
        entry.drafts = 0
        if self.config.decides_ahead and samples:
            entry.placeholders += samples
            entry.drafts = self.config.num_speculative_tokens

    def _stagger(self, draft: Draft) -> None:
        """Let those who sample now wait for as many decisions as there are stages."""
        for entry, samples in zip(draft.entries, draft.samples, strict=True):
            if samples:
                entry.next_decode = self._decisions + self.config.pipeline_stages

    def _threshold(self) -> int:
        """The most tokens of one prompt in this step, 0 for no limit."""
        alone = not self.rules.limits_a_lone_prompt and len(self.running) + len(self.waiting) <= 1
        return 0 if alone else self.config.long_prefill_token_threshold

    # -- coming and going

    def _preempt(self, entry: Entry) -> None:
        """Send `entry` back to the waiting queue without KV blocks; it keeps its output and any token in flight."""
        self.kv.release(entry, resumes=True)
        entry.computed = entry.wrong = 0
        entry.status = Status.PREEMPTED
        entry.preemptions += 1
        if self.rules.awaits_stale_tokens:
            entry.stale, entry.placeholders = entry.in_flight, 0
        self.waiting.put_back(entry)

    def _arrive(self, entry: Entry, new: int, samples: int, brings: int, *, ended: bool) -> int:
        """Count `entry`'s part of a batch that has finished, `brings` tokens; return how many its answer got."""
        entry.in_flight -= new
        stale = entry.stale > 0
        if stale:
            entry.stale -= new
        if entry.status is Status.FINISHED or not samples:
            return 0
        if self._guesses is not None:
            self._guesses.roll_back(entry, samples - brings, brings)
            brings = entry.room_for(brings, ended=ended)
        entry.tokens += brings
        if entry.placeholders and not stale:
            entry.placeholders -= brings
            if entry.status is Status.RUNNING:
                self.kv.register(entry, entry.computed - self._outstanding(entry))
        return brings

    def _outstanding(self, entry: Entry) -> int:
        """Return how many of the computed tokens may still change in number."""
        return entry.in_flight if self.rules.awaits_stale_tokens else entry.placeholders

    def _finish(self, entry: Entry, *, aborted: bool = False) -> None:
        if self.remote is None or not self.remote.keeps(entry, aborted=aborted):
            self.kv.release(entry)
        if entry.status is Status.RUNNING:
            self.running.remove(entry)
        else:
            self.waiting.remove(entry)
        entry.status = Status.FINISHED
        self._untold = True
        del self._entries[entry.request.id]

    def _stays_refused(self) -> bool:
        """Whether whom the last decision refused is refused by every further decode.

        Seats stay taken and KV blocks only get fewer, but for windows; what a prefix finds may change at any step.
        """
        if not len(self.waiting) or self._refusal in (Refusal.NOBODY, Refusal.SEATS):
            return True
        if self._refusal is Refusal.STALE or self._refused_finds:
            return False
        if self._refusal is Refusal.BLOCKS:
            return not self.kv.windowed
        if not self.decoding.together:
            return False  # what other decodes leave of the step's tokens may be enough
        return self._refusal is Refusal.TOKENS or not self.kv.windowed
