"""Several engines on one clock, with the traffic that comes to them: the wiring of what acts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.cluster.clock import Actor, Clock, Told
from orchestrator.cluster.disaggregation import Disaggregation
from orchestrator.cluster.front import Departures, Front
from orchestrator.cluster.router import Router
from orchestrator.cluster.source import Source
from orchestrator.engine.engine import Engine


class Cluster:
    """Runs `engines` on the requests of `source`, each routed by `router`.

    `disaggregation`: what is between engines some of which compute prompts only.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        router: Router,
        source: Source,
        disaggregation: Disaggregation | None = None,
    ) -> None:
        self._engines = engines
        self._source = source
        self._disaggregation = disaggregation
        self._departures = Departures(self._changed)
        entered = list(engines) if disaggregation is None else disaggregation.entered()
        alone = len(engines) == 1
        self._front = Front(
            entered, router, source, self._departures, self._changed, alone=alone, between=disaggregation
        )
        acting = () if disaggregation is None else disaggregation.actors(self._departures, self._changed, self._time)
        self._clock = Clock([*engines, self._front, self._departures, *acting])

    @property
    def now(self) -> int:
        """The time (ns)."""
        return self._clock.now

    def run(self) -> Iterator[Told]:
        """Yield what observers are told, until nothing more happens; an engine's records in order of their ends."""
        for told in self._clock.run():
            if self._disaggregation is not None and not self._disaggregation.hear(told):
                continue
            if self._source.hear(told):
                self._clock.changed(self._front)
            yield told
        if self._disaggregation is not None:
            self._disaggregation.end()

    def told_until(self) -> int:
        """Return the moment (ns) before which everything has been told that ever will be."""
        # What is in flight ends, which is an event: of engines that have none there is nothing to tell.
        awake = [engine.told_until() for engine in self._engines if self._clock.is_awake(engine)]
        return min([self.now, *awake])

    def _changed(self, actor: Actor) -> None:
        self._clock.changed(actor)

    def _time(self) -> int:
        return self._clock.now
