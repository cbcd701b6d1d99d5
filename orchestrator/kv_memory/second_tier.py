"""KV blocks beyond device memory, found by their contents: those used least recently make room for others.

A tier knows blocks by the hash of all tokens up to their end (`orchestrator.kv_memory.prefix_chain`), whoever computed
them, and under a `kind`, which says what computed them: engines with another model, numbers or block size find nothing
of each other. Blocks that are on their way in are not found yet; those that are being read, or written, stay.

    absent --reserve--> coming --arrived--> there <--read / done--> read by n
                           |                  |
                           +---- dropped -----+----> evicted by reserve, when nobody reads it
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import field

from foundation.errors import InternalError
from foundation.records import dataclass

Content = Hashable
COMING = -1


@dataclass(slots=True)
class SecondTier:
    """See the module's docstring. `capacity` in bytes; `None`: without end. Blocks of several kinds differ in size."""

    capacity: int | None
    held_bytes: int = 0
    peak_bytes: int = 0
    evicted: int = 0
    _readers: OrderedDict[Content, int] = field(default_factory=OrderedDict)
    _bytes: dict[Content, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._readers)

    def found(self, contents: Iterable[Content]) -> int:
        """Return how many of the first `contents` are there, one after another; what is found was used just now."""
        count = 0
        for content in contents:
            if self._readers.get(content, COMING) == COMING:
                break
            self._readers.move_to_end(content)
            count += 1
        return count

    def read(self, contents: Sequence[Content]) -> None:
        """Begin to read blocks that are there: they stay until `done`."""
        for content in contents:
            if self._readers.get(content, COMING) == COMING:
                raise InternalError("a KV block is read from a tier that does not hold it")
            self._readers[content] += 1

    def done(self, contents: Sequence[Content]) -> None:
        """Somebody has read blocks."""
        for content in contents:
            self._readers[content] -= 1

    def reserve(self, contents: Iterable[Content], block_bytes: int) -> list[Content]:
        """Make room for those of `contents` that are neither there nor coming, and return these, which come now.

        Blocks that nobody reads go for them, the least recently used first; when there are no more, the rest of
        `contents` finds no room.
        """
        coming = []
        for content in contents:
            if content in self._readers:
                self._readers.move_to_end(content)
                continue
            if not self._room_for(block_bytes):
                break
            self._readers[content] = COMING
            self._bytes[content] = block_bytes
            self.held_bytes += block_bytes
            self.peak_bytes = max(self.peak_bytes, self.held_bytes)
            coming.append(content)
        return coming

    def arrived(self, contents: Iterable[Content]) -> None:
        """Blocks that were coming can be found from now on."""
        for content in contents:
            if self._readers.get(content) != COMING:
                raise InternalError("a KV block arrives at a tier that does not await it")
            self._readers[content] = 0

    def drop(self, contents: Iterable[Content]) -> None:
        """Forget blocks, be they coming or there."""
        for content in contents:
            del self._readers[content]
            self.held_bytes -= self._bytes.pop(content)

    def _room_for(self, block_bytes: int) -> bool:
        """Evict blocks until there is room for one more of `block_bytes`, or return False and evict nothing."""
        if self.capacity is None:
            return True
        missing = self.held_bytes + block_bytes - self.capacity
        going = []
        for content, readers in self._readers.items():
            if missing <= 0:
                break
            if readers == 0:
                going.append(content)
                missing -= self._bytes[content]
        if missing > 0:
            return False
        self.drop(going)
        self.evicted += len(going)
        return True
