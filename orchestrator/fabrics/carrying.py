"""How ASTRA-sim's own formula is made to take a curve's time: how collectives are run, and the bytes they are given.

Collectives stay collectives, so that ranks wait for each other as they did. As `carrying_system` says it (one chunk,
sent to all others at once, reduced in no time), ranks that enter together over one dimension of n leave after ::

    all_gather                        20 ns + D(bytes)         D(m) = trunc(latency of the way + m / bandwidth)
    all_to_all, reduce_scatter        20 ns + D(bytes / n)
    all_reduce                        30 ns + 2 D(bytes / n)

(10 ns are the endpoint's delay.) Over several dimensions ASTRA-sim does one after another: an all-reduce scatters on
all but the last, reduces there, and gathers on the way back. All messages of a collective are multiples of one, m::

    T(m) = rounds x 10 ns + sum of weight x D(multiple x m)

so that a size is found for each time, to 1 ns for one dimension, and 2 ns for several. The links' figures are left as
they are: messages between stages need them. Dimensions are named, never groups: ASTRA-sim lets a group run the only
algorithm that is configured, and frees it twice where a rank is in two such groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from astra_files.network import NetworkConfig
from astra_files.system import COLLECTIVES as IMPLEMENTED
from astra_files.system import SystemConfig
from converters.execution_graph import CollectiveType
from foundation.records import dataclass
from orchestrator.fabrics.fabric import COLLECTIVES, Fabric

IntArray = NDArray[np.int64]
ENDPOINT_DELAY_NS = 10
REDUCING_GB_S = 1e12
"""`local-mem-bw`: what reducing takes is in the curve. Nothing else asks for it where durations are given."""
NAMES = {
    CollectiveType.ALL_REDUCE: COLLECTIVES[0],
    CollectiveType.ALL_GATHER: COLLECTIVES[1],
    CollectiveType.REDUCE_SCATTER: COLLECTIVES[2],
    CollectiveType.ALL_TO_ALL: COLLECTIVES[3],
}
HOPS = {"FullyConnected": 1, "Switch": 2}
LEAST_STEPS = 2
"""So many bytes more of its smallest message must not yet cost a collective's largest message a ns."""
_LARGEST = 2**62
_TRIED_NS = np.arange(-3.0, 3.01, 0.25)
"""So much longer or shorter than the line through its truncations a time is looked for."""


def carrying_system(system: SystemConfig, dimensions: int) -> SystemConfig:
    """Return `system` with the algorithms, the chunks and the reduction whose formula can be inverted."""
    return replace(
        system,
        collective_optimization="localBWAware",
        endpoint_delay=ENDPOINT_DELAY_NS,
        preferred_dataset_splits=1,
        local_mem_bw=REDUCING_GB_S,
        implementations=dict.fromkeys(IMPLEMENTED, ("direct",) * dimensions),
    )


@dataclass(frozen=True, slots=True)
class Messages:
    """The messages of one collective: `multiples` of the smallest, each `weights` times in a row, over `rounds` delays.

    `whole`: the multiple of the smallest message that is the collective's `comm_size`.
    """

    multiples: tuple[int, ...]
    weights: tuple[int, ...]
    rounds: int
    whole: int

    @classmethod
    def of(cls, kind: CollectiveType, over: Sequence[int]) -> Messages:
        """Return those of a collective over dimensions of so many ranks each, innermost first."""
        ranks = math.prod(over)
        if kind is CollectiveType.ALL_TO_ALL:
            return cls(tuple(ranks // count for count in over), (1,) * len(over), 2 * len(over), ranks)
        parts = tuple(ranks // math.prod(over[: at + 1]) for at in range(len(over)))
        if kind is CollectiveType.ALL_REDUCE:
            return cls(parts, (2,) * len(over), 4 * len(over) - 1, ranks)
        whole = 1 if kind is CollectiveType.ALL_GATHER else ranks
        return cls(parts, (1,) * len(over), 2 * len(over), whole)


@dataclass(frozen=True, slots=True)
class CarriedCurves:
    """The curves of `fabric` where ranks are `way_ns` (all hops) and `bytes_per_ns` apart, in a system of `npus`."""

    fabric: Fabric
    bytes_per_ns: float
    way_ns: float
    npus: int

    @classmethod
    def on(cls, network: NetworkConfig, fabric: Fabric) -> CarriedCurves:
        """Return the curves on the innermost dimensions of a network."""
        way = HOPS[network.topology[0]] * network.latency[0]
        return cls(fabric, network.bytes_per_ns[0], way, network.npus)

    def obstacle(self, kind: CollectiveType, over: Sequence[int]) -> str:
        """Return why times over dimensions of so many ranks each cannot be reached, "" where they can."""
        name, ranks, messages = NAMES[kind], math.prod(over), Messages.of(kind, over)
        if said := self.fabric.lacks(name, ranks):
            return said
        if self.bytes_per_ns < LEAST_STEPS * max(messages.multiples):
            return f"a link of {self.bytes_per_ns:g} GB/s is too slow for sizes to tell nanoseconds apart"
        fewest = 1 if kind is CollectiveType.ALL_GATHER else -(-self.npus // ranks)
        soonest = int(self._taken_ns(messages, np.array([fewest]))[0])
        least = self.fabric.least_ns(name, ranks)
        if least < soonest:
            return f"{name} of {self.fabric.name} takes {least} ns, and the links' latency alone {soonest}"
        return ""

    def sizes(self, kind: CollectiveType, over: Sequence[int], sizes: IntArray) -> IntArray:
        """Return the `comm_size`s with which collectives of `sizes` (as a trace has them) take the curve's time."""
        if kind not in NAMES:
            return sizes  # a broadcast takes no time on the network
        ranks, messages = math.prod(over), Messages.of(kind, over)
        held = sizes * ranks if kind is CollectiveType.ALL_GATHER else sizes
        wanted = self.fabric.times_ns(NAMES[kind], ranks, held)
        tried = self._smallest(messages, wanted + _TRIED_NS[:, None])
        missed = np.abs(self._taken_ns(messages, tried) - wanted)
        found = np.take_along_axis(tried, missed.argmin(axis=0)[None], axis=0)[0]
        result: IntArray = found * messages.whole
        return result

    def _smallest(self, messages: Messages, times: NDArray[np.float64]) -> IntArray:
        """Return the bytes of the smallest message for about these times, ns."""
        weights, multiples = np.array(messages.weights), np.array(messages.multiples)
        fixed = messages.rounds * ENDPOINT_DELAY_NS + weights.sum() * (self.way_ns - 0.5)
        bytes_of = (times - fixed) * self.bytes_per_ns / (weights * multiples).sum()
        result: IntArray = np.clip(np.rint(bytes_of), 1, _LARGEST // messages.whole).astype(np.int64)
        return result

    def _taken_ns(self, messages: Messages, smallest: IntArray) -> IntArray:
        """Return what ASTRA-sim takes, with its own arithmetic."""
        taken = np.full(smallest.shape, messages.rounds * ENDPOINT_DELAY_NS)
        for multiple, weight in zip(messages.multiples, messages.weights, strict=True):
            taken += weight * (self.way_ns + multiple * smallest / self.bytes_per_ns).astype(np.int64)
        return taken
