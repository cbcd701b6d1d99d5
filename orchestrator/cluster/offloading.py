"""A second tier of KV cache behind a vLLM scheduler: what is computed is written there, and found there again.

As vLLM's `OffloadingConnector` (0.19, vllm/distributed/kv_transfer/kv_connector/v1/offloading_connector.py): full
blocks, by the hashes of their contents; those found in the tier beyond the ones on the device are loaded while others
compute, whatever it would cost to compute them instead. A prompt's blocks are written when they have been computed,
those of its answer when it is complete (vLLM writes them as they fill up). Blocks of a finished request stay taken
until they are written; those of one that loses its place do not. Contents whose token ids are not known are found by
the request itself only, after it has lost its place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import field
from functools import partial
from typing import Protocol

from foundation.records import dataclass
from orchestrator.cluster.tier_link import TierLink
from orchestrator.requests.request import Request
from orchestrator.schedulers.vllm.connector import NO_MATCH, KVConnector, Match
from orchestrator.schedulers.vllm.entry import Entry, Status
from trace_gen.batch_shape import KVTransfer


class Mover(Protocol):
    """Does at a later time what a connector asks for, and tells its scheduler what has come to pass."""

    def at(self, time_ns: int, act: Callable[[], None]) -> None:
        """Do `act` at `time_ns`, before requests that arrive then."""

    def landed(self, request: Request) -> None:
        """What `request` fetched is in its blocks."""

    def sent(self, request: Request) -> None:
        """The blocks of `request`, which has finished, are read."""


@dataclass(slots=True, eq=False)
class _Part:
    """A request's part in the tier: what it reads, how many leading blocks it has handed over, and writes under way."""

    request: Request
    reads: list[Hashable] = field(default_factory=list)
    handed: int = 0
    writes: int = 0
    over: bool = False


class OffloadingConnector(KVConnector):
    """See the module's docstring. `kind`: what contents mean, beside their tokens; blocks are of `block_size` tokens
    and `block_bytes` over all ranks. `mover` is set before the first decision.
    """

    writes = True
    mover: Mover

    def __init__(self, link: TierLink, kind: Hashable, block_size: int, block_bytes: int) -> None:
        self._link = link
        self._kind = kind
        self._block_size = block_size
        self._block_bytes = block_bytes
        self._parts: dict[int, _Part] = {}
        self._handed: list[tuple[Request, list[Hashable]]] = []

    def matched(self, entry: Entry, local_tokens: int) -> Match:
        """See `KVConnector.matched`. A lone token is computed anew in any case."""
        if entry.tokens == 1:
            return NO_MATCH
        contents = self._contents(entry, range(local_tokens // self._block_size, entry.tokens // self._block_size))
        found = self._link.tier.found(contents)
        return Match(found * self._block_size, asynchronous=True) if found else NO_MATCH

    def took(self, entry: Entry, local_tokens: int, tokens: int) -> KVTransfer | None:
        """See `KVConnector.took`."""
        if not tokens:
            return None
        first, count = local_tokens // self._block_size, tokens // self._block_size
        part = self._part(entry)
        part.reads = list(self._contents(entry, range(first, first + count)))
        part.handed = max(part.handed, first + count)
        self._link.tier.read(part.reads)
        self._link.hit_tokens += tokens
        return KVTransfer(entry.request.id, count, tokens, count * self._block_bytes, self._link.name)

    def start(self, fetches: Sequence[KVTransfer], now: int) -> None:
        """See `KVConnector.start`."""
        for fetch in fetches:
            part = self._parts[fetch.request_id]
            came_ns = self._link.load(fetch.bytes, now).came_ns
            self.mover.at(came_ns, partial(self._landed, part.request, part.reads))

    def computed(self, entry: Entry, tokens: int) -> None:
        """See `KVConnector.computed`: a prompt's full blocks are written."""
        self._hand_over(entry, min(tokens, entry.request.prompt_tokens) // self._block_size)

    def finished(self, entry: Entry, *, aborted: bool) -> bool:
        """See `KVConnector.finished`. One that lost its place while its last token came has nothing to hand over."""
        if not aborted and entry.status is Status.RUNNING:
            self._hand_over(entry, min(entry.tokens - 1, entry.computed - entry.in_flight) // self._block_size)
        part = self._parts.get(entry.request.id)
        if part is None:
            return False
        part.over = part.writes > 0
        if not part.over:
            del self._parts[entry.request.id]
        return part.over

    def flush(self, now: int) -> None:
        """See `KVConnector.flush`: what was handed over sets out."""
        handed, self._handed = self._handed, []
        for request, contents in handed:
            came_ns = self._link.write(len(contents) * self._block_bytes, now).came_ns
            self.mover.at(came_ns, partial(self._written, request, contents))

    def _hand_over(self, entry: Entry, blocks: int) -> None:
        """Write the blocks of `entry` up to `blocks` for which there is room, and that nobody has written yet."""
        part = self._part(entry)
        new = self._contents(entry, range(part.handed, blocks))
        part.handed = max(part.handed, blocks)
        coming = self._link.tier.reserve(new, self._block_bytes)
        if coming:
            part.writes += 1
            self._handed.append((entry.request, coming))

    def _part(self, entry: Entry) -> _Part:
        return self._parts.setdefault(entry.request.id, _Part(entry.request))

    def _contents(self, entry: Entry, blocks: range) -> Iterator[Hashable]:
        """Yield what some of the blocks of `entry` hold."""
        for place in blocks:
            known = place < entry.known_blocks
            yield (self._kind, entry.chain.hash(place) if known and entry.chain else (entry.request.id, place))

    def _landed(self, request: Request, contents: Sequence[Hashable]) -> None:
        self._link.tier.done(contents)
        self.mover.landed(request)

    def _written(self, request: Request, contents: Sequence[Hashable]) -> None:
        self._link.tier.arrived(contents)
        part = self._parts[request.id]
        part.writes -= 1
        if part.over and not part.writes:
            del self._parts[request.id]
            self.mover.sent(request)
