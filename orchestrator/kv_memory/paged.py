"""KV memory in blocks, taken on demand as a request's tokens grow, with whole requests swapped to host memory.

    tokens   0 1 2 3 | 4 5 6 7 | 8            block_size 4, 9 tokens: 3 blocks held, 3 slots free in the last
    block    first     second    third

A block stands for `block_size` tokens of every layer on every rank of the instance; `block_bytes` is their sum.
Host memory is unlimited. Nothing here decides who goes: that is the scheduler's job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundation.errors import InternalError
from orchestrator.request import Request
from trace_gen.batch_shape import KVTransfer


@dataclass(frozen=True, slots=True)
class KVSpace:
    """The device's room for KV blocks: how many, tokens a block, and bytes a block summed over all ranks.

    `max_model_len` (tokens; None: not limited) is the longest sequence that is accepted.
    """

    total_blocks: int
    block_size: int
    block_bytes: int
    max_model_len: int | None = None


class PagedKV:
    """Demand paging (``--kv_manage vllm``): a request holds the blocks that its tokens fill, no more."""

    def __init__(self, space: KVSpace) -> None:
        self.space = space
        self.free_blocks = space.total_blocks
        self._device: dict[int, int] = {}
        self._host: dict[int, int] = {}

    def blocks_for(self, request: Request, tokens: int) -> int:
        """Return how many blocks `request` occupies while `tokens` tokens are in its cache."""
        return -(-tokens // self.space.block_size)

    def need(self, request: Request, tokens: int) -> int:
        """Return how many free blocks `request` needs to have `tokens` tokens on the device."""
        return self.blocks_for(request, tokens) - self._device.get(request.id, 0)

    def take(self, request: Request, tokens: int) -> None:
        """Give `request` the blocks that `need` counted; there must be enough free ones."""
        need = self.need(request, tokens)
        if need > self.free_blocks or request.id in self._host:
            raise InternalError(f"request {request.id} takes {need} blocks of {self.free_blocks} free ones")
        if need > 0:
            self.free_blocks -= need
            self._device[request.id] = self._device.get(request.id, 0) + need

    def release(self, request: Request) -> None:
        """Free the blocks of a finished request."""
        self.free_blocks += self._device.pop(request.id)

    def on_device(self, request: Request) -> int:
        """Return the blocks that `request` holds on the device."""
        return self._device.get(request.id, 0)

    def on_host(self, request: Request) -> int:
        """Return the blocks that `request` has in host memory."""
        return self._host.get(request.id, 0)

    def evict(self, request: Request) -> KVTransfer:
        """Move all blocks of `request` to host memory."""
        blocks = self._device.pop(request.id)
        self.free_blocks += blocks
        self._host[request.id] = blocks
        return self._transfer(request, blocks)

    def reload(self, request: Request) -> KVTransfer:
        """Move the blocks of `request` back to the device; there must be room for them."""
        blocks = self._host.pop(request.id)
        if blocks > self.free_blocks:
            raise InternalError(f"request {request.id} reloads {blocks} blocks into {self.free_blocks} free ones")
        self.free_blocks -= blocks
        self._device[request.id] = blocks
        return self._transfer(request, blocks)

    def steps_that_fit(self, tokens: Sequence[int], most: int) -> int:
        """Return how many of `most` further steps, one token a request each, the free blocks allow.

        `tokens` are in the cache already. After j steps every request has taken ``j // block_size`` blocks, and
        one more where its last block had fewer than ``j % block_size`` slots left.
        """
        size = self.space.block_size
        filled = (np.asarray(tokens, dtype=np.int64) - 1) % size + 1

        def grown(steps: int) -> int:
            whole, rest = divmod(steps, size)
            return whole * len(tokens) + int(np.count_nonzero(filled + rest > size))

        if grown(most) <= self.free_blocks:
            return most
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if grown(middle) <= self.free_blocks else (low, middle)
        return low

    def unfit(self, request: Request, peak_tokens: int) -> str | None:
        """Return why `request`, which grows to `peak_tokens`, can never run (one clause, both sizes), or None."""
        longest = self.space.max_model_len
        if longest is not None and peak_tokens > longest:
            return f"the request grows to {peak_tokens} tokens, the limit (max_model_len) is {longest}"
        blocks = self.blocks_for(request, peak_tokens)
        if blocks > self.space.total_blocks:
            size, total = self.space.block_bytes, self.space.total_blocks
            return (
                f"the request needs {blocks} KV blocks ({blocks * size / 1e9:.2f} GB), "
                f"the memory left beside the weights holds {total} ({total * size / 1e9:.2f} GB)"
            )
        return None

    def _transfer(self, request: Request, blocks: int) -> KVTransfer:
        tokens = blocks * self.space.block_size
        return KVTransfer(request.id, blocks, tokens, blocks * self.space.block_bytes)
