"""What MEM_LOAD and MEM_STORE cost: latency plus size by bandwidth, and who waits for whom.

Source: AnalyticalRemoteMemory.cc. An NPU's own expansion serves it alone; a node's expansion and the pool serve one
transaction at a time, in order of their coming.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from analytical.machine.event_queue import Action, LocalEvents
from astra_files.memory import RemoteMemoryConfig

_Transaction = tuple[LocalEvents, int, Action, Any]


def transfer_ns(memory: RemoteMemoryConfig, size: int) -> int:
    """Return the ns of a transaction of `size` bytes."""
    return memory.remote_mem_latency + int(float(size) / float(memory.remote_mem_bw))


class _Server:
    """A memory that serves one transaction at a time."""

    def __init__(self, memory: RemoteMemoryConfig) -> None:
        self._memory = memory
        self._busy = False
        self._waiting: deque[_Transaction] = deque()

    def issue(self, transaction: _Transaction) -> None:
        if self._busy:
            self._waiting.append(transaction)
        else:
            self._start(transaction)

    def _start(self, transaction: _Transaction) -> None:
        self._busy = True
        events, size, action, argument = transaction
        runtime = transfer_ns(self._memory, size)
        events.after(runtime, action, argument)
        events.after(runtime, self._served, None)

    def _served(self, _: None) -> None:
        if self._waiting:
            self._start(self._waiting.popleft())
        else:
            self._busy = False


class RemoteMemory:
    """The remote memory of all NPUs."""

    def __init__(self, memory: RemoteMemoryConfig) -> None:
        self._memory = memory
        self._servers: dict[int, _Server] = {}

    def issue(self, rank: int, events: LocalEvents, size: int, action: Action, argument: Any) -> None:
        """Transfer `size` bytes for `rank` and call ``action(argument)`` when done."""
        kind = self._memory.memory_type
        if kind == "PER_NPU_MEMORY_EXPANSION":
            events.after(transfer_ns(self._memory, size), action, argument)
            return
        node = 0 if kind == "MEMORY_POOL" else rank // self._memory.num_npus_per_node
        server = self._servers.get(node)
        if server is None:
            server = self._servers[node] = _Server(self._memory)
        server.issue((events, size, action, argument))
