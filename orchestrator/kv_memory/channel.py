"""A channel that moves bytes: transfers one after another, each after the channel's latency at its full bandwidth."""

from __future__ import annotations


class Channel:
    """`bandwidth` in bytes/s, `latency_ns`. It is free at `free_ns`; what it has moved in all is counted.

    A transfer's bytes follow those of the one before without a gap; its latency is hidden behind them::

        asked for    *A    *B
        bytes        ~~[AAAAAAAA][BBBB]        ~~ latency
    """

    def __init__(self, bandwidth: float, latency_ns: int = 0) -> None:
        self.free_ns = 0
        self.moved_bytes = 0
        self.busy_ns = 0
        self._bandwidth = bandwidth
        self._latency_ns = latency_ns

    def alone_ns(self, size: int) -> int:
        """Return how long the bytes of a transfer of `size` bytes take, in whole ns, rounded up."""
        return -(-size * 10**9 // round(self._bandwidth))

    def carry(self, now: int, size: int) -> int:
        """Move `size` bytes that are there at `now`; return when (ns) the last of them has arrived."""
        begin = max(now + self._latency_ns, self.free_ns)
        takes = self.alone_ns(size)
        self.free_ns = begin + takes
        self.moved_bytes += size
        self.busy_ns += takes
        return self.free_ns
