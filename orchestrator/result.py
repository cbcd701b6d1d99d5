"""The result of a run: what it measured and how it ended, for programs; the files and the summary are made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.errors import OrreryError
from foundation.records import dataclass
from orchestrator.observers.account import TimeAccount
from orchestrator.observers.intervals import Interval
from orchestrator.settings.specification import RunSpec
from orchestrator.summary import Summary

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A request that was not served to its end: when (ns), where, and why (one clause)."""

    id: int
    arrival_ns: int
    prompt_tokens: int
    output_tokens: int
    now_ns: int
    engine: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """What a run measured.

    - `spec`: the run with all that models and devices decided: run again, it gives the same;
    - `columns`: finished requests as columns ``[n]`` (`orchestrator.observers.finished.COLUMNS`, times in ns), in order
      of (end, id); `requests` is the same as a table;
    - `unfinished`: the same columns of requests that were under way when the run ended early, -1 where not reached;
    - `itl_ns`: every distinct time between two tokens of a request, ascending, and how often it occurred;
    - `turned_away`: requests that were rejected or given up;
    - `backend`: what the backend counted (cache hits, runs of an external program), which depends on what ran before;
      where tables of prices were used, but not for all iterations, how many were traced;
    - `stopped`: why an observer ended the run, `error`: what failed; None for a run that went to its end;
    - `wall_ms`: wall-clock milliseconds of the simulator itself, by component; the only figures that differ between two
      runs of the same specification.
    """

    spec: RunSpec
    summary: Summary
    columns: dict[str, IntArray]
    unfinished: dict[str, IntArray]
    itl_ns: tuple[IntArray, IntArray]
    intervals: Sequence[Interval]
    time: TimeAccount
    turned_away: Sequence[TurnedAway]
    notes: Sequence[str] = ()
    backend: dict[str, int] = field(default_factory=dict)
    stopped: str | None = None
    error: OrreryError | KeyboardInterrupt | None = None
    wall_ms: dict[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every request was served or turned away."""
        return self.stopped is None and self.error is None

    @property
    def requests(self) -> Any:
        """The finished requests with their latencies: a pandas DataFrame where pandas is installed, else `columns`.

        Beside `columns`: `ttft`, `latency`, `queuing_delay` (ns) and `tpot` (ns a token; NaN for one token).
        """
        table: dict[str, Any] = {**self.columns, **latencies(self.columns)}
        try:
            import pandas
        except ModuleNotFoundError:
            return table
        return pandas.DataFrame(table)


def latencies(columns: dict[str, IntArray]) -> dict[str, NDArray[Any]]:
    """Return TTFT, end-to-end latency and queuing delay (ns), and TPOT (ns; NaN for one token) of finished requests."""
    further = columns["output"] - 1
    spent = (columns["end"] - columns["first_token"]).astype(np.float64)
    tpot = np.divide(spent, further, out=np.full(len(further), np.nan), where=further > 0)
    return {
        "ttft": columns["first_token"] - columns["arrival"],
        "latency": columns["end"] - columns["arrival"],
        "queuing_delay": columns["scheduled"] - columns["arrival"],
        "tpot": tpot,
    }
