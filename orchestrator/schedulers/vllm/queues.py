"""The two policies: who is admitted next, and who loses its place when KV blocks run out."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from orchestrator.schedulers.vllm.entry import Entry


class WaitingQueue(Protocol):
    """Requests that wait for admission, and the choice of a victim among the running ones."""

    def __len__(self) -> int: ...

    def head(self) -> Entry:
        """Return the request to be admitted next; the queue is not empty."""

    def pop(self) -> Entry:
        """Remove and return the head."""

    def add(self, entry: Entry) -> None:
        """Take in a new request."""

    def put_back(self, entry: Entry) -> None:
        """Take in a request that was preempted, or that was passed over."""

    def set_aside(self, entry: Entry) -> None:
        """Take in a request that was passed over and keeps its place before those that are put back later."""

    def remove(self, entry: Entry) -> None:
        """Drop a request that finished while it waited (its last token was in flight when it was preempted)."""

    def victim(self, running: Sequence[Entry]) -> int:
        """Return the index of the running request to be preempted; `running` is not empty."""


class FcfsQueue:
    """First come, first served: the latest admitted loses its place and gets to the front of the queue.

    Those that were set aside are before that front.
    """

    def __init__(self) -> None:
        self._aside: deque[Entry] = deque()
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._aside) + len(self._entries)

    def head(self) -> Entry:
        """Return the request to be admitted next."""
        return (self._aside or self._entries)[0]

    def pop(self) -> Entry:
        """Remove and return the head."""
        return (self._aside or self._entries).popleft()

    def add(self, entry: Entry) -> None:
        """Append a new request."""
        self._entries.append(entry)

    def put_back(self, entry: Entry) -> None:
        """Prepend a preempted request: several victims of a step end up in their original order."""
        self._entries.appendleft(entry)

    def set_aside(self, entry: Entry) -> None:
        """Prepend a request to those that were set aside."""
        self._aside.appendleft(entry)

    def remove(self, entry: Entry) -> None:
        """Drop `entry`."""
        (self._aside if entry in self._aside else self._entries).remove(entry)

    def victim(self, running: Sequence[Entry]) -> int:
        """Return the last of the running list."""
        return len(running) - 1


class PriorityQueue:
    """By (priority, arrival, id as text), lower first; the victim is the running request with the highest."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int, str, int], Entry]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def head(self) -> Entry:
        """Return the request with the lowest key."""
        return self._heap[0][1]

    def pop(self) -> Entry:
        """Remove and return the head."""
        return heapq.heappop(self._heap)[1]

    def add(self, entry: Entry) -> None:
        """Insert by key; keys are unique, so entries are never compared."""
        heapq.heappush(self._heap, (entry.key, entry))

    put_back = set_aside = add

    def remove(self, entry: Entry) -> None:
        """Drop `entry`."""
        self._heap = [pair for pair in self._heap if pair[1] is not entry]
        heapq.heapify(self._heap)

    def victim(self, running: Sequence[Entry]) -> int:
        """Return the first of those with the highest (priority, arrival); the id does not count here."""
        return max(range(len(running)), key=lambda index: running[index].key[:2])


def waiting_queue(policy: str) -> WaitingQueue:
    """Return an empty queue of `policy` (``fcfs`` or ``priority``)."""
    return PriorityQueue() if policy == "priority" else FcfsQueue()
