"""What a fit makes small: logarithms of simulated / measured TTFT, TPOT and end-to-end latency of requests, in groups.

The fate of one request (whether it is preempted, whose batch it shares) changes with anything, and says nothing of a
term. So requests are taken together, for each metric in two ways: those that come one after another, of which it shows
when a run is too slow, and those of like rank (the fastest with the fastest), which stay where they are when two
requests swap their fates. The mean of a group is divided by its noise: what it changes by between disturbed runs, and
half a percent at least, below which nothing is modelled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.errors import SimulationError
from foundation.records import dataclass
from orchestrator.validation.matching import Pairs
from orchestrator.validation.recording import Recording

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
LEAST_NOISE = 0.005
GROUPS = 20
"""Groups of requests of a metric, each way; fewer where there are fewer than five requests for each."""
_A_GROUP = 5
_PRIOR_RUNS = 4
"""The noise of one group, from few runs, is taken together with so many runs' worth of the median noise."""


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """Makes residuals ``[m]`` of a simulation's requests; `pairs` are those of all simulations: the same workload."""

    recorded: Recording
    pairs: Pairs
    origin: str
    identities: IntArray

    @classmethod
    def of(cls, simulated: Recording, recorded: Recording, pairs: Pairs, origin: str) -> Residuals:
        """Return residuals of the requests that are in both, in the order in which the recorded ones came."""
        order = np.argsort(recorded.moments[origin][pairs.recorded], kind="stable")
        sorted_pairs = Pairs(pairs.simulated[order], pairs.recorded[order])
        return cls(recorded, sorted_pairs, origin, simulated.position[sorted_pairs.simulated])

    def logarithms(self, simulated: Recording) -> FloatArray:
        """Return the mean log(simulated / measured) of each group of each metric.

        A `SimulationError` where the simulation did not finish requests that others did.
        """
        rows = self._rows(simulated)
        sides = (simulated, rows), (self.recorded, self.pairs.recorded)
        several = np.minimum(*(one.output_tokens[of] for one, of in sides)) > 1
        found = []
        for metric in ("ttft", "tpot", "latency"):
            kept = several if metric == "tpot" else np.ones(len(rows), dtype=np.bool_)
            ours, theirs = (np.maximum(one.latencies(self.origin, of[kept])[metric], 1.0) for one, of in sides)
            found += [_means(np.log(ours / theirs)), _means(np.log(np.sort(ours) / np.sort(theirs)))]
        return np.concatenate(found)

    def noise(self, disturbed: Sequence[FloatArray]) -> FloatArray:
        """Return the standard deviation of each residual by chance, from those of disturbed runs; see the module."""
        count = len(disturbed)
        variance = np.var(np.stack(disturbed), axis=0, ddof=1)
        pooled = (count * variance + _PRIOR_RUNS * np.median(variance)) / (count + _PRIOR_RUNS)
        # Both sides are single runs, so what they differ by has the noise of two.
        found: FloatArray = np.sqrt(2 * pooled + LEAST_NOISE**2)
        return found

    def _rows(self, simulated: Recording) -> IntArray:
        order = np.argsort(simulated.position, kind="stable")
        place = np.searchsorted(simulated.position, self.identities, sorter=order)
        rows: IntArray = order[np.minimum(place, len(order) - 1)]
        if not np.array_equal(simulated.position[rows], self.identities):
            raise SimulationError("a simulation for the fit did not finish all the requests that the first one did")
        return rows


def _means(values: FloatArray) -> FloatArray:
    """Return the means of groups of values that follow each other."""
    groups = max(1, min(GROUPS, len(values) // _A_GROUP))
    return np.array([part.mean() for part in np.array_split(values, groups) if len(part)])
