"""Instances that are started and dropped while a run goes on, as a rule of `orchestrator.cluster.autoscaling` says.

    asleep -> starting -> active -> draining -> asleep         a starting one that is not wanted any more: -> asleep

Every interval the rule is asked. Of those asleep the first is started; of those wanted no more one that is starting is
given up, the last first, else the last active one drains: it gets no more requests and is asleep when all are over. So
long as it is not asleep an instance is paid for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from foundation.records import dataclass
from orchestrator.cluster.autoscaling import PoolState, ScalingRule, ScalingSettings
from orchestrator.cluster.pool import Pool
from orchestrator.engine.interface import AnyEngine
from orchestrator.engine.loops import NEVER


class State(Enum):
    """What an instance is doing."""

    ASLEEP = "asleep"
    STARTING = "starting"
    ACTIVE = "active"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class ScaleEvent:
    """An instance came to be in a state: when (ns), and its number."""

    now: int
    engine: int
    state: str


class Scaling:
    """Sets `pool.engines` to those that are active. `more`: whether anything is to come."""

    def __init__(
        self, settings: ScalingSettings, engines: Sequence[AnyEngine], pool: Pool, more: Callable[[], bool]
    ) -> None:
        self.events: list[ScaleEvent] = []
        self._rule: ScalingRule = settings.rule()
        self._engines = engines
        self._pool = pool
        self._more = more
        self._least = min(settings.min_instances, len(engines))
        self._most = min(settings.max_instances or len(engines), len(engines))
        self._delay_ns, self._interval_ns, self._cooldown_ns = (
            round(1e9 * seconds)
            for seconds in (settings.startup_delay, settings.scale_interval, settings.scale_cooldown)
        )
        self._states = [State.ASLEEP] * len(engines)
        self._since = [0] * len(engines)
        self._paid = [0] * len(engines)
        self._ready: dict[int, int] = {}
        self._look_ns = self._interval_ns
        self._changed_ns = -self._cooldown_ns
        for place in range(self._least):
            self._states[place] = State.ACTIVE
        self._share()

    def next_ns(self) -> int:
        """Return when the next look is due, or an instance is ready; `NEVER` where nothing is to come any more."""
        return min([self._look_ns, *self._ready.values()]) if self._more() else NEVER

    def step(self, now: int) -> None:
        """Do what is due at `now`: who is ready takes requests before the rule is asked."""
        for place in [place for place, ready in self._ready.items() if ready <= now]:
            del self._ready[place]
            self._enter(place, State.ACTIVE, now)
        for place in self._in(State.DRAINING):  # an engine may be done only some time after its last request
            self._sleep_if_empty(place, now)
        if self._look_ns <= now:
            self._look_ns += self._interval_ns
            self._look(now)
        self._share()

    def hear(self, number: int, now: int) -> None:
        """Something is over at the engine called `number`: one that drains may be empty."""
        for place, engine in enumerate(self._engines):
            if engine.number == number and self._states[place] is State.DRAINING:
                self._sleep_if_empty(place, now)

    def paid_ns(self, end_ns: int) -> list[int]:
        """Return how long each instance was not asleep in a run that ended at `end_ns`."""
        going = [state is not State.ASLEEP for state in self._states]
        rest = (max(0, end_ns - since) if on else 0 for on, since in zip(going, self._since, strict=True))
        return [min(paid + more, end_ns) for paid, more in zip(self._paid, rest, strict=True)]

    def _look(self, now: int) -> None:
        active, starting = self._in(State.ACTIVE), self._in(State.STARTING)
        loads = [self._engines[place].load(now) for place in active]
        total = sum(load.total_blocks for load in loads)
        state = PoolState(
            active=len(active),
            starting=len(starting),
            running=sum(load.running for load in loads),
            waiting=sum(load.waiting for load in loads),
            kv_used=1 - sum(load.free_blocks for load in loads) / total if total else 0.0,
        )
        more = max(self._least, min(self._most, self._rule.wanted(state))) - len(active) - len(starting)
        if more and now - self._changed_ns >= self._cooldown_ns:
            self._change(more, now)

    def _change(self, more: int, now: int) -> None:
        """Start so many instances, or drop as many where `more` is negative."""
        for place in self._in(State.ASLEEP)[: max(0, more)]:
            self._start(place, now)
            self._changed_ns = now
        starting = sorted(self._ready, key=lambda place: (self._ready[place], place), reverse=True)
        for place in [*starting, *reversed(self._in(State.ACTIVE))][: max(0, -more)]:
            self._drop(place, now)
            self._changed_ns = now

    def _start(self, place: int, now: int) -> None:
        self._since[place] = now
        if self._delay_ns:
            self._ready[place] = now + self._delay_ns
            self._enter(place, State.STARTING, now)
        else:
            self._enter(place, State.ACTIVE, now)

    def _drop(self, place: int, now: int) -> None:
        self._ready.pop(place, None)
        if self._states[place] is State.ACTIVE:
            self._enter(place, State.DRAINING, now)
        self._sleep_if_empty(place, now)

    def _sleep_if_empty(self, place: int, now: int) -> None:
        engine = self._engines[place]
        if engine.idle() and not self._pool.busy(engine):
            self._enter(place, State.ASLEEP, now)
            self._paid[place] += now - self._since[place]

    def _in(self, state: State) -> list[int]:
        return [place for place, one in enumerate(self._states) if one is state]

    def _enter(self, place: int, state: State, now: int) -> None:
        self._states[place] = state
        self.events.append(ScaleEvent(now, self._engines[place].number, state.value))

    def _share(self) -> None:
        self._pool.engines = [self._engines[place] for place in self._in(State.ACTIVE)]
