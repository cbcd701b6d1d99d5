"""The state over time of both sides on one grid, the recording's, and how far apart they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.validation.recording import RATES, STATES, Recording, TimeSeries

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
LABELS = RATES | STATES
UNITS = dict.fromkeys(RATES, "tokens/s") | dict.fromkeys(STATES, "requests") | {"kv_used": "% of blocks"}


@dataclass(frozen=True, slots=True, eq=False)
class OverTime:
    """Columns ``[b]`` of both sides at `ends_ns` ``[b]``; a share of KV blocks in %."""

    ends_ns: IntArray
    simulated: Mapping[str, FloatArray]
    recorded: Mapping[str, FloatArray]

    def mean_difference(self, name: str) -> float:
        """Return the mean of the absolute differences of a column."""
        return float(np.abs(self.simulated[name] - self.recorded[name]).mean())


def over_time(simulated: Recording, recorded: Recording) -> OverTime | None:
    """Return both sides over time, None where one has no time series.

    Both count from their time 0: when the workload's time began. Where the simulation goes on longer the grid does too.
    """
    ours, theirs = simulated.series, recorded.series
    if ours is None or theirs is None:
        return None
    last = max(int(ours.ends_ns[-1]), int(theirs.ends_ns[-1]))
    further = np.arange(int(theirs.ends_ns[-1]) + theirs.step_ns, last + theirs.step_ns, theirs.step_ns, dtype=np.int64)
    ends = np.concatenate((theirs.ends_ns, further))
    return OverTime(ends, _on(ends, ours), _on(ends, theirs))


def _on(ends: IntArray, series: TimeSeries) -> dict[str, FloatArray]:
    """Return the columns of a series at `ends`: means over what lies between two of them, or the state at each."""
    found = {}
    for name, values in series.columns.items():
        scaled = 100 * values if name == "kv_used" else values
        found[name] = _means(ends, series, scaled) if name in RATES else _states(ends, series, scaled)
    return found


def _means(ends: IntArray, series: TimeSeries, values: FloatArray) -> FloatArray:
    """Return the mean rate of each piece of the grid; what flows in a row flows evenly, and nowhere else."""
    begins = np.maximum(series.ends_ns - series.step_ns, np.concatenate(([0], series.ends_ns[:-1])))
    edges = np.stack((begins, series.ends_ns), axis=1).reshape(-1)
    flown = np.repeat((values * (series.ends_ns - begins)).cumsum(), 2)
    flown[0::2] = np.concatenate(([0.0], flown[1:-1:2]))
    total = np.interp(np.concatenate(([0], ends)), edges, flown)
    found: FloatArray = np.diff(total) / np.diff(ends, prepend=0)
    return found


def _states(ends: IntArray, series: TimeSeries, values: FloatArray) -> FloatArray:
    """Return the state of the last row by each end; where that is long over nothing runs."""
    row = np.searchsorted(series.ends_ns, ends, side="right") - 1
    there = (row >= 0) & (ends - series.ends_ns[np.maximum(row, 0)] < 2 * series.step_ns)
    found: FloatArray = np.where(there, values[np.maximum(row, 0)], 0.0)
    return found
