"""The figures of a workload. Rates and gaps are of arrivals from outside; later turns come when earlier ones end."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from orchestrator.describing.sharing import BLOCK_SIZES, Sharing, prefix_sharing
from orchestrator.request_table import RequestTable
from orchestrator.statistics import Distribution, distribution

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
RATE_BINS = 60
_WINDOWS_S = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86400.0)
_FEWEST_WINDOWS, _MOST_WINDOWS = 10, 10_000_000


@dataclass(frozen=True, slots=True)
class Values:
    """A distribution with its standard deviation, least and greatest value, in the unit of the values."""

    distribution: Distribution
    std: float
    least: float
    most: float

    @property
    def cv(self) -> float | None:
        """The coefficient of variation; None where the mean is 0."""
        return self.std / self.distribution.mean if self.distribution.mean else None

    def figures(self) -> dict[str, float | None]:
        """Return all figures by name."""
        return {**self.distribution.scaled(1.0), "std": self.std, "cv": self.cv, "min": self.least, "max": self.most}


@dataclass(frozen=True, slots=True)
class Dispersion:
    """The variance of the arrivals in a window over their mean: 1 for a Poisson process, more with bursts."""

    window_s: float
    windows: int
    index: float


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """Requests in sessions: how many sessions, their turns, and the pauses between turns (s)."""

    sessions: int
    turns: Values
    pauses_s: Values | None


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """What a workload is like. `arrivals` counts requests that wait for no other; `gaps_s` None: fewer than two.

    `rate`: edges of bins (s) ``[b + 1]`` and arrivals a second in each ``[b]``; None where all come at once. Histograms
    have the least length of each bin, a power of two, and its count.
    """

    requests: int
    arrivals: int
    span_s: float
    rate_per_s: float | None
    gaps_s: Values | None
    dispersion: tuple[Dispersion, ...]
    rate: tuple[FloatArray, FloatArray] | None
    prompts: Values
    outputs: Values
    histograms: dict[str, dict[int, int]]
    sessions: SessionFigures | None
    priorities: dict[int, int]
    adapters: int
    sharing: Sharing | None

    @property
    def burstiness(self) -> float | None:
        """The shape of the gamma distribution with the gaps' coefficient of variation (`--burstiness`)."""
        cv = None if self.gaps_s is None else self.gaps_s.cv
        return 1.0 / (cv * cv) if cv else None

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        return {
            "requests": self.requests,
            "arrivals": self.arrivals,
            "span_s": self.span_s,
            "rate_per_s": self.rate_per_s,
            "gaps_s": None if self.gaps_s is None else self.gaps_s.figures(),
            "burstiness": self.burstiness,
            "dispersion": [asdict(one) for one in self.dispersion],
            "rate_over_time": None
            if self.rate is None
            else {"edges_s": self.rate[0].tolist(), "per_s": self.rate[1].tolist()},
            "prompt_tokens": {**self.prompts.figures(), "histogram": self.histograms["prompt"]},
            "output_tokens": {**self.outputs.figures(), "histogram": self.histograms["output"]},
            "sessions": self._sessions_json(),
            "priorities": self.priorities,
            "adapters": self.adapters,
            "prefix_sharing": self._sharing_json(),
        }

    def _sessions_json(self) -> dict[str, Any] | None:
        if self.sessions is None:
            return None
        pauses = None if self.sessions.pauses_s is None else self.sessions.pauses_s.figures()
        return {"sessions": self.sessions.sessions, "turns": self.sessions.turns.figures(), "pauses_s": pauses}

    def _sharing_json(self) -> dict[str, Any] | None:
        if self.sharing is None:
            return None
        shares = {size: self.sharing.share(size) for size in BLOCK_SIZES}
        return {"requests": self.sharing.requests, "share_by_block_size": shares}


def describe(table: RequestTable) -> Description:
    """Return what the requests of a table, of which there is at least one, are like."""
    table = table.in_arrival_order()
    arrivals = table.openings().arrival_ns
    gaps = np.diff(arrivals) / 1e9
    span_s = float(arrivals[-1] - arrivals[0]) / 1e9
    known = np.array([0]) if table.priority is None else table.priority
    levels, counts = np.unique(known, return_counts=True)
    return Description(
        requests=len(table),
        arrivals=len(arrivals),
        span_s=span_s,
        rate_per_s=(len(arrivals) - 1) / span_s if span_s else None,
        gaps_s=_values(gaps) if len(gaps) else None,
        dispersion=_dispersion(arrivals),
        rate=_rate(arrivals, span_s),
        prompts=_values(table.prompt_tokens),
        outputs=_values(table.output_tokens),
        histograms={"prompt": _histogram(table.prompt_tokens), "output": _histogram(table.output_tokens)},
        sessions=_sessions(table),
        priorities={} if table.priority is None else dict(zip(levels.tolist(), counts.tolist(), strict=True)),
        adapters=0 if table.adapter is None else len(np.unique(table.adapter[table.adapter > 0])),
        sharing=prefix_sharing(table),
    )


def _values(values: IntArray | FloatArray) -> Values:
    found = distribution(values)
    assert found is not None, "there is a value"
    squares = math.fsum((one - found.mean) ** 2 for one in values.tolist())
    return Values(found, math.sqrt(squares / len(values)), float(values.min()), float(values.max()))


def _dispersion(arrivals: IntArray) -> tuple[Dispersion, ...]:
    found = []
    since = arrivals - arrivals[0]
    for window_s in _WINDOWS_S:
        window = round(window_s * 1e9)
        windows = int(since[-1]) // window  # the last one may be cut short, and does not count
        if _FEWEST_WINDOWS <= windows <= _MOST_WINDOWS:
            counts = np.bincount(since[since < windows * window] // window, minlength=windows)
            mean = int(counts.sum()) / windows
            variance = int((counts * counts).sum()) / windows - mean * mean
            found.append(Dispersion(window_s, windows, variance / mean))
    return tuple(found)


def _rate(arrivals: IntArray, span_s: float) -> tuple[FloatArray, FloatArray] | None:
    if not span_s:
        return None
    since = arrivals - arrivals[0]
    bins = min(RATE_BINS, len(arrivals) - 1)
    width = span_s / bins
    place = np.minimum((since / 1e9 / width).astype(np.int64), bins - 1)
    return np.arange(bins + 1, dtype=np.float64) * width, np.bincount(place, minlength=bins).astype(np.float64) / width


def _histogram(tokens: IntArray) -> dict[int, int]:
    _, exponents = np.frexp(tokens.astype(np.float64))
    least, counts = np.unique(exponents - 1, return_counts=True)
    return {2**power: count for power, count in zip(least.tolist(), counts.tolist(), strict=True)}


def _sessions(table: RequestTable) -> SessionFigures | None:
    columns = table.sessions
    if columns is None or not (columns.number > 0).any():
        return None
    within = columns.number > 0
    _, turns = np.unique(columns.number[within], return_counts=True)
    follows = np.flatnonzero(~columns.opens())
    pauses = columns.pause_ns[follows - 1] / 1e9
    return SessionFigures(len(turns), _values(turns), _values(pauses) if len(pauses) else None)
