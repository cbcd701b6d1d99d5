"""KV memory with prefix caching as SGLang's: a pool of pages, and a radix tree that says what those hold that stay.

    available        protected | evictable        held by requests alone
    [ free pages ] [     in the tree      ] [ from the prefix they share to their room ]

A request locks the prefix that it found, and has pages of its own from there on. What it has computed enters the tree
(`register`): its own pages become the tree's, and those that the tree had already are free. When it ends, all that it
computed stays behind, until pages are short: then leaves are evicted, the least recently used first, but never more is
asked to go than is wanted (a leaf goes whole). One that will come back leaves nothing behind, for its room is wanted at
once.

Tokens whose ids are not known are those of nobody else; only the request itself finds them again.

Layers with a sliding window keep all tokens. Where layers form several groups, a page is a block of each.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InternalError
from orchestrator.kv_memory.blocks import KVBlocks
from orchestrator.kv_memory.groups import FULL, LayerGroup
from orchestrator.kv_memory.holder import Holder
from orchestrator.kv_memory.prefix_chain import known_tokens
from orchestrator.kv_memory.radix_cohort import RadixCohort
from orchestrator.kv_memory.radix_tree import Node, RadixTree
from orchestrator.kv_memory.store import Hit, KVSpace
from trace_gen.batch_shape import KVTransfer

IntArray = NDArray[np.int64]
_MOST_TOKENS = 2**32
"""Of a request."""


class Prefix(NamedTuple):
    """What a request found: where it ends in the tree, and its tokens."""

    leaf: Node
    tokens: int


class RadixKV(KVBlocks):
    """See the module's docstring. `available` and what the tree holds are in tokens, whole pages of `block_size`.

    `shares` False: nothing is kept of requests that ended, and nothing is found.
    """

    def __init__(self, space: KVSpace, groups: Sequence[LayerGroup] = (FULL,), *, shares: bool = True) -> None:
        super().__init__(space, (FULL,) * len(groups))
        self.caches_prefixes = shares
        self.total = space.total_blocks // len(groups) * len(groups)
        self.capacity = space.total_blocks // len(groups) * space.block_size
        self.available = self.capacity
        self.tree = RadixTree(space.block_size)

    # -- the contract of orchestrator.kv_memory.store.KVStore

    @property
    def free(self) -> int:
        """Blocks that can be taken now, those with findable contents included."""
        return self.reachable // self.block_size * len(self.groups)

    def lookup(self, holder: Holder, tokens: int) -> Hit:
        """Return the longest prefix found of the first `tokens` tokens; the last of them is computed anew."""
        return Hit((), self.match(holder, tokens - 1).tokens)

    def fits(self, holder: Holder, hit: Hit, tokens: int) -> bool:
        """Whether `tokens` tokens, `hit` included, would find room now."""
        prefix = self.match(holder, hit.tokens)
        more = self._aligned_up(tokens) - prefix.tokens
        return more <= self.reachable - self.tree.idle(prefix.leaf)

    def admit(self, holder: Holder, hit: Hit, tokens: int) -> bool:
        """Lock the prefix of `hit` before there is room made for more, so that it is not evicted for that."""
        self.hold(holder, self.match(holder, hit.tokens))
        if self.grow(holder, tokens):
            return True
        self.let_go(holder)
        return False

    def need(self, holder: Holder, tokens: int) -> int:
        """Return how many free blocks it takes to have `tokens` tokens of the request on the device."""
        return len(self.groups) * max(0, self.columns(tokens) - holder.room // self.block_size) + holder.away

    def grow(self, holder: Holder, tokens: int) -> bool:
        """Give the request room for `tokens` tokens, or return False."""
        more = self._aligned_up(tokens) - holder.room
        if more <= 0:
            return True
        if more > self.reachable:
            return False
        self.make_available(more)
        self.take(more)
        holder.room += more
        return True

    def register(self, holder: Holder, tokens: int) -> None:
        """Put the first `tokens` tokens of a request into the tree, and lock them there."""
        if not self.caches_prefixes:
            return
        self._keep(holder, tokens)
        prefix = self.match(holder, tokens)
        self._unlock(holder)
        self.tree.lock(prefix.leaf)
        holder.leaf, holder.shared = prefix

    def release(self, holder: Holder, *, resumes: bool = False) -> None:
        """Take all pages from the request; what it computed stays in the tree, unless it `resumes`."""
        if self.caches_prefixes and holder.room and not (resumes or holder.away):
            self._keep(holder, min(holder.computed, holder.tokens))
        self.available += 0 if holder.away else holder.room - holder.shared
        self._unlock(holder)
        holder.room = holder.away = 0
        if not resumes:
            holder.ids = None

    def held(self, holder: Holder) -> int:
        """Return the blocks that the request holds on the device, those that it shares included."""
        return 0 if holder.away else holder.room // self.block_size * len(self.groups)

    def swap_out(self, holder: Holder) -> KVTransfer:
        """Move all of the request to host memory."""
        blocks, room = self.held(holder), holder.room
        self.release(holder, resumes=True)
        holder.room, holder.away = room, blocks
        return self._transfer(holder, blocks)

    def swap_in(self, holder: Holder) -> KVTransfer:
        """Move the request back to the device, into pages of its own; there must be room for them."""
        blocks, room = holder.away, holder.room
        holder.away = holder.room = 0
        if not self.grow(holder, room):
            raise InternalError(f"request {holder.request.id} reloads {blocks} blocks into {self.free} free ones")
        return self._transfer(holder, blocks)

    def cohort(self, holders: Sequence[Holder]) -> RadixCohort:
        """Return the pages of requests that decode together from now on."""
        return RadixCohort(self, holders)

    # -- what SGLang asks beyond that: searching, holding and making room are its own decisions

    @property
    def reachable(self) -> int:
        """Tokens that can be taken now, evicting what nobody has locked."""
        return self.available + self.tree.evictable

    def match(self, holder: Holder, tokens: int) -> Prefix:
        """Return the longest prefix in the tree of the request's first `tokens` tokens, which counts as used."""
        if not self.caches_prefixes:
            return Prefix(self.tree.root, 0)
        return Prefix(*self.tree.match(self.ids(holder, tokens), holder.request.adapter))

    def hold(self, holder: Holder, prefix: Prefix) -> None:
        """Give a request that holds nothing what it found."""
        self.tree.lock(prefix.leaf)
        holder.leaf, holder.shared = prefix
        holder.room = prefix.tokens

    def peek(self, holder: Holder, tokens: int, gone: Set[Node] = frozenset()) -> int:
        """Return how many of the request's first `tokens` tokens are in the tree, but for what will be `gone`."""
        return self.tree.peek(self.ids(holder, tokens), holder.request.adapter, gone) if self.caches_prefixes else 0

    def let_go(self, holder: Holder) -> None:
        """Undo `hold`."""
        self._unlock(holder)
        holder.room = 0

    def make_available(self, tokens: int) -> bool:
        """Evict `tokens` tokens if fewer are available; return whether there are enough then."""
        if self.available < tokens:
            self.available += self.tree.evict(tokens)
        return self.available >= tokens

    def take(self, tokens: int) -> None:
        """Take `tokens` available tokens, whole pages, whose owners are noted elsewhere."""
        if tokens > self.available:
            raise InternalError(f"{tokens} tokens of KV cache taken where {self.available} are available")
        self.available -= tokens

    def ids(self, holder: Holder, tokens: int) -> IntArray:
        """Return what stands for the request's first `tokens` tokens: their ids, or negative numbers of its own."""
        if holder.ids is None or len(holder.ids) < tokens:
            length = max(tokens, holder.request.prompt_tokens)
            known = np.array(known_tokens(holder.request)[:length], dtype=np.int64)
            own = -1 - holder.serial * _MOST_TOKENS - np.arange(len(known), length, dtype=np.int64)
            holder.ids = np.concatenate((known, own))
        return holder.ids[:tokens]

    def _keep(self, holder: Holder, tokens: int) -> None:
        """Let the tree have the first `tokens` tokens, whole pages; those that it had already become available."""
        whole = tokens // self.block_size * self.block_size
        if whole < holder.shared:
            return
        had = self.tree.insert(self.ids(holder, whole), holder.request.adapter)
        self.available += had - holder.shared
        holder.shared = whole

    def _unlock(self, holder: Holder) -> None:
        if holder.leaf is not None:
            self.tree.unlock(holder.leaf)
        holder.leaf, holder.shared = None, 0

    def _aligned_up(self, tokens: int) -> int:
        return self.columns(tokens) * self.block_size
