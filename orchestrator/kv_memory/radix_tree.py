"""A radix tree of token ids: which prefixes are in the KV cache, who needs them, and which of them goes first.

A node stands for a run of pages, its path from the root for a prefix::

    "the cat sat", "the cat ran"         root - "the cat " - "sat"
                                                           - "ran"

A prefix that ends inside a node splits it. Who needs a prefix locks its path; leaves that nobody has locked can be
evicted, the one first that was found or written least recently. After SGLang 0.5.5 (`mem_cache/radix_cache.py`): a node
that a search passes counts as used, one that it splits in both parts.
"""

from __future__ import annotations

import heapq
from collections.abc import Set
from itertools import count

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InternalError

IntArray = NDArray[np.int64]
_First = tuple[str | None, bytes]
_NONE = np.empty(0, dtype=np.int64)


class Node:
    """A run of token ids `key`, whole pages, below `parent`, which finds it by its `first` page.

    `locks`: how many need it; `used`: when it was used last. One that was evicted has no parent.
    """

    __slots__ = ("children", "first", "key", "locks", "parent", "used")

    def __init__(self, key: IntArray, first: _First, parent: Node | None, used: int) -> None:
        self.key = key
        self.first = first
        self.parent = parent
        self.used = used
        self.locks = 0
        self.children: dict[_First, Node] = {}


class RadixTree:
    """See the module's docstring. Sizes are in tokens, keys are cut to whole pages of `page` tokens.

    `evictable` tokens are locked by nobody, `protected` ones by somebody. Prefixes of different `space`, the name of an
    adapter, have nothing in common.
    """

    def __init__(self, page: int = 1) -> None:
        self._page = page
        self._clock = count()
        self._pushes = count()
        self.root = Node(_NONE, (None, b""), None, next(self._clock))
        self.evictable = 0
        self.protected = 0
        self._leaves: list[tuple[int, int, Node]] = []

    def match(self, key: IntArray, space: str | None = None) -> tuple[Node, int]:
        """Return the node that the longest prefix of `key` in the tree ends at, and its length."""
        node, found, _ = self._walk(key[: len(key) // self._page * self._page], space)
        return node, found

    def peek(self, key: IntArray, space: str | None = None, gone: Set[Node] = frozenset()) -> int:
        """Return the length of the longest prefix of `key` in the tree, which does not count as used.

        `gone` are nodes that will not be there.
        """
        key = key[: len(key) // self._page * self._page]
        node, found = self.root, 0
        while len(key):
            child = node.children.get(self._first(key, space))
            if child is None or child in gone:
                break
            same = _same(child.key, key) // self._page * self._page
            found, key = found + same, key[same:]
            if same < len(child.key):
                break
            node = child
        return found

    def leaves(self) -> list[tuple[int, int, Node]]:
        """Return a copy of the notes by which leaves are evicted, a heap: when it was used, a serial, the node."""
        return list(self._leaves)

    def insert(self, key: IntArray, space: str | None = None) -> int:
        """Put `key` into the tree; return how much of it had been there."""
        key = key[: len(key) // self._page * self._page]
        node, found, rest = self._walk(key, space)
        if len(rest):
            leaf = Node(rest, self._first(rest, space), node, next(self._clock))
            node.children[leaf.first] = leaf
            self.evictable += len(rest)
            self._offer(leaf)
        return found

    def lock(self, node: Node) -> None:
        """Keep the path to `node` from being evicted."""
        while node.parent is not None:
            if not node.locks:
                self.evictable -= len(node.key)
                self.protected += len(node.key)
            node.locks += 1
            node = node.parent

    def unlock(self, node: Node) -> None:
        """Undo one `lock`."""
        while node.parent is not None:
            if not node.locks:
                raise InternalError("a prefix is given up more often than it was taken")
            node.locks -= 1
            if not node.locks:
                self.evictable += len(node.key)
                self.protected -= len(node.key)
                self._offer(node)
            node = node.parent

    def idle(self, node: Node) -> int:
        """Return how many tokens on the path to `node` nobody has locked."""
        tokens = 0
        while node.parent is not None:
            tokens += 0 if node.locks else len(node.key)
            node = node.parent
        return tokens

    def evict(self, tokens: int) -> int:
        """Evict leaves until `tokens` tokens or more are gone, or nothing is left to go; return how many are."""
        gone = 0
        while gone < tokens and self._leaves:
            used, _, node = heapq.heappop(self._leaves)
            if node.children or node.locks or node.parent is None:
                continue  # it is offered again when that has changed
            if used < node.used:
                self._offer(node)
                continue
            gone += len(node.key)
            self._remove(node, node.parent)
        return gone

    def _walk(self, key: IntArray, space: str | None) -> tuple[Node, int, IntArray]:
        """Follow `key`; return where it ends, how much of it is there, and the rest."""
        now = next(self._clock)
        node, found = self.root, 0
        while len(key):
            child = node.children.get(self._first(key, space))
            if child is None:
                break
            child.used = now
            same = _same(child.key, key) // self._page * self._page
            node = child if same == len(child.key) else self._split(child, node, same)
            found, key = found + same, key[same:]
            if node is not child:
                break
        return node, found, key

    def _split(self, node: Node, parent: Node, length: int) -> Node:
        """Make two nodes of one below `parent`; return the upper one, of `length` tokens."""
        upper = Node(node.key[:length], node.first, parent, next(self._clock))
        upper.locks = node.locks
        parent.children[upper.first] = upper
        node.key, node.parent = node.key[length:], upper
        node.first = self._first(node.key, node.first[0])
        upper.children[node.first] = node
        return upper

    def _remove(self, node: Node, parent: Node) -> None:
        del parent.children[node.first]
        node.parent = None
        self.evictable -= len(node.key)
        self._offer(parent)

    def _offer(self, node: Node) -> None:
        """Note a node that may be evicted, if it is one. Older notes of it stay where they are, and count for less."""
        if not node.children and not node.locks and node.parent is not None:
            heapq.heappush(self._leaves, (node.used, next(self._pushes), node))

    def _first(self, key: IntArray, space: str | None) -> _First:
        return space, key[: self._page].tobytes()


def _same(one: IntArray, other: IntArray) -> int:
    """Return the length of what both begin with."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    first = int(differs.argmax())
    return first if differs[first] else length
