"""Memory tiers of a cluster's KV cache: what engines use which, and what comes to pass there at its time.

An engine whose scheduler takes KV cache over (vLLM's) is given a connector that writes blocks to its tier and finds
them there (`offloading`); one whose scheduler evicts whole requests moves them through it (`swapping`). Engines that
name one group share its tier, room and channels both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from foundation.records import dataclass
from orchestrator.cluster.clock import LANDS, Actor, Told
from orchestrator.cluster.offloading import OffloadingConnector
from orchestrator.cluster.resources import Port
from orchestrator.cluster.swapping import Swapping
from orchestrator.cluster.tier_link import TierLink
from orchestrator.kv_memory.second_tier import SecondTier
from orchestrator.requests.request import Request
from orchestrator.summary import TierFigures

if TYPE_CHECKING:
    from orchestrator.engine.engine import Engine
    from orchestrator.schedulers.vllm import VllmScheduler
    from orchestrator.settings.tiers import TierSettings


@dataclass(slots=True, eq=False)
class _Mover:
    """Tells one engine's scheduler what has come to pass; see `orchestrator.cluster.offloading.Mover`."""

    tiers: Tiers
    engine: Engine
    scheduler: VllmScheduler

    def at(self, time_ns: int, act: Callable[[], None]) -> None:
        """See `Mover`."""
        self.tiers.at(time_ns, act)

    def landed(self, request: Request) -> None:
        """See `Mover`."""
        self.tiers.disturb(self.engine)
        self.scheduler.landed(request)

    def sent(self, request: Request) -> None:
        """See `Mover`."""
        self.tiers.disturb(self.engine)
        self.scheduler.sent(request)


class Tiers:
    """An actor that acts when bytes have come to a tier, or from one. Links are made when an engine first asks."""

    def __init__(self) -> None:
        self._links: dict[Hashable, TierLink] = {}
        self._movers: list[_Mover] = []
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        self._changed: Callable[[Actor], None]
        self._now: Callable[[], int]

    def connector(
        self, number: int, settings: TierSettings, kind: Hashable, *, block_size: int, block_bytes: int
    ) -> OffloadingConnector:
        """Return the connector of engine `number` to its tier; `kind`: what computed its KV cache, and how."""
        return OffloadingConnector(self._link(number, settings), kind, block_size, block_bytes)

    def bind(self, connector: OffloadingConnector, engine: Engine, scheduler: VllmScheduler) -> None:
        """The engine and scheduler that `connector` is for."""
        connector.mover = _Mover(self, engine, scheduler)
        self._movers.append(connector.mover)

    def swapping(self, number: int, settings: TierSettings) -> Swapping:
        """Return what moves the evicted requests of engine `number`."""
        return Swapping(self._link(number, settings), number, self.at)

    def wire(self, changed: Callable[[Actor], None], now: Callable[[], int]) -> None:
        """`changed` tells the clock of actors whose next event is another now; `now` is its time (ns)."""
        self._changed, self._now = changed, now

    def at(self, time_ns: int, act: Callable[[], None]) -> None:
        """Do `act` at `time_ns`."""
        self._serial += 1
        heappush(self._due, (time_ns, self._serial, act))
        self._changed(self)

    def disturb(self, engine: Engine) -> None:
        """Tell an engine that what its scheduler may decide is another now; it is told of right after."""
        engine.disturb(self._now())
        self._changed(engine)

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        return (self._due[0][0], LANDS) if self._due else None

    def step(self, now: int) -> Sequence[Told]:
        """Let the next bytes come."""
        heappop(self._due)[2]()
        return ()

    def end(self) -> None:
        """Nothing more happens: what engines with nothing to do had no occasion to look for is known to them."""
        for mover in self._movers:
            mover.scheduler.settle()

    def figures(self) -> TierFigures:
        """Return what went to and from all tiers; the most that each held are summed."""
        links = list(self._links.values())
        return TierFigures(
            tiers=len(links),
            written_bytes=sum(link.written_bytes for link in links),
            loaded_bytes=sum(link.loaded_bytes for link in links),
            hit_tokens=sum(link.hit_tokens for link in links),
            evicted_blocks=sum(link.tier.evicted for link in links),
            peak_bytes=sum(link.tier.peak_bytes for link in links),
        )

    def _link(self, number: int, settings: TierSettings) -> TierLink:
        group = number if settings.kv_tier_group is None else settings.kv_tier_group
        if group not in self._links:
            rate = settings.bytes_per_s
            tier = SecondTier(settings.capacity)
            self._links[group] = TierLink(settings.kv_tier, tier, Port(rate), Port(rate), settings.latency_ns)
        return self._links[group]
