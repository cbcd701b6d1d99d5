"""The free list of device KV blocks: which block is taken next. Knows nothing of requests or token contents.

Blocks are numbered from 0. As in vLLM, block 0 is the null block that padding points to and is never handed out,
so a pool of ``num_blocks`` holds ``num_blocks - 1`` usable ones.

The list is a queue: blocks never used yet come in ascending order, then freed ones in the order in which they came
back. Blocks that were never used need no entry, which keeps a large pool cheap::

    taken from here ->  [ reused first: stack ] [ never used: first..last ] [ freed: oldest .. newest ]

The stack on the left is filled only by a pool that gives back some blocks to the front (`LifoSharedBlockPool`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence, Set
from itertools import islice

from foundation.errors import InternalError


class BlockPool:
    """The free list; freed blocks go to the back of the queue."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.usable = num_blocks - 1
        self.free = self.usable
        self._first: list[int] = []
        self._unused = 1
        self._freed: OrderedDict[int, None] = OrderedDict()

    def take(self, count: int) -> list[int]:
        """Remove and return the next `count` blocks; the caller has checked that `free` suffices."""
        if count > self.free:
            raise InternalError(f"{count} KV blocks taken where {self.free} are free")
        self.free -= count
        if not self._first:
            start = self._unused
            if start == self.num_blocks:
                pop = self._freed.popitem
                return [pop(False)[0] for _ in range(count)]
            if start + count <= self.num_blocks:
                self._unused += count
                return list(range(start, start + count))
        return [self._next() for _ in range(count)]

    def order(self) -> list[int]:
        """Return the free blocks in the order in which they would be taken (for checks; O(free))."""
        return [*reversed(self._first), *range(self._unused, self.num_blocks), *self._freed]

    def _next(self) -> int:
        if self._first:
            return self._first.pop()
        if self._unused < self.num_blocks:
            self._unused += 1
            return self._unused - 1
        return self._freed.popitem(False)[0]


class SharedBlockPool(BlockPool):
    """A pool whose blocks several owners may hold and whose free blocks keep the hash of their content (vLLM 0.19).

    `references[block]` counts the owners of each block that was ever used. A block without owners is free but stays
    findable under its hash until `take` hands it out again; `adopt` takes it off the free list before that happens.
    """

    def __init__(self, num_blocks: int) -> None:
        super().__init__(num_blocks)
        self.references = [0]
        self._hash_of: list[object | None] = [None]
        self._holders: dict[object, int | dict[int, None]] = {}

    def take(self, count: int) -> list[int]:
        """Remove and return the next `count` blocks; their old contents can no longer be found."""
        blocks = super().take(count)
        references, hash_of = self.references, self._hash_of
        fresh = self._unused - len(references)
        if fresh:
            references.extend([0] * fresh)
            hash_of.extend([None] * fresh)
        for block in blocks:
            references[block] = 1
            if hash_of[block] is not None:
                self._forget(block)
        return blocks

    def adopt(self, blocks: Iterable[int]) -> None:
        """Add an owner to each of `blocks`, taking those without one off the free list."""
        for block in blocks:
            if self.references[block] == 0:
                del self._freed[block]
                self.free -= 1
            self.references[block] += 1

    def give_back(self, blocks: Sequence[int], findable: Sequence[int] = ()) -> None:
        """Drop one owner of each block, given in block order; those left without one are free, the last one first.

        `findable` are those of them whose contents only their owner would look for, so that they were not registered.
        """
        references = self.references
        idle: list[int] = []
        for place in range(len(blocks) - 1, -1, -1):
            block = blocks[place]
            count = references[block] - 1
            if count < 0:
                raise InternalError(f"KV block {block} is freed more often than it was taken")
            references[block] = count
            if count == 0:
                idle.append(block)
        self.free += len(idle)
        self._enqueue(idle, findable)

    def register(self, block: int, content: object) -> None:
        """Make `block` findable under the hash of its `content`. Equal contents may exist several times."""
        if self._hash_of[block] is not None:
            raise InternalError(f"KV block {block} is registered twice")
        self._hash_of[block] = content
        holders = self._holders.get(content)
        if holders is None:
            self._holders[content] = block
        elif isinstance(holders, dict):
            holders[block] = None
        else:
            self._holders[content] = {holders: None, block: None}

    def find(self, content: object, lost: Set[int] = frozenset()) -> int | None:
        """Return the block registered first among those that hold `content` and are not `lost`, or None."""
        holders = self._holders.get(content)
        if lost and holders is not None:
            blocks = holders if isinstance(holders, dict) else (holders,)
            return next((block for block in blocks if block not in lost), None)
        return next(iter(holders)) if isinstance(holders, dict) else holders

    def lost_by_taking(self, count: int) -> Set[int]:
        """Return those of the next `count` blocks whose contents can still be found: they come after all others."""
        others = len(self._first) + self.num_blocks - self._unused
        return frozenset(islice(self._freed, count - others)) if count > others else frozenset()

    def content_of(self, block: int) -> object | None:
        """Return the hash under which `block` is registered, or None."""
        return self._hash_of[block] if block < self._unused else None

    def _enqueue(self, idle: Sequence[int], findable: Sequence[int]) -> None:
        freed = self._freed
        for block in idle:
            freed[block] = None

    def _forget(self, block: int) -> None:
        content = self._hash_of[block]
        self._hash_of[block] = None
        holders = self._holders[content]
        if isinstance(holders, dict) and len(holders) > 1:
            del holders[block]
        else:
            del self._holders[content]


class LifoSharedBlockPool(SharedBlockPool):
    """As `SharedBlockPool`, but freed blocks that nobody could find go to the front of the queue (vLLM 0.33)."""

    def _enqueue(self, idle: Sequence[int], findable: Sequence[int]) -> None:
        hashes, kept = self._hash_of, set(findable)
        kept.update(block for block in idle if hashes[block] is not None)
        super()._enqueue([block for block in idle if block in kept], findable)
        self._first.extend([block for block in reversed(idle) if block not in kept])
