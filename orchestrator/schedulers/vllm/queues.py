"""The two policies: who is admitted next, and who loses its place when KV blocks run out."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from orchestrator.schedulers.vllm.tracked import Tracked


class WaitingQueue(Protocol):
    """Requests that wait for admission, and the choice of a victim among the running ones."""

    def __len__(self) -> int: ...

    def head(self) -> Tracked:
        """Return the request to be admitted next; the queue is not empty."""

    def pop(self) -> Tracked:
        """Remove and return the head."""

    def add(self, item: Tracked) -> None:
        """Take in a new request."""

    def put_back(self, item: Tracked) -> None:
        """Take in a request that was preempted."""

    def remove(self, item: Tracked) -> None:
        """Drop a request that finished while it waited (its last token was in flight when it was preempted)."""

    def victim(self, running: Sequence[Tracked]) -> int:
        """Return the index of the running request to be preempted; `running` is not empty."""


class FcfsQueue:
    """First come, first served: the latest admitted loses its place and gets to the front of the queue."""

    def __init__(self) -> None:
        self._items: deque[Tracked] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def head(self) -> Tracked:
        """Return the longest-waiting request."""
        return self._items[0]

    def pop(self) -> Tracked:
        """Remove and return the head."""
        return self._items.popleft()

    def add(self, item: Tracked) -> None:
        """Append a new request."""
        self._items.append(item)

    def put_back(self, item: Tracked) -> None:
        """Prepend a preempted request: several victims of a step end up in their original order."""
        self._items.appendleft(item)

    def remove(self, item: Tracked) -> None:
        """Drop `item`."""
        self._items.remove(item)

    def victim(self, running: Sequence[Tracked]) -> int:
        """Return the last of the running list."""
        return len(running) - 1


class PriorityQueue:
    """By (priority, arrival, id as text), lower first; the victim is the running request with the highest."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int, str, int], Tracked]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def head(self) -> Tracked:
        """Return the request with the lowest key."""
        return self._heap[0][1]

    def pop(self) -> Tracked:
        """Remove and return the head."""
        return heapq.heappop(self._heap)[1]

    def add(self, item: Tracked) -> None:
        """Insert by key; keys are unique, so items are never compared."""
        heapq.heappush(self._heap, (item.key, item))

    put_back = add

    def remove(self, item: Tracked) -> None:
        """Drop `item`."""
        self._heap = [entry for entry in self._heap if entry[1] is not item]
        heapq.heapify(self._heap)

    def victim(self, running: Sequence[Tracked]) -> int:
        """Return the first of those with the highest (priority, arrival); the id does not count here."""
        return max(range(len(running)), key=lambda index: running[index].key[:2])


def waiting_queue(policy: str) -> WaitingQueue:
    """Return an empty queue of `policy` (``fcfs`` or ``priority``)."""
    return PriorityQueue() if policy == "priority" else FcfsQueue()
