"""Device KV memory as the scheduler sees it: room for a request's tokens, or None when there is none.

The scheduler asks in tokens and never sees the pool. What else may hold KV (host memory, a second-tier cache,
another instance) is a `KVCache` of its own: `lookup` says what is already computed, `admit` and `grow` make
room, `release` decides where the blocks go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestrator.kv_memory.block_pool import BlockPool, LifoBlockPool, LifoSharedBlockPool, SharedBlockPool
from orchestrator.schedulers.vllm.config import VllmSchedulerConfig
from orchestrator.schedulers.vllm.tracked import Tracked


@dataclass(frozen=True, slots=True)
class Hit:
    """KV blocks found for a request's first `tokens` tokens; `idle` of them have no owner and count as free."""

    blocks: list[int]
    tokens: int
    idle: int


NO_HIT = Hit([], 0, 0)


class KVCache(Protocol):
    """Blocks of `block_size` tokens. Running out is a return value (None or False), never an error."""

    block_size: int
    caches_prefixes: bool

    @property
    def free(self) -> int:
        """Blocks that can be taken now, those with findable contents included."""

    def lookup(self, item: Tracked, tokens: int) -> Hit:
        """Return the longest run of blocks that hold the first of `item`'s `tokens` tokens, the last excepted."""

    def fits(self, hit: Hit, tokens: int) -> bool:
        """Whether `tokens` tokens, `hit` included, would find room now. Nothing is reserved."""

    def admit(self, item: Tracked, hit: Hit, tokens: int) -> list[int] | None:
        """Give `item`, which holds nothing, the blocks of `hit` and new ones up to `tokens`; return the new ones."""

    def grow(self, item: Tracked, tokens: int) -> list[int] | None:
        """Give a running `item` room for `tokens` tokens; return the new blocks, or None if they do not exist."""

    def register(self, item: Tracked, tokens: int) -> None:
        """Make every full block within the first `tokens` tokens findable by requests with the same prefix."""

    def release(self, item: Tracked) -> None:
        """Take all blocks from `item`."""


class PlainKVCache:
    """Every block has one owner and nothing is ever found: prefix caching is off."""

    caches_prefixes = False

    def __init__(self, pool: BlockPool, block_size: int) -> None:
        self.pool = pool
        self.block_size = block_size

    @property
    def free(self) -> int:
        """Blocks that can be taken now."""
        return self.pool.free

    def lookup(self, item: Tracked, tokens: int) -> Hit:
        """Return no hit."""
        return NO_HIT

    def fits(self, hit: Hit, tokens: int) -> bool:
        """Whether `tokens` tokens would find room now."""
        return self._missing(hit, tokens) <= self.pool.free

    def admit(self, item: Tracked, hit: Hit, tokens: int) -> list[int] | None:
        """Give `item` its first blocks, or return None."""
        if self._missing(hit, tokens) > self.pool.free:
            return None
        item.next_full = self.block_size
        return self.grow(item, tokens)

    def grow(self, item: Tracked, tokens: int) -> list[int] | None:
        """Give `item` room for `tokens` tokens, or return None and change nothing."""
        count = -((item.room - tokens) // self.block_size)
        if count <= 0:
            return []
        if count > self.pool.free:
            return None
        blocks = self.pool.take(count)
        item.blocks += blocks
        item.room += count * self.block_size
        return blocks

    def register(self, item: Tracked, tokens: int) -> None:
        """Do nothing: contents are not remembered."""

    def release(self, item: Tracked) -> None:
        """Free `item`'s blocks, the last one first."""
        self.pool.give_back(item.blocks)
        item.blocks = []
        item.room = 0

    def _missing(self, hit: Hit, tokens: int) -> int:
        """Free blocks that `tokens` tokens take up; an idle hit leaves the free list, so it counts as well."""
        return -(-tokens // self.block_size) - len(hit.blocks) + hit.idle


class PrefixKVCache(PlainKVCache):
    """Prefix caching: full blocks are found by the hash of everything up to their end, while free ones last."""

    caches_prefixes = True
    pool: SharedBlockPool

    def __init__(self, pool: SharedBlockPool, block_size: int) -> None:
        super().__init__(pool, block_size)

    def lookup(self, item: Tracked, tokens: int) -> Hit:
        """Walk the chain to its first miss. The last token is always computed anew: its logits are needed."""
        most = (tokens - 1) // self.block_size
        assert item.chain is not None
        find = self.pool.find
        blocks: list[int] = []
        for index in range(most):
            block = find(item.chain.hashes(index + 1)[index])
            if block is None:
                break
            blocks.append(block)
        if not blocks:
            return NO_HIT
        references = self.pool.references
        idle = sum(references[block] == 0 for block in blocks)
        return Hit(blocks, len(blocks) * self.block_size, idle)

    def admit(self, item: Tracked, hit: Hit, tokens: int) -> list[int] | None:
        """Take over the blocks of `hit` before new ones are taken, so that these cannot evict those."""
        if self._missing(hit, tokens) > self.pool.free:
            return None
        self.pool.adopt(hit.blocks)
        item.blocks = list(hit.blocks)
        item.room = hit.tokens
        item.next_full = hit.tokens + self.block_size
        return self.grow(item, tokens)

    def register(self, item: Tracked, tokens: int) -> None:
        """Register the blocks that became full since the last call, in block order."""
        size = self.block_size
        assert item.chain is not None
        while item.next_full <= tokens:
            index = item.next_full // size - 1
            self.pool.register(item.blocks[index], item.chain.hashes(index + 1)[index])
            item.next_full += size


def kv_cache(config: VllmSchedulerConfig) -> KVCache:
    """Return an empty cache of `config`'s size, kind and version."""
    blocks, size = config.num_gpu_blocks, config.block_size
    lifo = config.version != "0.19"
    if config.enable_prefix_caching:
        return PrefixKVCache((LifoSharedBlockPool if lifo else SharedBlockPool)(blocks), size)
    return PlainKVCache((LifoBlockPool if lifo else BlockPool)(blocks), size)
