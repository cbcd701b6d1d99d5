"""Prefill/decode disaggregation: requests whose prompts one engine computes and that another one goes on with.

    arrival --router--> prefill engine computes the prompt --decode router--> decode engine waits for blocks
    decode engine has blocks --the link--> its KV cache is there, the prefill engine's blocks go

As vLLM's proxies do it (0.19, tests/v1/kv_connector/nixl_integration/toy_proxy_server.py): the prompt is sent to the
prefill engine for one token, which is thrown away; the decode engine answers from the first token on, and that is what
the client sees. So the time to the first token ends where the decode engine has computed the prompt's last token anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from foundation.errors import InternalError
from orchestrator.cluster.clock import ARRIVES, LANDS, Actor, Told
from orchestrator.cluster.front import Departures, LookAhead, routed
from orchestrator.cluster.peer import Peer
from orchestrator.cluster.resources import send
from orchestrator.cluster.router import Router
from orchestrator.engine.records import CompletedBatch, Transferred
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from trace_gen.batch_shape import KVTransfer


@dataclass(slots=True, eq=False)
class _Kept:
    """A request whose KV cache is kept at `source` until `target` has it."""

    request: Request
    source: Peer
    target: Peer | None = None


class Transfers:
    """KV cache on its way: an actor that wakes when some has come, and the `Movers` of all peers.

    `changed`: told of actors whose next event is another now.
    """

    def __init__(self, latency_ns: int) -> None:
        self._latency_ns = latency_ns
        self._kept: dict[int, _Kept] = {}
        self._under_way: list[tuple[int, int, Transferred, _Kept]] = []
        self._serial = 0
        self._changed: Callable[[Actor], None]
        self._now: Callable[[], int]

    def wire(self, changed: Callable[[Actor], None], now: Callable[[], int]) -> None:
        """`changed` and `now` are the clock's."""
        self._changed, self._now = changed, now

    def keep(self, request: Request, source: Peer) -> None:
        """The prompt of `request` is computed; `source` keeps its blocks until they are read."""
        self._kept[request.id] = _Kept(request, source)

    def go(self, request: Request, target: Peer) -> None:
        """`request` goes on at `target`."""
        self._kept[request.id].target = target

    def drop(self, request: Request, now: int) -> None:
        """Nobody will fetch the KV cache of `request`."""
        kept = self._kept.pop(request.id)
        kept.source.sent(request, now)
        self._changed(kept.source.engine)

    def awaits(self, request: Request, target: Peer) -> bool:
        """See `Movers`."""
        kept = self._kept.get(request.id)
        return kept is not None and kept.target is target

    def begin(self, fetches: Sequence[KVTransfer], target: Peer, now: int) -> None:
        """See `Movers`; transfers of one decision go in its order."""
        for fetch in fetches:
            kept = self._kept.pop(fetch.request_id)
            source = kept.source
            passage = send((source.out, target.into), fetch.bytes, now, self._latency_ns)
            times = now, passage.began_ns, passage.came_ns
            moved = Transferred(kept.request, source.number, target.number, fetch.bytes, *times)
            self._serial += 1
            heappush(self._under_way, (passage.came_ns, self._serial, moved, kept))
        self._changed(self)

    def given_up(self, request: Request, target: Peer) -> None:
        """See `Movers`. What is under way cannot be stopped."""
        if self.awaits(request, target):
            self.drop(request, self._now())

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        return (self._under_way[0][0], LANDS) if self._under_way else None

    def step(self, now: int) -> Sequence[Told]:
        """Let the next KV cache come: the one that fetched it goes on, and the one that kept it needs it no more."""
        _, _, moved, kept = heappop(self._under_way)
        if kept.target is None:
            raise InternalError(f"KV cache of request {moved.request.id} has come to nobody")
        kept.target.landed(moved.request, now)
        kept.source.sent(moved.request, now)
        self._changed(kept.target.engine)
        self._changed(kept.source.engine)
        return (moved,)

    def idle(self) -> bool:
        """Whether nothing is kept, or under way."""
        return not (self._kept or self._under_way)


class Handover:
    """Sends requests whose prompts are computed to one of `decoders`, as `router` says when they are."""

    def __init__(
        self,
        decoders: Sequence[Peer],
        router: Router,
        transfers: Transfers,
        departures: Departures,
        changed: Callable[[Actor], None],
    ) -> None:
        self._decoders = decoders
        self._engines = [peer.engine for peer in decoders]
        self._router = router
        self._transfers = transfers
        self._departures = departures
        self._changed = changed
        self._look_ahead = LookAhead(self._engines)
        self._due: deque[tuple[int, Request]] = deque()

    def hear(self, done: CompletedBatch, source: Peer) -> None:
        """Take note of whose prompts were computed by a batch of `source`, which has just ended."""
        for request in done.outcome.handed_over:
            self._transfers.keep(request, source)
            self._due.append((done.end_ns, request))
        if done.outcome.handed_over:
            self._changed(self)

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        return (self._due[0][0], ARRIVES) if self._due else None

    def step(self, now: int) -> Sequence[Told]:
        """Send the next request on."""
        request = self._due.popleft()[1]
        peer = self._decoders[routed(self._router, request, now, self._engines)]
        self._transfers.go(request, peer)
        rejected = peer.engine.submit(Admission(request), now)
        if rejected is not None:
            self._transfers.drop(request, now)
        elif self._departures.expect(request, peer.engine, now):
            self._changed(self._departures)
        self._look_ahead.arrived(peer.engine, now)
        self._changed(peer.engine)
        return () if rejected is None else (rejected,)
