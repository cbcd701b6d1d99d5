"""A cluster some of whose engines compute prompts only: who has which role, and what is between them.

Requests come to engines of the roles `both` and `prefill`; those of `prefill` hand them over, to engines of the roles
`decode` and `both`. A request that comes to an engine of the role `both` is served there to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from orchestrator.cluster.clock import Actor, Told
from orchestrator.cluster.departures import Departures
from orchestrator.cluster.handover import Handover
from orchestrator.cluster.peer import Peer
from orchestrator.cluster.resources import Port
from orchestrator.cluster.router import Router
from orchestrator.cluster.transfers import Transfers
from orchestrator.engine.engine import Engine
from orchestrator.engine.interface import AnyEngine
from orchestrator.engine.records import Aborted, CompletedBatch, Rejected
from orchestrator.pricing.layers import LayerTimes
from orchestrator.requests.request import Request

if TYPE_CHECKING:
    from orchestrator.settings.engine import Role


class Disaggregation:
    """See the module's docstring. Every engine is a peer, made (`peer`) before its scheduler, whose connector it is.

    `layerwise`: layers of KV cache leave while a prompt is computed; else all of it once that is done.
    """

    def __init__(self, router: Router, latency_ns: int, *, layerwise: bool = False) -> None:
        self._router = router
        self._layers: dict[int, LayerTimes] = {}
        self._transfers = Transfers(latency_ns, self._layers if layerwise else None)
        self._peers: dict[int, tuple[Role, Peer]] = {}
        self._handover: Handover

    def peer(
        self, number: int, role: Role, *, block_size: int, block_bytes: int, bytes_per_s: int, layers: LayerTimes
    ) -> Peer:
        """Return the connector of engine `number`, whose network cards move so many bytes/s in each direction."""
        ports = Port(bytes_per_s), Port(bytes_per_s)
        peer = Peer(number, role == "prefill", block_size, block_bytes, self._transfers, *ports)
        self._peers[number] = role, peer
        self._layers[number] = layers
        return peer

    def entered(self) -> list[Engine]:
        """Return the engines that requests come to, in their order."""
        return [peer.engine for role, peer in self._in_order() if role != "decode"]

    def actors(
        self, departures: Departures, changed: Callable[[Actor], None], now: Callable[[], int]
    ) -> Sequence[Actor]:
        """Return what acts between the engines."""
        self._transfers.wire(changed, now)
        decoders = [peer for role, peer in self._in_order() if role != "prefill"]
        self._handover = Handover(decoders, self._router, self._transfers, departures, changed)
        return self._handover, self._transfers

    def goes_ahead(self, engine: AnyEngine) -> bool:
        """Whether requests that are routed to `engine` are sent on to another one before it sees them."""
        return engine.hands_over and self._transfers.layers is not None

    def send_ahead(self, request: Request, engine: AnyEngine, now: int) -> Rejected | None:
        """Send on a request that was routed to `engine`."""
        return self._handover.ahead(request, self._peers[engine.number][1], now)

    def hear(self, told: Told) -> bool:
        """Take note of what was told at this moment; False: it is an echo of something that was told before."""
        if isinstance(told, Aborted):
            return not self._transfers.stopped(told.request, told.engine, told.now)
        if isinstance(told, CompletedBatch) and self._peers[told.engine][1].hands_over:
            self._transfers.computed(told)
            if self._transfers.layers is None and told.outcome.handed_over:
                self._handover.hear(told, self._peers[told.engine][1])
        return True

    def end(self) -> None:
        """Nothing more happens: what engines with nothing to do had no occasion to look for is known to them."""
        for _, peer in self._peers.values():
            peer.scheduler.settle()

    def _in_order(self) -> list[tuple[Role, Peer]]:
        return [self._peers[number] for number in sorted(self._peers)]
