"""Several engines on one clock, with the traffic that comes to them: the wiring of what acts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.cluster.clock import Actor, Clock, Told
from orchestrator.cluster.front import Departures, Front
from orchestrator.cluster.router import Router
from orchestrator.cluster.source import Source
from orchestrator.cluster.waves import Waves
from orchestrator.engine.engine import Engine
from orchestrator.engine.records import CompletedBatch


class Cluster:
    """Runs `engines` on the requests of `source`, each routed by `router`; `waves` move those that are in lock step."""

    def __init__(self, engines: Sequence[Engine], router: Router, source: Source, waves: Sequence[Waves] = ()) -> None:
        self._engines = engines
        self._source = source
        self._departures = Departures(self._changed)
        self._front = Front(engines, router, source, self._departures, self._changed)
        self._clock = Clock([*engines, self._front, self._departures, *waves])
        for group in waves:
            group.tell(self._changed)

    @property
    def now(self) -> int:
        """The time (ns)."""
        return self._clock.now

    def run(self) -> Iterator[Told]:
        """Yield what observers are told, until nothing more happens; an engine's records in order of their ends."""
        for told in self._clock.run():
            if self._source.hear(told):
                self._clock.changed(self._front)
            yield told

    def told_until(self) -> int:
        """Return the moment (ns) before which everything has been told that ever will be."""
        # What is in flight ends, which is an event, or comes after what is waited for: else there is nothing to tell.
        moving = (engine for engine in self._engines if engine.waits or self._clock.is_awake(engine))
        awake = [engine.told_until() for engine in moving]
        untold = [one.start_ns for one in self._clock.untold if isinstance(one, CompletedBatch)]
        return min([self.now, *awake, *untold])

    def _changed(self, actor: Actor) -> None:
        self._clock.changed(actor)
