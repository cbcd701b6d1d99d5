"""The front of a cluster: requests arrive, may wait for a retrieval, are let in or not, and are routed to engines.

Each is routed when it comes to the engines, from what they are doing at that moment, and disturbs only the engine that
it goes to. At equal times instances are started and dropped first, then retrievals end, then requests arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Protocol

from foundation.records import dataclass
from orchestrator.cluster.admission import Gate
from orchestrator.cluster.autoscaling import ScalingSettings
from orchestrator.cluster.clock import ARRIVES, Actor, OfRequests, Told
from orchestrator.cluster.departures import Departures, Patience
from orchestrator.cluster.feeding import Feed, feed_of
from orchestrator.cluster.pool import Pool
from orchestrator.cluster.retrieval import Retrieval
from orchestrator.cluster.router import Router
from orchestrator.cluster.routing import LookAhead, routed
from orchestrator.cluster.scaling import Scaling
from orchestrator.cluster.source import Left, Source
from orchestrator.engine.interface import AnyEngine
from orchestrator.engine.loops import NEVER
from orchestrator.engine.records import FRONT, CompletedBatch, Rejected, Transferred
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request


@dataclass(frozen=True, slots=True)
class FrontRules:
    """What a front does beside routing: nothing, unless it is said."""

    patience: Patience = field(default_factory=Patience)
    retrieval: Retrieval | None = None
    gate: Gate | None = None
    scaling: ScalingSettings | None = None

    @property
    def none(self) -> bool:
        """Whether nothing is done beside routing."""
        return self == FrontRules()


class Between(Protocol):
    """What is between engines, as far as the front has to do with it."""

    def goes_ahead(self, engine: AnyEngine) -> bool:
        """Whether requests that are routed to `engine` are sent on to another one before it sees them."""

    def send_ahead(self, request: Request, engine: AnyEngine, now: int) -> Rejected | None:
        """Send on a request that was routed to `engine`."""


class Front:
    """Takes requests of `source` as they come and sends each to one of `engines`, as `router` and `rules` say.

    `changed` is told of an engine or of `departures`, whose next event may be another one, and of this front itself.
    `alone`: the one engine gets nothing from anywhere else. `between`: what is between engines, if anything is.
    """

    def __init__(
        self,
        engines: Sequence[AnyEngine],
        router: Router,
        source: Source,
        rules: FrontRules,
        changed: Callable[[Actor], None],
        *,
        alone: bool,
        between: Between | None = None,
    ) -> None:
        self._engines = engines
        self._router = router
        self.source = source
        self._changed = changed
        self._gate, self._retrieval = rules.gate, rules.retrieval
        self._pool = Pool(engines)
        self.scaling: Scaling | None = None
        if rules.scaling is not None:
            self.scaling = Scaling(rules.scaling, engines, self._pool, self._more)
        self._counts = self._gate is not None or self.scaling is not None
        self.departures = Departures(rules.patience, changed, self._left, self._drop)
        self.routed_ns = 0
        """When a request was sent to an engine last."""
        self._alone = alone
        self._between = between
        self._look_ahead = LookAhead(engines)
        self._feed = feed_of(source, router, engines) if rules.none and between is None else None
        self._expect()

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        time = self.coming_ns()
        if self.scaling is not None:
            time = min(time, self.scaling.next_ns())
        return None if time == NEVER else (time, ARRIVES)

    def step(self, now: int) -> Sequence[Told]:
        """Do one thing that is due at `now`."""
        if self.scaling is not None and self.scaling.next_ns() <= now:
            self.scaling.step(now)
            return ()
        if self._retrieval is not None and self._retrieval.next_ns() <= now:
            retrieved = self._retrieval.take(now)
            return () if retrieved is None else self._send(retrieved, now)
        if self._feed is not None:
            return self._fill(self._feed)
        return self._arrive(now) if self.source.next_ns() <= now else ()

    def hear(self, told: OfRequests) -> None:
        """Take note of what has become of requests."""
        if isinstance(told, Transferred):
            return
        over = told.outcome.finished if isinstance(told, CompletedBatch) else (told.request,)
        if over and self.departures.forget(over):
            self._changed(self.departures)
        if self._counts:
            self._pool.hear(told)
            if self.scaling is not None and told.engine != FRONT:
                self.scaling.hear(told.engine, told.end_ns if isinstance(told, CompletedBatch) else told.now)
        if self.source.hear(told):
            self._more_came()

    def _fill(self, feed: Feed) -> Sequence[Told]:
        """Hand many requests over at once."""
        feed.step()
        for engine in self._engines:
            engine.expect(feed.next_ns())
            self._changed(engine)
        return ()

    def _arrive(self, now: int) -> Sequence[Told]:
        admission = self.source.take()
        if self.departures.expect(admission.request, now):
            self._changed(self.departures)
        if self._retrieval is None:
            return self._send(admission, now)
        self._retrieval.submit(admission, now)
        self._changed(self)
        return ()

    def _send(self, admission: Admission, now: int) -> Sequence[Told]:
        """Route a request that is let in."""
        request = admission.request
        reason = None if self._gate is None else self._gate.refuses(request, now, self._pool)
        if reason is not None:
            return (Rejected(FRONT, request, now, reason),)
        engine = self._pool.engines[routed(self._router, request, now, self._pool.engines)]
        self.routed_ns = now
        if self._between is not None and self._between.goes_ahead(engine):
            rejected = self._between.send_ahead(request, engine, now)
        else:
            rejected = engine.submit(admission, now)
            if rejected is None:
                self.departures.sent(request, engine)
        if rejected is None and self._counts:
            self._pool.sent(request, engine)
        self._expect(engine, now)
        self._changed(engine)
        return () if rejected is None else (rejected,)

    def _expect(self, engine: AnyEngine | None = None, now: int = 0) -> None:
        """Tell how far it is worth working ahead: one engine alone until the next arrival, each of several its own."""
        following = self.coming_ns()
        if self._alone:
            self._engines[0].expect(following)
        elif engine is not None:
            self._look_ahead.arrived(engine, now, more=following != NEVER)
            for other in self._engines if following == NEVER else ():
                if other.lazy:
                    other.expect(NEVER)
                    self._changed(other)

    @property
    def engines(self) -> Sequence[AnyEngine]:
        """The engines that requests are routed to now."""
        return self._pool.engines

    def coming_ns(self) -> int:
        """Return when the next request comes here or to the engines, as far as is known (ns)."""
        time = self.source.next_ns() if self._feed is None else self._feed.next_ns()
        return time if self._retrieval is None else min(time, self._retrieval.next_ns())

    def _more(self) -> bool:
        """Whether anything is to happen without a look at the instances; what has stalled is not helped by one."""
        if self.coming_ns() != NEVER or self.departures.next_event() is not None:
            return True
        return any(engine.next_event() is not None for engine in self._engines)

    def _left(self, request: Request, now: int) -> None:
        if self.source.hear(Left(request, now)):
            self._more_came()

    def _drop(self, request: Request) -> None:
        assert self._retrieval is not None  # nowhere else does a request wait before it reaches an engine
        self._retrieval.drop(request)

    def _more_came(self) -> None:
        self._expect()
        self._changed(self)
