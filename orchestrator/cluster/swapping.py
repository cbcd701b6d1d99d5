"""Whole requests that a policy evicts from device memory and loads again, moved through a tier that engines share.

A batch waits for what it moves. Its evictions leave first, because what follows goes into their blocks, then its loads
come; each takes the tier's channel after what was asked for before, by whichever engine::

    decided   *
    writing   [evicted A][evicted B]
    reading                         [loaded C]~~ latency
    batch                                       [computes ...

(vLLM's v0 worker does both in turn as well, on the stream of the kernels: 0.6, vllm/worker/worker.py,
`execute_worker`.) A tier without room for what is evicted ends the run, as v0 aborts for lack of CPU swap space
(vllm/core/scheduler.py, `_swap_out`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial

from foundation.errors import SimulationError
from orchestrator.cluster.tier_link import TierLink
from orchestrator.engine.batch import Batch
from orchestrator.requests.request import Request
from trace_gen.batch_shape import KVTransfer

Later = Callable[[int, Callable[[], None]], None]


class Swapping:
    """See the module's docstring. `later` does something at a time (ns); `number` is the engine's."""

    def __init__(self, link: TierLink, number: int, later: Later) -> None:
        self._link = link
        self._number = number
        self._later = later
        self._there_ns: dict[int, int] = {}

    def move(self, batch: Batch, now: int) -> int:
        """Move what `batch`, decided at `now`, evicts and loads; return when (ns) it may begin to compute."""
        ready = now
        for eviction in batch.kv_evictions:
            ready = max(ready, self._evict(eviction, now))
        comes = [self._load(load, ready) for load in batch.kv_loads]
        return max([ready, *comes])

    def forget(self, requests: Sequence[Request]) -> None:
        """Give back the room of requests that are gone, as far as they are away."""
        for request in requests:
            if self._there_ns.pop(request.id, None) is not None:
                self._drop(request.id)

    def _evict(self, eviction: KVTransfer, now: int) -> int:
        """Return when what is evicted has left."""
        number = eviction.request_id
        if not self._link.tier.reserve([self._content(number)], eviction.bytes):
            tier = self._link.tier
            raise SimulationError(
                f"the KV tier ({self._link.name}) has no room for {eviction.bytes / 1e9:.3f} GB that request {number} "
                f"was evicted with: {tier.held_bytes / 1e9:.3f} of {(tier.capacity or 0) / 1e9:.3f} GB are taken; "
                "give a larger --kv_tier_size"
            )
        passage = self._link.write(eviction.bytes, now)
        self._there_ns[number] = passage.came_ns
        return passage.left_ns

    def _load(self, load: KVTransfer, ready_ns: int) -> int:
        """Return when what is loaded has come; its room is free from then on."""
        there_ns = self._there_ns.pop(load.request_id)
        came_ns = self._link.load(load.bytes, max(ready_ns, there_ns)).came_ns
        self._later(came_ns, partial(self._drop, load.request_id))
        return came_ns

    def _drop(self, number: int) -> None:
        self._link.tier.drop([self._content(number)])

    def _content(self, number: int) -> Hashable:
        return ("swapped", self._number, number)
