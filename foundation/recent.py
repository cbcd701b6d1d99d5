"""Caches of what was made recently: by key, or by the identity of the objects it was made of.

Where a fast path lives on *equal arrays being the same arrays* (a generator hands out the columns that it made before,
a lowering knows its plan by them, a backend its own), each of its links asks one of these. What is asked for again is
the very same object. `misses` counts what had to be made, so that a test, or a user who wonders, sees when the chain
broke: somebody copied an array, and everything after it is right but slow.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Keeps the `entries` values that were used last. `misses` counts how many have been made."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self.misses = 0
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of `key`, making it if needed and dropping the least recently used beyond `entries`."""
        found = self._values.get(key)
        if found is not None:
            self._values.move_to_end(key)
            return found
        self.misses += 1
        made = make()
        self._values[key] = made
        if len(self._values) > self.entries:
            self._values.popitem(last=False)
        return made


class RecentByIdentity(Generic[Value]):
    """As `Recent`, for values made of objects (arrays) that are known by being the very same ones as before.

    The objects must not be changed in place. They are kept with their value, so that no other object can come to stand
    where they were and be taken for them.
    """

    def __init__(self, entries: int) -> None:
        self._recent: Recent[tuple[tuple[object, ...], Value]] = Recent(entries)

    @property
    def misses(self) -> int:
        """How many values have been made."""
        return self._recent.misses

    def get(self, objects: Sequence[object], make: Callable[[], Value], *, key: Hashable = None) -> Value:
        """Return the value made of `objects`; `key`: what else decides it, compared by value."""
        return self._recent.get((key, *map(id, objects)), lambda: (tuple(objects), make()))[1]
