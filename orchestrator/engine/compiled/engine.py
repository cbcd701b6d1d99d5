"""An engine on the clock around the compiled loop: what it is asked from outside, and how its arrays grow.

It is lazy. Requests that come are written down; the loop runs when somebody asks how the engine stands (`load`), when
many have come, and to the end once it is known that nobody comes any more. What it tells is told late, but complete and
in order; `told_until` says how far.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from foundation.compiling import compiles
from foundation.errors import InternalError
from orchestrator.engine.compiled.layout import (
    ACTS_NEXT,
    ASKS_PRICE,
    FREE_BLOCKS,
    HEAD,
    IN_QUEUE,
    IN_RUN,
    LACKS_CONTENTS,
    NOTHING,
    NOW,
    REACHED,
    REPORTED_FREE,
    REPORTED_RUNNING,
    REPORTED_WAITING,
    SEEN,
    TAIL,
    TOLD,
    WANTED_SAMPLES,
    WANTED_TOKENS,
    State,
)
from orchestrator.engine.compiled.loop import next_ns, run
from orchestrator.engine.compiled.memory import Arrays
from orchestrator.engine.compiled.pricing import Prepared
from orchestrator.engine.compiled.telling import taken, token_gaps, unfinished
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.loops import DECIDES, ENDS, NEVER
from orchestrator.engine.records import Rejected
from orchestrator.request_table import RequestTable
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from orchestrator.schedulers.interface import KVUsage
from orchestrator.schedulers.vllm.scheduler import VllmScheduler

IntArray = NDArray[np.int64]
MOST_UNSEEN = 1024
"""Requests that are written down before the loop runs by itself."""


class CompiledEngine:
    """What `Engine` is for `scheduler`, whose decisions it takes in its own way; see `covering` for what it covers.

    `prepared`: what batches take, as tables.
    """

    hands_over = False
    lazy = True

    def __init__(self, scheduler: VllmScheduler, prepared: Prepared, *, number: int = 0) -> None:
        self.number = number
        self._scheduler = scheduler
        self._prepared = prepared
        self._arrays = Arrays(prepared, prepared.rules(scheduler.config))
        self._scalars = self._arrays.state.scalars
        self._records: deque[Iterations] = deque()
        self._described: State | None = None
        self._handed: Callable[[int], int] | None = None
        self._horizon = 0
        self._behind_ns = -1

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of work that it tells apart."""
        return self._prepared.classes

    # -- what comes from outside

    def submit(self, admission: Admission, now: int) -> Rejected | None:
        """Take a request in, or say why not; the first decision at or after `now` sees it."""
        rejected = self.turned_away(admission.request, now)
        if rejected is None:
            self._arrays.add(admission, now)
            self._scalars[ACTS_NEXT] = min(self._scalars[ACTS_NEXT], now)
            if len(self._arrays) - self._scalars[SEEN] >= MOST_UNSEEN:
                self._behind_ns = now
        return rejected

    def takes(self, table: RequestTable) -> bool:
        """Whether it would take in all requests of a table; see `TakesMany`."""
        return not table.retrieved and self._scheduler.rejects(table.longest()) is None

    def take(self, rows: RequestTable) -> None:
        """Take requests in, each when it arrives; see `TakesMany`."""
        self._arrays.add_rows(rows)
        first, last = int(rows.arrival_ns[0]), int(rows.arrival_ns[-1])
        self._scalars[ACTS_NEXT] = min(self._scalars[ACTS_NEXT], first)
        self.behind(last)

    def behind(self, until: int) -> None:
        """Hear that it is to go on as far as `until` (ns)."""
        self._behind_ns = until

    def make_room(self, longest: int, tokens: int) -> None:
        """Make room for one request more, of at most `longest` tokens, that makes `tokens`."""
        self._arrays.make_room(1, longest, tokens)

    @property
    def finds_prefixes(self) -> bool:
        """Whether contents of blocks are found by what they are."""
        return bool(self._arrays.rules.numbered)

    def described(self) -> tuple[IntArray, IntArray]:
        """Return where the arrays are now (`handing.described`), all that has come written into them."""
        from orchestrator.engine.compiled.handing import described

        self._arrays.settle()
        state, rules = self._arrays.state, self._arrays.rules
        return described(state, rules, self._prepared.prices, self._prepared.attention)

    def turned_away(self, request: Request, now: int) -> Rejected | None:
        """Return why `request` would not be taken in at `now`, or None."""
        reason = self._scheduler.rejects(request)
        return None if reason is None else Rejected(self.number, request, now, reason)

    def abort(self, request: Request, now: int) -> None:
        """Nobody goes away (see `covering`)."""
        raise InternalError(f"request {request.id} is given up, but runs in a compiled loop")

    def disturb(self, now: int) -> None:
        """Nothing comes from elsewhere (see `covering`)."""
        raise InternalError("something disturbs a compiled loop")

    def begun(self, request: Request, now: int) -> bool:
        """Nobody who could go away asks (see `covering`)."""
        raise InternalError(f"somebody asks for request {request.id}, which runs in a compiled loop")

    def cached_tokens(self, request: Request, now: int) -> int:
        """Return how many leading tokens of `request` would be found by a decision at `now`."""
        self.catch_up(now)
        return self._arrays.cached_tokens(request)

    def keep_token_times(self) -> None:
        """Have the times between each request's tokens told; nobody has come yet."""
        self._arrays = Arrays(self._prepared, self._arrays.rules._replace(keeps_token_times=1))
        self._scalars = self._arrays.state.scalars

    def expect(self, horizon_ns: int) -> None:
        """Nothing is likely to come from outside before `horizon_ns`; `NEVER`: nothing comes at all."""
        self._horizon = horizon_ns

    def load(self, now: int) -> KVUsage:
        """Return the state just before the decisions at `now`; who has not been seen yet is waiting."""
        self.catch_up(now)
        scalars = self._scalars
        waiting = scalars[TAIL] - scalars[HEAD] + len(self._arrays) - scalars[SEEN]
        return KVUsage(self._scheduler.kv.total, int(scalars[FREE_BLOCKS]), int(scalars[IN_RUN]), int(waiting))

    def reported(self, now: int) -> KVUsage:
        """Return the state as the engine's loop told it last; see `Engine.reported`."""
        self.catch_up(now)
        free, running, waiting = (int(self._scalars[at]) for at in (REPORTED_FREE, REPORTED_RUNNING, REPORTED_WAITING))
        return KVUsage(self._scheduler.kv.total, free, running, waiting)

    # -- what the clock asks

    def next_event(self) -> tuple[int, int] | None:
        """Return when this engine acts next (ns) and the event's priority; None: it goes on when somebody asks."""
        if self._records:
            return self._first_untold_ns(), ENDS
        if self._behind_ns >= 0:
            return self._behind_ns, ENDS
        if self._horizon != NEVER:
            return None
        if self._scalars[TOLD]:  # of what it did when somebody asked, be there more to do or not
            return int(self._arrays.state.told_stages[0, 0, 0]), ENDS
        time = self._next_ns()
        return None if time == NEVER else (time, DECIDES)

    def step(self, now: int) -> Sequence[Iterations]:
        """Go on as far as there is something to go on with, at most until there is much to tell; return that."""
        if not self._records:
            self._go_on(NEVER if self._horizon == NEVER else self._behind_ns, tells=True)
        told = [*self._records]
        self._records.clear()
        return told

    @property
    def waits(self) -> bool:
        """Whether it will go on though it does not say when."""
        return not self.idle()

    @property
    def now(self) -> int:
        """When it acted last (ns)."""
        return int(self._scalars[NOW])

    def idle(self) -> bool:
        """Whether nothing is in flight, waiting or yet to be seen."""
        scalars = self._scalars
        unseen = len(self._arrays) > scalars[SEEN]
        return not (unseen or scalars[IN_RUN] or scalars[HEAD] < scalars[TAIL] or scalars[IN_QUEUE])

    def usage(self) -> KVUsage:
        """Return the KV memory's state, and requests by state."""
        free, running = int(self._scalars[FREE_BLOCKS]), int(self._scalars[IN_RUN])
        return KVUsage(self._scheduler.kv.total, free, running, int(self._scalars[TAIL] - self._scalars[HEAD]))

    def told_until(self) -> int:
        """Return the moment (ns) from which on iterations are still to come; `NEVER` when none are known to come."""
        state = self._arrays.state
        untold = [self._first_untold_ns()] if self._records else []
        if self._scalars[TOLD]:
            untold.append(int(state.told_stages[0, 0, 0]))
        flying = [int(state.passage[at, 0, 0]) for at in state.queue[: self._scalars[IN_QUEUE]] if at != NOTHING]
        return min([*untold, *flying, self._next_ns()])

    # -- running

    def _next_ns(self) -> int:
        self._arrays.settle()
        return int(next_ns(self._arrays.state, self._arrays.rules))

    def _first_untold_ns(self) -> int:
        return int(self._records[0].start_ns[0])

    def catch_up(self, now: int) -> None:
        """Let everything before the decisions at `now` have happened; what there is to tell is kept."""
        if self._scalars[ACTS_NEXT] > now:
            return
        while not self._go_on(now):
            pass

    def _go_on(self, until: int, *, tells: bool = False) -> bool:
        """Run until `until`, or until there is much to tell; that is kept, as anything is if it `tells`.

        Return whether it got there.
        """
        arrays, prepared = self._arrays, self._prepared
        arrays.settle()
        while True:
            came_for = self._run(until)
            if came_for == ASKS_PRICE:
                prepared.fill(int(self._scalars[WANTED_TOKENS]), int(self._scalars[WANTED_SAMPLES]))
            elif came_for == LACKS_CONTENTS:
                arrays.more_contents()
            else:
                break
        reached = bool(came_for == REACHED)
        if reached and until >= self._behind_ns:
            self._behind_ns = -1
        if self._scalars[TOLD] and (tells or not reached):
            self._records.append(self._told())
        return reached

    def _run(self, until: int) -> int:
        """Run the loop on the arrays as they are; see `loop.run`."""
        state, rules = self._arrays.state, self._arrays.rules
        prices, attention = self._prepared.prices, self._prepared.attention
        if not compiles():
            return run(state, rules, prices, attention, until)
        if self._described is state and self._handed is not None:
            return int(self._handed(until))
        from orchestrator.engine.compiled.handing import described, run_described

        self._described, self._handed = state, partial(run_described, *described(state, rules, prices, attention))
        return int(self._handed(until))

    def _told(self) -> Iterations:
        state = self._arrays.state
        self._prepared.count_lookups(state.told[: self._scalars[TOLD]])
        lists = token_gaps(state, self._arrays.rules)
        return Iterations(
            engine=self.number,
            **taken(state, self.number),
            total_blocks=self._scheduler.kv.total,
            after=self.usage(),
            busy_ns=self._prepared.busy_ns(state),
            token_gaps=lists,
            unfinished=lambda: unfinished(self._arrays.state, self.number),
        )
