"""KV cache on its way from engines that computed it to those that go on with it.

`whole`: a decode engine that has room for a prompt fetches it from where it was computed and is kept. `layerwise`: such
an engine has the prompt computed, elsewhere, and its layers are written into its blocks one by one (`pushing`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from foundation.errors import InternalError
from foundation.records import dataclass
from orchestrator.cluster.clock import LANDS, Actor, Told
from orchestrator.cluster.peer import Peer
from orchestrator.cluster.pushing import Push
from orchestrator.cluster.resources import send
from orchestrator.engine.records import CompletedBatch, Transferred
from orchestrator.pricing.layers import LayerTimes
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request
from trace_gen.batch_shape import KVTransfer


@dataclass(slots=True, eq=False)
class _Awaited:
    """A request whose KV cache `target` will fetch from `source`, which keeps it or (layerwise) is to compute it."""

    request: Request
    source: Peer
    target: Peer


class Transfers:
    """An actor that wakes when KV cache has come, and the `Movers` of all peers.

    `layers`: the layers of each source's batches, by its number, where transfers are layerwise; else None.
    """

    def __init__(self, latency_ns: int, layers: dict[int, LayerTimes] | None = None) -> None:
        self.layers = layers
        self._latency_ns = latency_ns
        self._awaited: dict[int, _Awaited] = {}
        self._pushes: dict[int, Push] = {}
        self._under_way: list[tuple[int, int, Transferred, Peer, Peer]] = []
        self._serial = 0
        self._changed: Callable[[Actor], None]
        self._now: Callable[[], int]

    def wire(self, changed: Callable[[Actor], None], now: Callable[[], int]) -> None:
        """`changed` tells the clock of actors whose next event is another now; `now` is its time (ns)."""
        self._changed, self._now = changed, now

    def expect(self, request: Request, source: Peer, target: Peer) -> None:
        """`request` goes on at `target` with the KV cache of `source`."""
        self._awaited[request.id] = _Awaited(request, source, target)

    def forget(self, request: Request, now: int) -> None:
        """Nobody will fetch the KV cache of `request`."""
        awaited = self._awaited.pop(request.id)
        if self.layers is None:
            awaited.source.sent(request, now)
            self._changed(awaited.source.engine)

    # -- what peers ask for

    def awaits(self, request: Request, target: Peer) -> bool:
        """See `Movers`."""
        awaited = self._awaited.get(request.id)
        return awaited is not None and awaited.target is target

    def begin(self, fetches: Sequence[KVTransfer], target: Peer, now: int) -> None:
        """See `Movers`; transfers of one decision go in its order."""
        for fetch in fetches:
            awaited = self._awaited.pop(fetch.request_id)
            if self.layers is not None:
                self._have_computed(awaited, fetch, now)
                continue
            source, request = awaited.source, awaited.request
            passage = send((source.out, target.into), fetch.bytes, now, self._latency_ns)
            times = now, passage.began_ns, passage.came_ns
            self._set_out(Transferred(request, source.number, target.number, fetch.bytes, *times), source, target)

    def given_up(self, request: Request, target: Peer) -> None:
        """See `Movers`. What is under way cannot be stopped; a prompt that is being computed is given up, too."""
        push = self._pushes.get(request.id)
        if self.awaits(request, target):
            self.forget(request, self._now())
        elif push is not None and push.target is target:
            push.source.engine.abort(request, self._now())
            self._changed(push.source.engine)

    # -- what engines tell

    def computed(self, done: CompletedBatch) -> None:
        """A batch of a source has ended: its layers have been on their way since they were done."""
        if self.layers is None or not self._pushes:
            return
        batch = done.batch
        reached = (batch.context_tokens + batch.new_tokens).tolist()
        layers = None
        for request, tokens in zip(batch.requests, reached, strict=True):
            push = self._pushes.get(request.id)
            if push is not None and push.source.number == done.engine:
                layers = layers or list(self.layers[done.engine](batch))
                push.reach(tokens, done, layers, self._latency_ns)
        for request in done.outcome.handed_over:
            push = self._pushes.pop(request.id)
            source, target = push.source, push.target
            came = max(push.came_ns, done.end_ns)
            times = push.ready_ns, push.began_ns, came
            self._set_out(Transferred(request, source.number, target.number, push.bytes, *times), source, target)

    def stopped(self, request: Request, source: int, now: int) -> bool:
        """A source has given `request` up; return whether its target had, so that this tells nothing new."""
        push = self._pushes.get(request.id)
        if push is None or push.source.number != source:
            return False
        del self._pushes[request.id]
        push.target.landed(request, now)  # nothing more is written into its blocks
        self._changed(push.target.engine)
        return True

    # -- the actor

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        return (self._under_way[0][0], LANDS) if self._under_way else None

    def step(self, now: int) -> Sequence[Told]:
        """Let the next KV cache come: the one that fetched it goes on, and the one that kept it needs it no more."""
        _, _, moved, source, target = heappop(self._under_way)
        target.landed(moved.request, now)
        source.sent(moved.request, now)
        self._changed(target.engine)
        self._changed(source.engine)
        return (moved,)

    def _have_computed(self, awaited: _Awaited, fetch: KVTransfer, now: int) -> None:
        """Send a request to where its prompt is computed: there is room for it where it goes on."""
        request, source, target = awaited.request, awaited.source, awaited.target
        first = (-(-request.prompt_tokens // target.block_size) - fetch.blocks) * target.block_size
        self._pushes[request.id] = Push(request, source, target, fetch.bytes, first)
        if source.engine.submit(Admission(request), now) is not None:
            raise InternalError(f"request {request.id} is turned away where its prompt was to be computed")
        self._changed(source.engine)

    def _set_out(self, moved: Transferred, source: Peer, target: Peer) -> None:
        self._serial += 1
        heappush(self._under_way, (moved.came_ns, self._serial, moved, source, target))
        self._changed(self)
