"""A cache of what was made recently, by key: what is asked for again is the very same object."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
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
