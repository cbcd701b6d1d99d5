"""One serving engine in simulated time: sees arrivals, asks its scheduler, has batches priced, says when it acts.

    from the clock      next_event() -> when, and whether a batch ends or a decision is due;  step(now)
    from outside        submit(admission, now), abort(request, now), disturb(now)
    routers ask         load(now), reported(now), cached_tokens(request, now)

At equal times batches end first, then arrivals are seen, then the next batch is decided. A request is seen by the first
decision at or after its arrival; an abort takes effect before the next batch is accounted for or decided.

Where a scheduler foresees that its decisions repeat themselves, a stretch of them is priced at once (`stretch`). It is
written down when it is over, or cut at the first decision that something from outside comes in time for; so nothing
that happens elsewhere costs this engine anything, and results do not depend on stretches.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.engine.answers import Answers
from orchestrator.engine.batch import Batch, Outcome
from orchestrator.engine.in_flight import InFlight, joined
from orchestrator.engine.loops import ENDS, NEVER, engine_loop
from orchestrator.engine.moves import Moves
from orchestrator.engine.priced_ahead import PricedAhead, Steps
from orchestrator.engine.records import NO_GAP, Aborted, CompletedBatch, Gap, Rejected, Seen, UsageLine
from orchestrator.engine.stages import Passage, StageClock
from orchestrator.engine.stretch import Stretch, run_ahead
from orchestrator.pricing.interface import Pricing
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import Alike, EngineLoop, FindsPrefixes, KVUsage, Scheduler

IntArray = NDArray[np.int64]
MAX_STEPS = 512
MOST_AHEAD = 128
"""Like steps of one of several batches that take turns, priced at once because it keeps coming."""


class Engine:
    """A scheduler and the pricing of its batches; see the module's docstring.

    `max_steps` bounds the like iterations of a batch that are worked out at once; results do not depend on it.
    `hands_over`: it computes prompts only; requests are done with their first token, and go on elsewhere. `moves`: what
    moves evicted KV cache; None: batches do so themselves, as part of what they cost.
    """

    lazy = False

    def __init__(
        self,
        scheduler: Scheduler,
        pricing: Pricing,
        *,
        number: int = 0,
        max_steps: int = MAX_STEPS,
        hands_over: bool = False,
        moves: Moves | None = None,
    ) -> None:
        self.number = number
        self.hands_over = hands_over
        self._moves = moves
        self.now = 0
        self.waits = False
        """Whether it will go on when others have come as far (`orchestrator.engine.member`)."""
        self._scheduler = scheduler
        self._prefixes = scheduler if isinstance(scheduler, FindsPrefixes) else None
        self._reported = scheduler.usage()
        self._pricing = pricing
        self._prices = PricedAhead(pricing, keep=4 * scheduler.places)
        self._max_steps = min(max_steps, pricing.max_steps)
        self._loop = engine_loop(scheduler)
        self._stages = StageClock(pricing.stages)
        self._arrivals: list[tuple[int, int, Admission]] = []
        self._submitted = 0
        self._submitted_ns = 0
        self._aborts: list[tuple[int, Request]] = []
        self._muted: set[Request] = set()
        self._seen: list[Seen] = []
        self._there_ns = 0
        self._answers = Answers()
        self._stretch: Stretch | None = None
        self._horizon = NEVER
        self._step_ns = 1

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of work that its batches' `busy_ns` tells apart."""
        return self._pricing.classes

    # -- what comes from outside

    def submit(self, admission: Admission, now: int) -> Rejected | None:
        """Take a request in, or say why not; the first decision after `now` and its KV's landing sees it."""
        rejected = self.turned_away(admission.request, now)
        if rejected is not None:
            return rejected
        self._cut(now)
        if self.hands_over:
            admission = replace(admission, ends_after=1)
        insort(self._arrivals, (max(now, admission.kv_ready_ns), self._submitted, admission))
        self._submitted += 1
        self._submitted_ns = now
        return None

    def turned_away(self, request: Request, now: int) -> Rejected | None:
        """Return why `request` would not be taken in at `now`, or None."""
        reason = self._scheduler.rejects(request)
        return None if reason is None else Rejected(self.number, request, now, reason)

    def abort(self, request: Request, now: int) -> None:
        """The client of `request`, which was submitted here, has gone; nothing of it is reported any more."""
        known = request in self._answers and request not in self._muted
        if known or any(admission.request is request for _, _, admission in self._arrivals):
            self.disturb(now)
            self._aborts.append((now, request))

    def disturb(self, now: int) -> None:
        """What the scheduler may decide changes at `now`, by something that it is told right after."""
        self._cut(now)
        self.now = max(self.now, now)
        self._loop.disturbed()

    def begun(self, request: Request, now: int) -> bool:
        """Whether a request that was submitted here, and is not over, has had its first token before `now`."""
        if not self._answers.begun(request) and request in self._answers:
            self._cut(now)
        return self._answers.begun(request)

    def expect(self, horizon_ns: int) -> None:
        """Nothing is likely to come from outside before `horizon_ns`: that far it is worth working ahead."""
        self._horizon = horizon_ns

    def load(self, now: int) -> KVUsage:
        """Return the state just before the decisions at `now`; who has not been seen yet is waiting."""
        if self._stretch is None:
            total, free, running, waiting = self._scheduler.usage()
        else:
            total, _, running, waiting = self._stretch.usage
            free = self._stretch.free_at(now)
        return KVUsage(total, free, running, waiting + len(self._arrivals))

    def reported(self, now: int) -> KVUsage:
        """Return the state as the engine's loop told it last, as vLLM's does: each time that it comes round.

        That is when a batch has ended, or was decided and there is room for another. Who has not been seen is not
        counted. Within a stretch the loop tells the same requests from its first end on; `free_blocks` may be older.
        """
        if self._stretch is not None and self._stretch.ends[0] <= now:
            return self._stretch.usage
        return self._reported

    def cached_tokens(self, request: Request, now: int) -> int:
        """Return how many leading tokens of `request` the KV memory would be found to hold by a decision at `now`."""
        if self._prefixes is None:
            return 0
        ahead = 0 if self._stretch is None else self._stretch.decided_before(now)
        return self._prefixes.cached_tokens(request, ahead)

    # -- what the clock asks

    def next_event(self) -> tuple[int, int] | None:
        """Return when this engine acts next (ns) and the event's priority; None if only something outside moves it."""
        if self._stretch is not None:
            return self._stretch.end_ns, ENDS
        event = self._next(self.now)
        return None if event[0] == NEVER else event

    def step(self, now: int) -> Sequence[CompletedBatch | Aborted]:
        """Do what is due at `now`, the time of the next event; return who was given up and the batch that has ended."""
        if self._stretch is not None:
            self._write_down(self._stretch, self._stretch.times)
        self.now = now
        return self._complete(now) if self._next(now)[1] == ENDS else self._decide(now)

    def idle(self) -> bool:
        """Whether nothing is in flight, waiting or yet to be seen."""
        return not (self._flying() or self._arrivals or self._scheduler.has_unfinished())

    def usage(self) -> KVUsage:
        """Return the KV memory's state, and requests by state."""
        return self._scheduler.usage()

    def told_until(self) -> int:
        """Return the moment (ns) from which on batches are still to come; `NEVER` when nothing is in flight."""
        return min((flight.untold_from_ns for flight in self._flying()), default=NEVER)

    # -- decisions and ends

    def _next(self, now: int) -> tuple[int, int]:
        """Return what the loop says comes next; `NEVER`: nothing does by itself."""
        arrival = self._arrivals[0][0] if self._arrivals else NEVER
        return self._loop.next_event(now, self._stages.free[0], arrival)

    def _decide(self, now: int) -> Sequence[CompletedBatch | Aborted]:
        while self._arrivals and self._arrivals[0][0] <= now:
            came_ns, _, admission = self._arrivals.pop(0)
            if len(self._answers) == len(self._muted):
                self._there_ns = came_ns
            self._scheduler.add(admission, now)
            self._answers.add(admission)
            self._seen.append(Seen(admission.request, now))
        aborted = self._give_up(now)
        if not self._scheduler.has_unfinished():
            self._loop.nothing_to_decide(now)
            return aborted
        batch = self._scheduler.schedule(now)
        flight = None if batch is None else self._launch(batch, now)
        self._loop.decided(flight, now)
        if self._comes_round(now):
            self._reported = self._scheduler.usage()
        if flight is None and self._max_steps > 1 and self._flying():
            event = self.next_event()
            if event is not None and event[1] == ENDS:
                self._foresee_all(now)
        return aborted

    def _comes_round(self, now: int) -> bool:
        """Whether a loop like vLLM's goes on after a decision, rather than wait for a batch."""
        if len(self._loop.queue) == self._scheduler.places or self._scheduler.loop is EngineLoop.STAGE_FREE:
            return False
        return self._loop.next_event(now, now, NEVER)[1] != ENDS

    def _complete(self, now: int) -> Sequence[CompletedBatch | Aborted]:
        flight = self._loop.ended()
        aborted = self._give_up(now, ended=flight)
        outcome = self._scheduler.update(flight.batch, self._answers.count(flight.batch), now)
        self._answers.drop(outcome.finished)
        if self._muted:
            finished, outcome = outcome.finished, outcome.without(self._muted)
            self._muted.difference_update(finished)
        if self.hands_over:
            outcome = outcome.handing_over()
        self._reported = self._scheduler.usage()
        done = flight.completed(self.number, outcome, self._reported, self._seen)
        self._seen = []
        return (*aborted, done)

    def _give_up(self, now: int, *, ended: InFlight | None = None) -> Sequence[CompletedBatch | Aborted]:
        """Forget the requests whose clients have gone; when a batch has `ended`, those who went before and were seen.

        The end of a batch that was foreseen may be told when something later has come to pass.
        """
        if not self._aborts:
            return ()
        until = NEVER if ended is None else ended.end_ns
        gone = [request for time, request in self._aborts if time <= until and request in self._answers]
        told: list[CompletedBatch | Aborted] = self._tell_past(gone, ended)
        for request in gone:
            if self._scheduler.abort(request, now):
                self._muted.add(request)
            else:
                self._answers.drop([request])
                if self._moves is not None:
                    self._moves.forget([request])
        self._seen = [seen for seen in self._seen if seen.request not in gone]
        if ended is None:
            going = [request for _, request in self._aborts]
            gone += [entry[2].request for entry in self._arrivals if entry[2].request in going]
            self._arrivals = [entry for entry in self._arrivals if entry[2].request not in gone]
            self._aborts.clear()
        else:
            self._aborts = [entry for entry in self._aborts if entry[1] not in gone]
        return [*told, *(Aborted(self.number, request, now) for request in gone)]

    def _tell_past(self, gone: Sequence[Request], ended: InFlight | None) -> list[CompletedBatch | Aborted]:
        """Return the pasts of batches in flight that somebody in `gone` has a part in: theirs will not be like it."""
        told: list[CompletedBatch | Aborted] = []
        for flight in [*([] if ended is None else [ended]), *self._flying()]:
            if flight.past is not None and any(request in gone for request in flight.batch.requests):
                told.append(flight.past)
                flight.past = None
        return told

    def _launch(self, batch: Batch, now: int) -> InFlight:
        """Price `batch`, with the like steps after it where they are foreseen, and send it through the stages."""
        flying, flight = self._flying(), self._decided(batch, now)
        if not batch.requests:
            return flight
        full = len(flying) + 1 == self._scheduler.places
        alike = self._foreseen(now, [*flying, batch]) if full else None
        own_turns = 0 if alike is None else alike.times // alike.period
        ready, computed = self._ready(batch, now, flying), batch
        if self._moves is not None and (batch.kv_loads or batch.kv_evictions):
            ready, computed = max(ready, self._moves.move(batch, now)), batch.unmoved()
        steps = self._price(computed, 1 + own_turns, now, exactly=full)
        passage = self._stages.passage(ready, steps.stage_ns[0].tolist())
        self._begin(flight, passage, steps)
        if alike is not None:
            others = self._price_turns([*flying, flight], now, alike, alike.period - 1)
            usage = flight.usages.runs[0][0]
            self._run_ahead([*flying, flight], now, alike, [*others, steps.after(1)], usage)
        return flight

    def _decided(self, batch: Batch, now: int) -> InFlight:
        """Return `batch` in flight, not begun yet; one that only preempts ends with all that were decided before."""
        usage = self._scheduler.usage()
        usages = UsageLine([(usage, np.array([usage.free_blocks]))])
        none = np.zeros(len(self._pricing.classes), dtype=np.int64)
        end = NEVER if batch.requests else max([now, *(flight.end_ns for flight in self._flying())])
        return InFlight(batch, now, [end] * self._pricing.stages, [end] * self._pricing.stages, usages, none)

    def _begin(self, flight: InFlight, passage: Passage, steps: Steps) -> None:
        """Let a batch pass the stages; `steps`: what its first step takes, and those after it."""
        flight.begins, flight.ends = passage
        flight.busy_ns, flight.gap = steps.busy_ns[0], self._gap(passage.begins[0])
        self._stages.free = passage.ends
        self._step_ns = max(1, int(steps.stage_ns[0].sum()))

    def _gap(self, begin: int) -> Gap:
        """Return what was before a batch that begins at `begin`, if nothing is in flight any more."""
        last = self._stages.free[-1]
        if begin <= last:
            return NO_GAP
        nobody = len(self._answers) == len(self._muted)
        there = begin if nobody else max(last, self._there_ns)
        return Gap(begin - there, there - last)

    def _price(self, batch: Batch, steps: int, now: int, *, exactly: bool = False) -> Steps:
        """Return the cost of `steps` like steps of `batch`, or more: it may come again. `exactly`: that is foreseen."""

        def worth() -> tuple[int, int]:
            again = self._may_come_again(batch)
            least = steps if exactly else min(again, self._rounds(now) + 1)
            return least, max(least, min(again, MOST_AHEAD)) if self._pricing.stages > 1 else least

        return self._prices.price([batch], steps, worth)[0]

    def _may_come_again(self, batch: Batch) -> int:
        """Return how many like steps of `batch` there may be, this one among them, before an answer is complete."""
        if self._max_steps == 1 or batch.admitted or batch.kv_loads or batch.kv_evictions:
            return 1
        if not (len(batch.ids) == int(batch.new_tokens.sum()) == int(batch.samples.sum())):
            return 1
        return max(1, min(self._max_steps, self._answers.least(batch.requests)))

    def _rounds(self, now: int) -> int:
        """Return how often a batch may come again before the horizon."""
        return min(self._max_steps - 1, (self._worth_until(now) - now) // self._step_ns + 1)

    def _worth_until(self, now: int) -> int:
        """Return the horizon; where it has passed and nothing has come, that will take about as long again."""
        return self._horizon if self._horizon > now else 2 * now - self._submitted_ns

    def _ready(self, batch: Batch, now: int, flying: Sequence[InFlight]) -> int:
        """Return when `batch` may begin: a token is computed from the one before, which may be in the pipeline."""
        if self._pricing.stages == 1 or self._scheduler.loop is EngineLoop.STAGE_FREE:
            return now  # batches follow each other, or wait for their tokens anyway
        ready, ids = now, set(batch.ids.tolist())
        for flight in flying:
            if flight.end_ns > ready and not ids.isdisjoint(flight.batch.ids[flight.batch.samples > 0].tolist()):
                ready = flight.end_ns
        return ready

    # -- stretches of like decisions

    def _foresee_all(self, now: int) -> None:
        """Work ahead where fewer batches than there are places take turns."""
        flying = self._flying()
        alike = self._foreseen(now, flying)
        if alike is not None:
            lanes = self._price_turns(flying, now, alike, alike.period)
            self._run_ahead(flying, now, alike, lanes, self._scheduler.usage())

    def _foreseen(self, now: int, flying: Sequence[InFlight | Batch]) -> Alike | None:
        """Return the like decisions that are worth pricing: before the horizon, and before an answer is complete."""
        if self._max_steps == 1:
            return None
        alike = self._scheduler.alike(self._rounds(now) * len(flying))
        if alike is None:
            return None
        period = alike.period
        times = min(alike.times, self._rounds(now) * period)
        for place, flight in enumerate(flying[:period]):
            batch = flight if isinstance(flight, Batch) else flight.batch
            times = min(times, period * (self._answers.least(batch.requests) - 1) + place)
        return replace(alike, times=times) if times > 0 else None

    def _price_turns(self, flying: Sequence[InFlight], now: int, alike: Alike, lanes: int) -> list[Steps]:
        """Return the cost of the decisions of the first `lanes` lanes, in the order in which they are decided."""
        priced = []
        for turn, flight in enumerate(flying[len(flying) - alike.period :][:lanes]):
            batch, turns = flight.batch, (alike.times - turn - 1) // alike.period + 1
            priced.append(self._price(batch.again(batch.context_tokens + 1), max(1, turns), now))
        return priced

    def _run_ahead(
        self, flying: Sequence[InFlight], now: int, alike: Alike, lanes: Sequence[Steps], usage: KVUsage
    ) -> None:
        self._stretch = run_ahead(
            self._stages,
            [flight.end_ns for flight in flying],
            alike,
            lanes,
            usage,
            horizon=self._worth_until(now),
            waits=self._scheduler.loop is EngineLoop.STAGE_FREE,
        )

    def _cut(self, now: int) -> None:
        """Let only those decisions of a stretch stand that are made before `now`."""
        if self._stretch is not None:
            self._reported = self.reported(now)
            self._write_down(self._stretch, self._stretch.decided_before(now))

    def _write_down(self, stretch: Stretch, times: int) -> None:
        """Let the first `times` decisions of a stretch have happened, and as many batches have ended."""
        self._stretch = None
        if not times:
            return
        before = self._flying()
        batches = self._scheduler.repeat(times)
        flights = [
            self._at_position(stretch, times, times + place, batch, before) for place, batch in enumerate(batches)
        ]
        self._loop.repeated(flights, times)
        self._stages.free = list(flights[-1].ends)
        for lane, flight in enumerate(before[: stretch.period]):
            self._answers.advance(flight.batch.requests, len(range(lane, times, stretch.period)))
        self.now = int(stretch.decided[times - 1])

    def _at_position(
        self, stretch: Stretch, times: int, position: int, batch: Batch, before: Sequence[InFlight]
    ) -> InFlight:
        """Return what is in flight at `position` after `times` batches; the first of a lane has its lane's past."""
        period, count = stretch.period, len(before)
        if position < count:
            flight = before[position]
            flight.batch = batch
        else:
            begins, ends = stretch.passage(position)
            usages = stretch.usages(range(position, position + 1))
            decided = int(stretch.decided[position - count])
            flight = InFlight(batch, decided, begins, ends, usages, stretch.busy_ns([position]))
        ended = range(position % period, times, period)
        if position - period < times and ended:
            flight.past = self._past(stretch, ended, before, batch)
        return flight

    def _past(self, stretch: Stretch, ended: range, before: Sequence[InFlight], now: Batch) -> CompletedBatch:
        """Return the steps of one lane that ended at the positions `ended`; `now` is what it has in flight."""
        emitting, count = self._emitting(now), len(before)
        past = [before[position].as_past(self.number, emitting) for position in ended if position < count]
        new = ended[len(past) :]
        if new:
            usages, stages_ns = stretch.usages(new), stretch.stages_ns(new)
            past.append(
                CompletedBatch(
                    engine=self.number,
                    batch=now.again(now.context_tokens - len(ended) + len(past), len(new)),
                    decided_ns=int(stretch.decided[new[0] - count]),
                    start_ns=int(stages_ns[0, 0, 0]),
                    ends_ns=stretch.ends[new.start : new.stop : new.step],
                    usages=usages,
                    after=usages.last,
                    seen=(),
                    outcome=Outcome(emitting),
                    stages_ns=stages_ns,
                    serials=before[0].batch.serial + np.array(new, dtype=np.int64),
                    busy_ns=stretch.busy_ns(new),
                )
            )
        return joined(past) if len(past) > 1 else past[0]

    def _emitting(self, batch: Batch) -> Sequence[Request]:
        """Return whose tokens of `batch` are told."""
        return [r for r in batch.requests if r not in self._muted] if self._muted else batch.requests

    def _flying(self) -> list[InFlight]:
        return [flight for flight in self._loop.queue if flight is not None]
