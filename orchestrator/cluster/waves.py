"""Waves: the passes of engines that advance in lock step, as data-parallel members of a mixture of experts do.

The k-th pass of every member is one wave. It begins when the last member has decided and the wave before has ended, is
priced once for all, and gives each member its finish::

    member 0   | A0          || A1       || dummy    || B0 ...       joined by all, and the devices are free: begins
    member 1   | C0     |     | C1 |      | C2       || dummy ...

After vLLM 0.19 (v1/engine/core.py, `DPEngineCoreProc`): a member with nothing to run makes a dummy pass. At every 32nd
pass members wait for each other and find out whether anybody has unfinished requests (`_has_global_unfinished_reqs`).
If nobody has, the group pauses, which costs nothing, until a request comes to any of them and wakes all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from orchestrator.cluster.clock import BEGINS, Actor, Told
from orchestrator.engine.batch import Batch
from orchestrator.engine.engine import MAX_STEPS, MOST_AHEAD
from orchestrator.engine.member import Member, Pass
from orchestrator.engine.priced_ahead import PricedAhead, Steps
from orchestrator.engine.records import DummyPass
from orchestrator.engine.stages import Passage, StageClock
from orchestrator.pricing.interface import Pricing
from trace_gen.batch_shape import dummy_batch

CHECKED_EVERY = 32
"""Passes between two checks whether anybody has unfinished requests."""


class Waves:
    """The group of `members`, which `admit` has brought into it; see the module's docstring.

    `max_steps` bounds the like steps of a wave that are priced at once; results do not depend on it.
    """

    def __init__(self, pricing: Pricing, *, max_steps: int = MAX_STEPS) -> None:
        self.pricing = pricing
        self.members: list[Member] = []
        self._running = False
        self._max_steps = min(max_steps, pricing.max_steps)
        self._prices = PricedAhead(pricing, keep=4 * (pricing.stages + 1))
        self._stages = StageClock(pricing.stages)
        self._passes: dict[int, deque[Pass]] = {}
        self._turns: dict[int, int] = {}
        self._checked: dict[int, tuple[int, bool]] = {}
        self._number = 0
        self._worked = False
        self._changed: Callable[[Actor], None] = lambda actor: None

    @property
    def running(self) -> bool:
        """See `LockStep`."""
        return self._running

    def admit(self, members: Sequence[Member]) -> None:
        """Make `members` the group's, before anything happens."""
        self.members = list(members)
        self._passes = {member.number: deque() for member in members}
        self._turns = dict.fromkeys(self._passes, 0)

    def tell(self, changed: Callable[[Actor], None]) -> None:
        """Tell `changed` from now on of actors whose next event may be another."""
        self._changed = changed

    # -- what members do

    def join(self, member: Member, one: Pass) -> None:
        """See `LockStep`."""
        self._passes[member.number].append(one)
        if not self._running:
            self._running = True
            for other in self.members:
                if other is not member:
                    other.go_on(one.decided_ns)
                    self._changed(other)
        self._changed(self)

    def turned(self, member: Member, now: int, *, unfinished: bool) -> None:
        """See `LockStep`."""
        self._turns[member.number] += 1
        if self._turns[member.number] % CHECKED_EVERY:
            member.go_on(now)
            return
        member.hold()
        self._checked[member.number] = (now, unfinished)
        if len(self._checked) == len(self.members):
            self._check()

    def _check(self) -> None:
        """Go on where anybody has unfinished requests and something has run of late; nothing comes of it else."""
        now = max(time for time, _ in self._checked.values())
        self._running = self._worked and any(unfinished for _, unfinished in self._checked.values())
        self._checked.clear()
        self._turns = dict.fromkeys(self._turns, 0)
        self._worked = False
        for member in self.members:
            member.go_on(now)
            self._changed(member)

    # -- what the clock asks

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`: when the last member joined the next wave."""
        if not all(self._passes.values()):
            return None
        return max(passes[0].decided_ns for passes in self._passes.values()), BEGINS

    def step(self, now: int) -> Sequence[Told]:
        """Begin the next wave; tell of dummies."""
        wave = [self._passes[member.number].popleft() for member in self.members]
        priced = self._price(wave, now)
        ready = max(member.ready_ns(one) for member, one in zip(self.members, wave, strict=True))
        told: list[Told] = []
        for member, one, steps, passage in zip(self.members, wave, priced, self._passages(ready, priced), strict=True):
            if one.flight is not None:
                self._worked = True
                member.begin(one.flight, passage, steps)
            else:
                gap = member.pass_by(passage)
                told.append(DummyPass(member.number, passage.begins[0], passage.ends[-1], gap))
                self.turned(member, passage.begins[0], unfinished=one.unfinished)
            self._changed(member)
        return told

    # -- what a wave takes

    def _price(self, wave: Sequence[Pass], now: int) -> Sequence[Steps]:
        """Return the cost of each member's pass. Draws of a step are those of the wave's number."""

        def worth() -> tuple[int, int]:
            again = min(self._max_steps, *(one.again for one in wave))
            if all(one.flight is None for one in wave):
                again = min(again, 2)  # one like the other: the first price is that of all
            least = min(again, 1 + min(member.rounds(now) for member in self.members))
            return least, max(least, min(again, MOST_AHEAD)) if self.pricing.stages > 1 else least

        number, self._number = self._number, self._number + 1
        batches = [_dummy(number) if one.flight is None else replace(one.flight.batch, serial=number) for one in wave]
        return self._prices.price(batches, 1, worth)

    def _passages(self, ready: int, priced: Sequence[Steps]) -> list[Passage]:
        """Return when each member begins and ends each stage: a stage is the whole group's until its last is done."""
        finish = np.array([steps.stage_ns[0] for steps in priced]).cumsum(axis=1)
        last = finish.max(axis=0)
        group = self._stages.passage(ready, np.diff(last, prepend=0).tolist())
        self._stages.free = group.ends
        ends = (np.array(group.ends) - (last - finish)).tolist()
        return [Passage(list(map(min, group.begins, own)), own) for own in ends]


def _dummy(number: int) -> Batch:
    """Return the batch of a member that has nothing to run, as wave `number`."""
    shape = dummy_batch()
    return Batch(number, (), shape.request_ids, shape.new_tokens, shape.context_tokens, shape.samples)
