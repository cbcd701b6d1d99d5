"""Token ids of a prompt of which only the hashes of its blocks are known: made up, and alike where the hashes are.

    hashes of blocks of 4 tokens     7              2              9
    ids                              28 29 30 31    8  9  10 11    36 37

Two prompts have equal ids at a place iff the blocks around it have the same hash. So whatever compares token ids (a
prefix cache with blocks of any size, a radix tree, a router) finds what it would find by real ones, as far as hashes
tell: two blocks that differ count as different from their first token on.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import overload

MOST_HASH = 2**47 - 1
MOST_BLOCK = 2**16
"""Tokens of a block: an id must fit into 64 bits."""


class HashedTokens(Sequence[int]):
    """The ids of the `tokens` tokens of a prompt, whose blocks of `block` tokens have `hashes`; made when asked for."""

    __slots__ = ("_block", "_hashes", "_tokens")

    def __init__(self, hashes: Sequence[int], block: int, tokens: int) -> None:
        self._hashes, self._block, self._tokens = hashes, block, tokens

    def __len__(self) -> int:
        return self._tokens

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> array[int]: ...

    def __getitem__(self, place: int | slice) -> int | array[int]:
        if isinstance(place, int):
            at = range(self._tokens)[place]
            return self._hashes[at // self._block] * self._block + at % self._block
        start, stop, step = place.indices(self._tokens)
        if step != 1:
            return self[:][place]
        number, offset = divmod(start, self._block)
        if start < stop <= (number + 1) * self._block:  # as blocks of a cache mostly are
            first = self._hashes[number] * self._block + offset
            return array("q", range(first, first + stop - start))
        ids = array("q")
        for part in self._runs(start, stop):
            ids.extend(part)
        return ids

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._runs(0, self._tokens))

    def _runs(self, start: int, stop: int) -> Iterator[range]:
        """Yield the ids from `start` to `stop` - 1, those of a block together."""
        size = self._block
        while start < stop:
            number, offset = divmod(start, size)
            first = self._hashes[number] * size
            yield range(first + offset, first + min(size, stop - number * size))
            start = (number + 1) * size
