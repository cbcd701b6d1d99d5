"""An engine among others that KV cache is moved between: its network cards, and the connector of its scheduler.

The connector is vLLM's `NixlConnector` on the scheduler's side (0.19, .../v1/nixl_connector.py): an engine that hands
requests over keeps their blocks until they are read; an engine that takes them over fetches the whole prompt as soon
as it has blocks for it, and only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from foundation.records import dataclass
from orchestrator.cluster.resources import Port
from orchestrator.requests.request import Request
from orchestrator.schedulers.vllm.connector import NO_MATCH, KVConnector, Match
from trace_gen.batch_shape import KVTransfer

if TYPE_CHECKING:
    from orchestrator.engine.engine import Engine
    from orchestrator.schedulers.vllm import VllmScheduler
    from orchestrator.schedulers.vllm.entry import Entry


class Movers(Protocol):
    """Who moves KV cache between peers."""

    def awaits(self, request: Request, target: Peer) -> bool:
        """Whether KV cache of `request` is to be fetched by `target`, and has not been yet."""

    def begin(self, fetches: Sequence[KVTransfer], target: Peer, now: int) -> None:
        """`target` has room for what it fetches, and wants it."""

    def given_up(self, request: Request, target: Peer) -> None:
        """The client of `request` has gone, which `target` was to take over, or has."""


@dataclass(slots=True, eq=False)
class Peer(KVConnector):
    """See the module's docstring. `block_bytes`: of a block, over all ranks; `hands_over`: it computes prompts only."""

    number: int
    hands_over: bool
    block_size: int
    block_bytes: int
    movers: Movers
    out: Port
    into: Port
    engine: Engine = field(init=False)
    scheduler: VllmScheduler = field(init=False)

    def bind(self, engine: Engine, scheduler: VllmScheduler) -> None:
        """The engine and scheduler that this is the connector of."""
        self.engine, self.scheduler = engine, scheduler

    def landed(self, request: Request, now: int) -> None:
        """What the engine fetched has come."""
        self.engine.disturb(now)
        self.scheduler.landed(request)

    def sent(self, request: Request, now: int) -> None:
        """The engine's blocks of a request that it handed over are read."""
        self.engine.disturb(now)
        self.scheduler.sent(request)

    def matched(self, entry: Entry, local_tokens: int) -> Match | None:
        """See `KVConnector`: the whole prompt."""
        if not self.movers.awaits(entry.request, self):
            return NO_MATCH
        return Match(entry.request.prompt_tokens - local_tokens, asynchronous=True)

    def took(self, entry: Entry, local_tokens: int, tokens: int) -> KVTransfer | None:
        """See `KVConnector`: whole blocks are moved, those found here excepted."""
        if not tokens:
            return None
        blocks = -(-(local_tokens + tokens) // self.block_size) - local_tokens // self.block_size
        moved = blocks * self.block_size, blocks * self.block_bytes
        return KVTransfer(entry.request.id, blocks, *moved, tier="engine")

    def start(self, fetches: Sequence[KVTransfer], now: int) -> None:
        """See `KVConnector`."""
        self.movers.begin(fetches, self, now)

    def finished(self, entry: Entry, *, aborted: bool) -> bool:
        """See `KVConnector`."""
        if aborted:
            self.movers.given_up(entry.request, self)
        return self.hands_over and not aborted
