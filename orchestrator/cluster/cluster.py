"""Several engines on one clock, with the traffic that comes to them: the wiring of what acts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from orchestrator.cluster.clock import Actor, Clock, Told
from orchestrator.cluster.front import Front, FrontRules
from orchestrator.cluster.router import Router, WatchingRouter
from orchestrator.cluster.source import Source
from orchestrator.cluster.watch import Watch
from orchestrator.engine.interface import AnyEngine
from orchestrator.engine.iterations import Iterations
from orchestrator.engine.loops import NEVER
from orchestrator.engine.records import CompletedBatch, DummyPass

if TYPE_CHECKING:
    from orchestrator.cluster.disaggregation import Disaggregation
    from orchestrator.cluster.tiers import Tiers
    from orchestrator.cluster.waves import Waves

NO_RULES = FrontRules()


class Cluster:
    """Runs `engines` on the requests of `source`, each routed by `router`, by the `rules` of the front.

    `disaggregation`: what is between engines some of which compute prompts only; `waves` move those that are in lock
    step; `tiers`: where KV cache goes beyond device memory.
    """

    def __init__(
        self,
        engines: Sequence[AnyEngine],
        router: Router,
        source: Source,
        rules: FrontRules = NO_RULES,
        disaggregation: Disaggregation | None = None,
        waves: Sequence[Waves] = (),
        tiers: Tiers | None = None,
    ) -> None:
        self._engines = engines
        self._disaggregation = disaggregation
        self._tiers = tiers
        entered = engines if disaggregation is None else disaggregation.entered()
        alone = len(engines) == 1
        self._front = Front(entered, router, source, rules, self._changed, alone=alone, between=disaggregation)
        departures = self._front.departures
        self._watch = self._watching(router) if isinstance(router, WatchingRouter) else None
        acting: list[Actor] = [] if self._watch is None else [self._watch]
        if disaggregation is not None:
            acting += disaggregation.actors(departures, self._changed, lambda: self.now)
        if tiers is not None:
            tiers.wire(self._changed, lambda: self.now)
            acting.append(tiers)
        self._clock = Clock([*engines, self._front, departures, *acting, *waves])
        for group in waves:
            group.tell(self._changed)
        self.scaling = self._front.scaling

    @property
    def now(self) -> int:
        """The time (ns)."""
        return self._clock.now

    def run(self) -> Iterator[Told]:
        """Yield what observers are told, until nothing more happens; an engine's records in order of their ends."""
        for told in self._clock.run():
            if isinstance(told, DummyPass | Iterations):
                yield told
                continue
            if self._disaggregation is not None and not self._disaggregation.hear(told):
                continue
            self._front.hear(told)
            yield told
        if self._disaggregation is not None:
            self._disaggregation.end()
        if self._tiers is not None:
            self._tiers.end()

    def told_until(self) -> int:
        """Return the moment (ns) before which everything has been told that ever will be."""
        # What is in flight ends, which is an event, or comes after what is waited for: else there is nothing to tell.
        awake = [engine.told_until() for engine in self._engines if self._moves(engine)]
        return min([self.now, *awake, *map(_began_ns, self._clock.untold)])

    def _watching(self, router: WatchingRouter) -> Watch:
        return Watch(router, self._front, lambda: any(map(self._moves, self._engines)), lambda: self.now)

    def _moves(self, engine: AnyEngine) -> bool:
        """Whether an engine will act, by itself or when others have come as far."""
        return engine.waits or self._clock.is_awake(engine)

    def _changed(self, actor: Actor) -> None:
        self._clock.changed(actor)
        if self._watch is not None:
            self._clock.changed(self._watch)


def _began_ns(told: Told) -> int:
    """Return when (ns) the first of the iterations that are told of began; `NEVER` where it is of none."""
    if isinstance(told, Iterations):
        return int(told.start_ns.min(initial=NEVER))
    return told.start_ns if isinstance(told, CompletedBatch) else NEVER
