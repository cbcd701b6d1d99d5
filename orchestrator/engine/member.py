"""An engine of a group that advances in lock step: every pass of its model is its part of a wave of all.

As in vLLM's data-parallel engine (0.19, `DPEngineCoreProc.run_busy_loop`): one turn of the loop makes one pass. It is
the batch that was decided, or a dummy where the turn came to nothing while the group runs. What a batch takes is known
when its wave begins; until then its end is `NEVER`, and the engine waits for the wave.

    turn    see arrivals -> decide -> (await the oldest batch) -> a dummy, if nothing was decided -> the group's check

A member that ran a dummy goes on when the dummy's wave begins. Its own decisions follow its loop, so with asynchronous
scheduling they run ahead of the tokens as they do in any engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

from foundation.errors import InternalError
from foundation.records import dataclass
from orchestrator.engine.batch import Batch
from orchestrator.engine.engine import MAX_STEPS, Engine
from orchestrator.engine.in_flight import InFlight
from orchestrator.engine.loops import DECIDES, NEVER, QueueLoop
from orchestrator.engine.priced_ahead import Steps
from orchestrator.engine.records import Aborted, CompletedBatch, Gap
from orchestrator.engine.stages import Passage
from orchestrator.pricing.interface import Pricing
from orchestrator.schedulers.interface import Alike, Scheduler


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """A member's part of a wave, decided at `decided_ns`; `flight` is None for a dummy.

    `again`: so many like steps there may be, this one among them. `unfinished`: whether the member had requests.
    """

    decided_ns: int
    flight: InFlight | None
    again: int
    unfinished: bool = True


class LockStep(Protocol):
    """The group of a member."""

    pricing: Pricing

    @property
    def running(self) -> bool:
        """Whether members without anything to run make dummy passes."""

    def join(self, member: Member, one: Pass) -> None:
        """Take a member's next pass; a group that does not run is woken."""

    def turned(self, member: Member, now: int, *, unfinished: bool) -> None:
        """Take note that a member's turn is over; it may be held until all have come as far."""


class Member(Engine):
    """An engine of `group`; see the module's docstring. Its scheduler decides as vLLM's batch queue does."""

    def __init__(self, scheduler: Scheduler, group: LockStep, *, number: int = 0, max_steps: int = MAX_STEPS) -> None:
        super().__init__(scheduler, group.pricing, number=number, max_steps=max_steps)
        if not isinstance(self._loop, QueueLoop):
            raise InternalError(f"{type(scheduler).__name__} does not decide as a data-parallel engine does")
        self._turns = self._loop
        self._group = group
        self._executed = False
        self._goes_on_ns = 0

    # -- what the clock asks

    def next_event(self) -> tuple[int, int] | None:
        """See `Engine.next_event`; in a group that runs a turn follows the other."""
        if self.waits:
            return None
        time, kind = self._next(self.now)
        if kind == DECIDES:
            time = max(self._goes_on_ns, self.now if self._group.running else time)
        return None if time == NEVER else (time, kind)

    def step(self, now: int) -> Sequence[CompletedBatch | Aborted]:
        """See `Engine.step`."""
        told = super().step(now)
        if self._turns.turn_is_over:
            self._end_turn(now)
        return told

    # -- what the group asks

    def hold(self) -> None:
        """Do nothing until `go_on`."""
        self.waits = True

    def go_on(self, now: int) -> None:
        """Take the next turn at `now`, if it is time for one."""
        self.waits = False
        self._goes_on_ns = max(self._goes_on_ns, now)

    def ready_ns(self, one: Pass) -> int:
        """Return when a pass may begin, of which all before it have begun."""
        flight = one.flight
        if flight is None:
            return one.decided_ns
        earlier = list(takewhile(lambda other: other is not flight, self._flying()))
        return self._ready(flight.batch, one.decided_ns, earlier)

    def rounds(self, now: int) -> int:
        """Return how often a batch may come again before something is likely to come from outside."""
        return self._rounds(now)

    def begin(self, flight: InFlight, passage: Passage, steps: Steps) -> None:
        """Let a batch pass the stages as its wave does; decisions behind it that only preempt end with it."""
        self._begin(flight, passage, steps)
        end = NEVER
        for other in self._flying():
            if not other.batch.requests and other.end_ns == NEVER:
                other.begins = other.ends = [max(end, other.decided_ns)] * self._pricing.stages
            end = other.end_ns

    def pass_by(self, passage: Passage) -> Gap:
        """Let a dummy pass the stages; return what was before it."""
        gap = self._gap(passage.begins[0])
        self._stages.free = passage.ends
        return gap

    # -- turns

    def _launch(self, batch: Batch, now: int) -> InFlight:
        """Send `batch` to the next wave; what only preempts makes no pass."""
        flight = self._decided(batch, now)
        if batch.requests:
            self._executed = True
            self._group.join(self, Pass(now, flight, self._may_come_again(batch)))
        return flight

    def _end_turn(self, now: int) -> None:
        executed, self._executed = self._executed, False
        usage = self._scheduler.usage()
        unfinished = bool(usage.running or usage.waiting)
        if executed:
            self._group.turned(self, now, unfinished=unfinished)
        elif unfinished or self._group.running:
            self.hold()
            self._group.join(self, Pass(now, None, self._max_steps, unfinished))

    def _foreseen(self, now: int, flying: Sequence[InFlight | Batch]) -> Alike | None:
        """Return None: what others decide belongs to every wave, so decisions are made one by one."""
        return None
