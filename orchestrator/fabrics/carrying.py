"""How ASTRA-sim's own formula is made to take a curve's time: the machine, and the bytes that collectives are said to have.

Collectives stay collectives, so that ranks wait for each other as they did. On the machine that `carrying_system` makes
(one chunk, sent directly to all others at once, reduced in no time) a collective over n ranks that are one link apart
takes, of ranks that enter together::

    all_gather          20 ns + D(bytes)              D(m) = trunc(latency of the way + m / bandwidth)
    all_to_all,
    reduce_scatter      20 ns + D(bytes / n)
    all_reduce          30 ns + 2 D(bytes / n)

(`endpoint-delay` is 10 ns, twice or three times.) The link's figures are those that messages between stages need; what
is chosen is the bytes. D reaches every ns from the link's latency on where a byte takes less than one, so that each time
of a curve comes out to the ns, an all-reduce's to 1 ns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from astra_files.network import NetworkConfig
from astra_files.system import COLLECTIVES as IMPLEMENTED
from astra_files.system import SystemConfig
from converters.execution_graph import CollectiveType
from orchestrator.fabrics.fabric import COLLECTIVES, Fabric

IntArray = NDArray[np.int64]
ENDPOINT_DELAY_NS = 10
REDUCING_GB_S = 1e12
"""`local-mem-bw`: what reducing takes is in the curve. Nothing else asks for it where durations are given."""
LEAST_BYTES_PER_NS = 2.0
_SOONEST = 0.25
"""Of a ns: how far behind the start of its ns a message arrives, so that truncation finds it there."""
NAMES = {
    CollectiveType.ALL_REDUCE: COLLECTIVES[0],
    CollectiveType.ALL_GATHER: COLLECTIVES[1],
    CollectiveType.REDUCE_SCATTER: COLLECTIVES[2],
    CollectiveType.ALL_TO_ALL: COLLECTIVES[3],
}
_HOPS = {"FullyConnected": 1, "Switch": 2}


def carrying_system(system: SystemConfig) -> SystemConfig:
    """Return `system` with the algorithms, the chunks and the reduction whose formula can be inverted."""
    return replace(
        system,
        endpoint_delay=ENDPOINT_DELAY_NS,
        preferred_dataset_splits=1,
        local_mem_bw=REDUCING_GB_S,
        implementations=dict.fromkeys(IMPLEMENTED, ("direct",)),
    )


@dataclass(frozen=True, slots=True)
class CarriedCurves:
    """The curves of `fabric` on links of `bytes_per_ns` and `way_ns` (all hops), in a system of `npus` ranks."""

    fabric: Fabric
    bytes_per_ns: float
    way_ns: float
    npus: int

    @classmethod
    def on(cls, network: NetworkConfig, fabric: Fabric) -> CarriedCurves:
        """Return the curves on the innermost dimension of a network."""
        hops = _HOPS.get(network.topology[0], 0)
        return cls(fabric, network.bytes_per_ns[0], hops * network.latency[0], network.npus)

    def obstacle(self, collective: CollectiveType, ranks: int) -> str:
        """Return why the times of `collective` over `ranks` cannot be reached, "" where they can."""
        name = NAMES[collective]
        if said := self.fabric.lacks(name, ranks):
            return said
        if self.bytes_per_ns < LEAST_BYTES_PER_NS:
            return f"a link of {self.bytes_per_ns:g} GB/s is too slow to tell nanoseconds apart"
        soonest = self._soonest_ns(collective, ranks)
        least = self.fabric.least_ns(name, ranks)
        if least < soonest:
            return f"{name} of {self.fabric.name} takes {least} ns, and a link's latency alone lets it take {soonest}"
        return ""

    def sizes(self, collective: CollectiveType, ranks: int, sizes: IntArray) -> IntArray:
        """Return the `comm_size`s with which collectives of `sizes` (as a trace has them) take the curve's time."""
        name = NAMES.get(collective)
        if name is None:
            return sizes  # a broadcast takes no time on the network
        gathers = collective is CollectiveType.ALL_GATHER
        wanted = self.fabric.times_ns(name, ranks, sizes * ranks if gathers else sizes)
        rounds = _rounds(collective)
        delay = (wanted - (rounds + 1) * ENDPOINT_DELAY_NS + rounds // 2) // rounds
        message = np.ceil((delay + _SOONEST - self.way_ns) * self.bytes_per_ns).astype(np.int64)
        result: IntArray = message if gathers else message * ranks
        return result

    def _soonest_ns(self, collective: CollectiveType, ranks: int) -> int:
        """Return the time of the fewest bytes that ASTRA-sim lets a collective have: one for each rank of the system."""
        message = 1 if collective is CollectiveType.ALL_GATHER else -(-self.npus // ranks)
        rounds = _rounds(collective)
        delay = int(self.way_ns + message / self.bytes_per_ns) + 1
        return (rounds + 1) * ENDPOINT_DELAY_NS + rounds * delay


def _rounds(collective: CollectiveType) -> int:
    return 2 if collective is CollectiveType.ALL_REDUCE else 1
