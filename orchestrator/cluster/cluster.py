"""Several engines on one clock, with the traffic that comes to them: the wiring of what acts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.cluster.clock import Clock, Told
from orchestrator.cluster.departures import Departures
from orchestrator.cluster.front import Front, FrontRules
from orchestrator.cluster.router import Router
from orchestrator.cluster.source import Source
from orchestrator.engine.engine import Engine

NO_RULES = FrontRules()


class Cluster:
    """Runs `engines` on the requests of `source`, each routed by `router`, by the `rules` of the front."""

    def __init__(self, engines: Sequence[Engine], router: Router, source: Source, rules: FrontRules = NO_RULES) -> None:
        self._engines = engines
        self._front = Front(engines, router, source, rules, self._changed)
        self._clock = Clock([*engines, self._front, self._front.departures])
        self.scaling = self._front.scaling

    @property
    def now(self) -> int:
        """The time (ns)."""
        return self._clock.now

    def run(self) -> Iterator[Told]:
        """Yield what observers are told, until nothing more happens; an engine's records in order of their ends."""
        for told in self._clock.run():
            self._front.hear(told)
            yield told

    def told_until(self) -> int:
        """Return the moment (ns) before which everything has been told that ever will be."""
        # What is in flight ends, which is an event: of engines that have none there is nothing to tell.
        awake = [engine.told_until() for engine in self._engines if self._clock.is_awake(engine)]
        return min([self.now, *awake])

    def _changed(self, actor: Engine | Departures | Front) -> None:
        self._clock.changed(actor)
