"""vLLM's v1 scheduler, decision for decision: synchronous, or one step ahead (asynchronous scheduling).

There is no prefill or decode phase. Every request has tokens that are known and tokens that are computed, and each
step computes more of them: first for the running requests in the order of their admission, then for waiting ones,
while tokens of the step's budget are left. When a running request finds no KV block, others lose theirs and are
computed anew later (preemption by recomputation).

Tokens are counted when their step is *decided*; a request's last step is known from then on, and `update` has only
to release those that finish. Where a rule needs the tokens that have arrived (after a preemption, or for prefix
caching) those still in flight are subtracted. `steps` holds the arithmetic of many like decode steps at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from foundation.errors import InternalError, UserError
from orchestrator.batch import Batch, BatchOutcome
from orchestrator.kv_memory.prefix_chain import PrefixChain, known_tokens
from orchestrator.request import Request
from orchestrator.schedulers.interface import KVUsage
from orchestrator.schedulers.vllm.config import VllmSchedulerConfig
from orchestrator.schedulers.vllm.kv_cache import KVCache, kv_cache
from orchestrator.schedulers.vllm.plan import Decodes, Draft, Plan
from orchestrator.schedulers.vllm.queues import waiting_queue
from orchestrator.schedulers.vllm.steps import further_steps, take_further_steps
from orchestrator.schedulers.vllm.tracked import Status, Tracked


class VllmScheduler:
    """See the module's docstring; the rules are those of `config.version`, and `docs/vllm_scheduler.md` lists them."""

    def __init__(self, config: VllmSchedulerConfig) -> None:
        self.config = config
        self.decides_ahead = config.decides_ahead
        self.max_in_flight = 2 if config.decides_ahead else config.pipeline_stages
        self.kv: KVCache = kv_cache(config)
        self.waiting = waiting_queue(config.policy)
        self.running: list[Tracked] = []
        self.in_flight: deque[Plan] = deque()
        self.preemptions = 0
        self._serial = 0
        self._added = 0
        self._all_decode = True
        self._unreported: list[Request] = []
        self._decodes: Decodes | None = None

    # -- the contract of orchestrator.schedulers.interface.Scheduler

    def add(self, request: Request, now: int) -> None:
        """Take a request into the waiting queue."""
        self.waiting.add(self.track(request))

    def schedule(self, now: int) -> Batch | None:
        """Decide the next step that computes something; None when no request can run now.

        A step may preempt requests and compute nothing. vLLM decides again at once if nothing is in flight, else
        when the next batch has finished; the requests that lost their place are reported with the next batch.
        """
        while (batch := self.decide()) is not None:
            self._unreported += batch.preempted
            if batch.requests:
                batch.preempted = self._unreported
                self._unreported = []
                return batch
            self.in_flight.pop()
            self._serial -= 1
            if self.in_flight:
                return None
        return None

    def next_decision(self, now: int) -> int | None:
        """Return None: decisions change only when a request arrives or a batch finishes."""
        return None

    def steady(self, batch: Batch) -> int:
        """Return how many further steps compute one token of each of `batch`'s requests, with nothing else."""
        if not self.in_flight or self.in_flight[-1].batch is not batch:
            raise InternalError("steady() is asked of a batch that is not the last one scheduled")
        plan = self.in_flight[-1]
        if plan.decodes is None or any(other.last for other in self.in_flight):
            return 0
        if len(self.waiting) and not self._stays_blocked(plan):
            return 0
        return further_steps(plan.items, self.kv)

    def update(self, batch: Batch, now: int) -> BatchOutcome:
        """Account for a finished batch: its tokens have arrived; requests that are done release their KV blocks."""
        self._settle()
        if not self.in_flight or self.in_flight[0].batch is not batch:
            raise InternalError("batches must be updated in the order in which they were scheduled")
        plan = self.in_flight.popleft()
        if self.decides_ahead and self.kv.caches_prefixes:
            self._register_arrived(plan)
        emitted, finished = self._arrive(plan)
        for item in finished:
            self._finish(item)
            self._decodes = None
        return BatchOutcome(emitted, [item.request for item in finished])

    def has_unfinished(self) -> bool:
        """Whether any request that was added is not finished."""
        return bool(self.running or self.in_flight or len(self.waiting))

    def unfit(self, request: Request) -> str | None:
        """Return why `request` can never run: a prompt or a KV cache need above what there is."""
        config = self.config
        if request.prompt_tokens >= config.max_model_len:
            return f"its prompt of {request.prompt_tokens} tokens is not below max_model_len ({config.max_model_len})"
        stored = min(request.prompt_tokens + request.output_tokens, config.max_model_len) - 1
        blocks = -(-stored // config.block_size)
        if blocks > config.usable_blocks:
            return f"it needs {blocks} KV blocks of {config.block_size} tokens, the cache holds {config.usable_blocks}"
        return None

    def usage(self) -> KVUsage:
        """Return the KV memory's state now."""
        self._settle()
        return KVUsage(self.config.usable_blocks, self.kv.free, len(self.running), len(self.waiting))

    # -- one decision

    def decide(self) -> Batch | None:
        """Decide one step as one pass of vLLM's scheduler does; it may preempt and compute nothing.

        None: it neither computes nor preempts anything, and the pass leaves no trace.
        """
        self._settle()
        draft = Draft(self.config.max_num_batched_tokens)
        threshold = self._threshold()
        if not (self._all_decode and self._decode_all(draft)):
            self._schedule_running(draft, threshold)
        if len(self.waiting) and not draft.preempted:
            self._admit(draft, threshold)
        if not draft.items and not draft.preempted:
            return None
        batch = Batch(
            self._serial,
            draft.requests,
            draft.new,
            draft.context,
            draft.samples,
            draft.admitted,
            draft.preempted,
        )
        self._serial += 1
        self.in_flight.append(Plan(batch, draft.items, draft.last, draft.decodes, draft.budget))
        return batch

    def _decode_all(self, draft: Draft) -> bool:
        """Schedule one token of every running request at once, if each wants one and there are blocks for all.

        The budget holds at least `max_num_seqs` tokens, so nobody goes short; blocks are taken in running order.
        Both are what `_schedule_running` would do. False: nothing has been done.
        """
        decodes = self._decodes
        if decodes is None or decodes.steps_left == 0:
            # Those whose last step is in flight want nothing.
            decodes = Decodes([item for item in self.running if item.computed != item.limit])
        items = decodes.items
        needy = [item for item in items if item.computed == item.room]
        if len(needy) > self.kv.free:
            return False
        for item in needy:
            self.kv.grow(item, item.computed + 1)
        context = [item.computed for item in items]
        for item, computed in zip(items, context, strict=True):
            item.computed = computed + 1
        draft.take_decodes(decodes, context)
        self._decodes = decodes
        decodes.steps_left -= 1
        if decodes.steps_left == 0:
            draft.last = [item for item in items if item.computed == item.limit]
        if self.kv.caches_prefixes:
            for item in [item for item in items if item.computed >= item.next_full]:
                self.kv.register(item, item.computed - self._tokens_in_flight(item))
        return True

    def _schedule_running(self, draft: Draft, threshold: int) -> None:
        """Give running requests tokens in their order, preempting when KV blocks run out."""
        self._decodes = None
        index = 0
        while index < len(self.running) and draft.budget > 0:
            item = self.running[index]
            tokens = self._wanted(item)
            if tokens <= 0:
                index += 1
                continue
            if 0 < threshold < tokens:
                tokens = threshold
            tokens = min(tokens, draft.budget)
            while item.computed + tokens > item.room and self.kv.grow(item, item.computed + tokens) is None:
                index -= self._preempt_one(draft, index)
                if item.status is not Status.RUNNING:
                    break
            if item.status is Status.RUNNING:
                self._compute(draft, item, tokens)
                index += 1
            elif self.config.version == "0.19" or self.config.policy == "fcfs":
                break
        self._all_decode = all(item.goal - item.computed <= 1 for item in self.running)

    def _preempt_one(self, draft: Draft, index: int) -> int:
        """Preempt one running request while the one at `index` waits for blocks; return how far `index` moves.

        0.19 moves it only for a victim that had been given tokens in this step, so that after another earlier
        victim one request is passed over; 0.33 moves it for every earlier victim.
        """
        place = self.waiting.victim(self.running)
        victim = self.running.pop(place)
        dropped = draft.drop(victim)
        self._preempt(victim)
        draft.preempted.append(victim.request)
        return int(dropped if self.config.version == "0.19" else place < index)

    def _admit(self, draft: Draft, threshold: int) -> None:
        """Admit waiting requests from the head until the first that finds no seat, tokens or KV blocks."""
        config = self.config
        while len(self.waiting) and draft.budget > 0 and len(self.running) < config.max_num_seqs:
            item = self.waiting.head()
            goal = self._known(item)
            hit = self.kv.lookup(item, goal)
            tokens = goal - hit.tokens
            if 0 < threshold < tokens:
                tokens = threshold
            if tokens > draft.budget:
                if not config.enable_chunked_prefill:
                    return
                tokens = draft.budget
            if config.scheduler_reserve_full_isl and not self.kv.fits(hit, goal):
                return
            if self.kv.admit(item, hit, hit.tokens + tokens) is None:
                return
            self._enter(draft, self.waiting.pop(), goal, hit.tokens)
            self._compute(draft, item, tokens)
            self._all_decode = self._all_decode and item.computed >= goal - 1

    def _enter(self, draft: Draft, item: Tracked, goal: int, hit_tokens: int) -> None:
        draft.unshare()
        self._decodes = None
        item.status = Status.RUNNING
        item.goal = goal
        item.computed = hit_tokens
        if item.first_hit is None:
            item.first_hit = hit_tokens
        draft.admitted.append((item.request, hit_tokens))
        self.running.append(item)

    def _compute(self, draft: Draft, item: Tracked, tokens: int) -> None:
        """Add a row and count its tokens; blocks it fills can be found from now on, even in this step."""
        after = item.computed + tokens
        if self.kv.caches_prefixes and after >= item.next_full:
            self.kv.register(item, min(after, self._known(item)))
        draft.append(item, tokens, self._yields_token(item, after))
        item.computed = after
        if after == item.limit:
            draft.last.append(item)

    def _threshold(self) -> int:
        """The most tokens of one prompt in this step, 0 for no limit. 0.33 lifts it for a request that is alone."""
        alone = self.config.version != "0.19" and len(self.running) + len(self.waiting) <= 1
        return 0 if alone else self.config.long_prefill_token_threshold

    def _preempt(self, item: Tracked) -> None:
        """Send `item` back to the waiting queue without KV blocks; it keeps its output and any token in flight."""
        self.kv.release(item)
        item.goal = self._decided(item)
        item.computed = 0
        item.status = Status.PREEMPTED
        item.preemptions += 1
        self.preemptions += 1
        self.waiting.put_back(item)

    def _finish(self, item: Tracked) -> None:
        if item.status is Status.RUNNING:
            self.kv.release(item)
            self.running.remove(item)
        else:
            self.waiting.remove(item)
        item.status = Status.FINISHED

    # -- tokens are counted when their step is decided; `pipelined` counts them when they arrive

    def _wanted(self, item: Tracked) -> int:
        """Tokens that `item` could compute now: 0 when its last step is in flight."""
        return 0 if item.computed == item.limit else max(item.goal - item.computed, 1)

    def _yields_token(self, item: Tracked, computed: int) -> bool:
        return computed >= item.goal

    def _decided(self, item: Tracked) -> int:
        """Tokens that `item` has or will have when all steps in flight are done."""
        return max(item.goal, item.computed + 1) if item.status is Status.RUNNING else item.goal

    def _known(self, item: Tracked) -> int:
        """Tokens of `item` that have arrived."""
        return self._decided(item) - self._tokens_in_flight(item)

    def _tokens_in_flight(self, item: Tracked) -> int:
        return sum(item in plan.sampled for plan in self.in_flight)

    def _arrive(self, plan: Plan) -> tuple[Sequence[Request], Sequence[Tracked]]:
        """Return who got a token from `plan`, and for whom it was the last."""
        batch = plan.batch
        if plan.decodes is not None or False not in batch.samples:
            return batch.requests, plan.last
        pairs = zip(batch.requests, batch.samples, strict=True)
        return [request for request, samples in pairs if samples], plan.last

    def _register_arrived(self, plan: Plan) -> None:
        """Register blocks whose last token came with `plan`; a request that goes on has done so when scheduled."""
        for item in plan.items:
            if item.computed >= item.next_full and item.status is Status.RUNNING:
                self.kv.register(item, item.computed - self._tokens_in_flight(item))

    # -- many like steps at once

    def _stays_blocked(self, plan: Plan) -> bool:
        """Whether the head of the waiting queue, refused by `plan`, is refused by every further decode step.

        Seats and tokens stay taken and KV blocks only get fewer; what its prefix finds may change with each block.
        """
        full = len(self.running) >= self.config.max_num_seqs or plan.budget == 0
        return full or not self.kv.caches_prefixes

    def _settle(self) -> None:
        """Account for the further steps that the instance gave the last batch since it was scheduled."""
        if not self.in_flight:
            return
        plan = self.in_flight[-1]
        more = plan.batch.steps - plan.applied
        if more:
            plan.applied = plan.batch.steps
            take_further_steps(plan.items, self.kv, more, lag=int(self.decides_ahead))
            plan.last = [item for item in plan.items if item.computed == item.limit]
            if plan.decodes is not None:
                plan.decodes.steps_left -= more

    def track(self, request: Request) -> Tracked:
        """Return the counters of a new request; lengths that cannot be are a `UserError`."""
        config = self.config
        if request.prompt_tokens < 1 or request.output_tokens < 1:
            raise UserError(
                f"request {request.name or request.id} has {request.prompt_tokens} prompt and "
                f"{request.output_tokens} output tokens",
                line=request.source_line,
                fix="both must be at least 1",
            )
        if request.prompt_tokens >= config.max_model_len:
            raise UserError(
                f"request {request.name or request.id} cannot run: {self.unfit(request)}", line=request.source_line
            )
        self._added += 1
        chain = None
        if self.kv.caches_prefixes:
            known = known_tokens(request)
            chain = PrefixChain(known, self._added, config.block_size)
        return Tracked(request, self._added, config.max_model_len, chain)
