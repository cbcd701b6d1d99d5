"""What was recorded of a run, real or simulated: a row a request, and the state over time where there is one.

Clocks: `moments` of one recording share a clock, whose zero means nothing where there are several recordings; only
differences are compared. A recording may count a request from when its client sent it (``arrival``) or from when the
engine took it out of its queue (``queued``); the first of `origins` is what its own figures are counted from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
ARRIVAL, QUEUED = "arrival", "queued"
RATES = {"prompt_per_s": "prompt throughput", "generation_per_s": "generation throughput"}
"""Columns of a series that are means over an interval, tokens/s, and how people call them."""
STATES = {"running": "running requests", "waiting": "waiting requests", "kv_used": "KV cache in use"}
"""Columns of a series that are states at its end: requests, and a share of the KV blocks from 0 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class TimeSeries:
    """State over time: `ends_ns` ``[b]``, ascending, from the run's time 0, and columns ``[b]``; see `RATES`, `STATES`.

    Rows are `step_ns` apart; where one is missing nothing ran.
    """

    ends_ns: IntArray
    step_ns: int
    columns: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Requests as columns ``[n]``, moments in ns.

    - `kind`: the format's name; `position`: each request's place in the workload;
    - `moments`: those of `origins`, ``first_token`` and ``end``; `one_clock`: those of different requests compare;
    - `gaps`: of each request the times between what its client got (ns), None where they were not recorded;
    - `duration_ns`: how long the whole took, where the recording says so itself;
    - `facts`: what it says of its server, by name (``KV blocks``), `notes`: what a user should know of it.
    """

    path: Path
    kind: str
    position: IntArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    moments: Mapping[str, IntArray]
    origins: tuple[str, ...]
    one_clock: bool = True
    gaps: Sequence[IntArray] | None = None
    series: TimeSeries | None = None
    duration_ns: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.position)

    def latencies(self, origin: str, rows: IntArray) -> dict[str, FloatArray]:
        """Return `ttft`, `tpot` (of requests of several tokens), `latency` (ns) of the rows, from `origin`."""
        begin, first, end = (self.moments[name][rows] for name in (origin, "first_token", "end"))
        further = self.output_tokens[rows] - 1
        several = further > 0
        return {
            "ttft": (first - begin).astype(np.float64),
            "tpot": (end - first)[several] / further[several],
            "latency": (end - begin).astype(np.float64),
        }

    def all_gaps(self, rows: IntArray) -> IntArray | None:
        """Return the times between tokens of all the rows, None where they were not recorded."""
        if self.gaps is None:
            return None
        lists = [self.gaps[row] for row in rows.tolist()]
        return np.concatenate(lists) if lists else np.zeros(0, dtype=np.int64)

    def span_ns(self, origin: str, rows: IntArray) -> int | None:
        """Return how long the rows took, from the first beginning to the last end; None where nothing says so."""
        if not self.one_clock:
            return self.duration_ns
        return int(self.moments["end"][rows].max() - self.moments[origin][rows].min())
