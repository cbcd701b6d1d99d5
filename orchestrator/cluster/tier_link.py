"""A tier of KV cache beyond device memory together with the way to it, as all engines that use it share them."""

from __future__ import annotations

from foundation.records import dataclass
from orchestrator.cluster.resources import Passage, Port, send
from orchestrator.kv_memory.second_tier import SecondTier


@dataclass(slots=True, eq=False)
class TierLink:
    """`name`: the tier's kind; one port a direction; `latency_ns` takes no port. Bytes and tokens count for figures.

    `hit_tokens`: of prefixes that were found in the tier and loaded.
    """

    name: str
    tier: SecondTier
    reading: Port
    writing: Port
    latency_ns: int = 0
    written_bytes: int = 0
    loaded_bytes: int = 0
    hit_tokens: int = 0

    def load(self, amount: int, ready_ns: int) -> Passage:
        """Move bytes out of the tier, from `ready_ns` on at the earliest."""
        self.loaded_bytes += amount
        return send((self.reading,), amount, ready_ns, self.latency_ns)

    def write(self, amount: int, ready_ns: int) -> Passage:
        """Move bytes into the tier, from `ready_ns` on at the earliest."""
        self.written_bytes += amount
        return send((self.writing,), amount, ready_ns, self.latency_ns)
