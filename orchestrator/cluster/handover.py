"""Prefill/decode disaggregation: requests whose prompts one engine computes and that another one goes on with.

    whole       arrival --router--> prefill engine computes the prompt --decode router--> decode engine has room
                --the link--> its KV cache is there, the prefill engine's blocks go
    layerwise   arrival --router, decode router--> decode engine has room --> prefill engine computes the prompt, and
                its layers go over the link meanwhile --> its KV cache is there, the prefill engine's blocks go

What the client sees is as vLLM's proxies do it (tests/v1/kv_connector/nixl_integration/toy_proxy_server.py): the prompt
is sent to the prefill engine for one token, which is thrown away; the decode engine answers from the first token on. So
the time to the first token ends where the decode engine has computed the prompt's last token anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from orchestrator.cluster.clock import ARRIVES, Actor, Told
from orchestrator.cluster.departures import Departures
from orchestrator.cluster.peer import Peer
from orchestrator.cluster.router import Router
from orchestrator.cluster.routing import LookAhead, routed
from orchestrator.cluster.transfers import Transfers
from orchestrator.engine.records import CompletedBatch, Rejected
from orchestrator.requests.admission import Admission
from orchestrator.requests.request import Request


class Handover:
    """Sends requests on to `decoders`, as `router` says: when their prompts are computed, or before (`ahead`)."""

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
        self._due: deque[tuple[int, Request, Peer]] = deque()

    def hear(self, done: CompletedBatch, source: Peer) -> None:
        """Take note of whose prompts were computed by a batch of `source`, which has just ended."""
        self._due.extend((done.end_ns, request, source) for request in done.outcome.handed_over)
        self._changed(self)

    def ahead(self, request: Request, source: Peer, now: int) -> Rejected | None:
        """Send a request that has arrived, and whose prompt `source` will compute, to a decode engine at once."""
        return source.engine.turned_away(request, now) or self._send_on(request, source, now)

    def next_event(self) -> tuple[int, int] | None:
        """See `Actor`."""
        return (self._due[0][0], ARRIVES) if self._due else None

    def step(self, now: int) -> Sequence[Told]:
        """Send the next request on."""
        _, request, source = self._due.popleft()
        rejected = self._send_on(request, source, now)
        return () if rejected is None else (rejected,)

    def _send_on(self, request: Request, source: Peer, now: int) -> Rejected | None:
        peer = self._decoders[routed(self._router, request, now, self._engines)]
        self._transfers.expect(request, source, peer)
        rejected = peer.engine.submit(Admission(request), now)
        if rejected is not None:
            self._transfers.forget(request, now)
        else:
            self._departures.sent(request, peer.engine)
        self._look_ahead.arrived(peer.engine, now)
        self._changed(peer.engine)
        return rejected
