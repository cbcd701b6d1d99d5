"""Errors of a simulation: for each latency and statistic what was simulated, what was measured, and how far apart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from foundation.errors import UserError
from foundation.records import dataclass
from orchestrator.statistics import STATISTICS, distribution
from orchestrator.validation.matching import Pairs
from orchestrator.validation.recording import Recording

METRICS = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "latency": "end-to-end"}
"""Latencies, by their names in files, and as people write them."""
COUNTED_STATISTICS = ("mean", "p50", "p90", "p95", "p99")
THROUGHPUTS = {
    "requests_per_s": ("request throughput", "requests/s"),
    "tokens_per_s": ("generation throughput", "tokens/s"),
}
Name = tuple[str, str]
"""A metric and a statistic of it; of a throughput the statistic is ``mean``."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of both sides in `unit`. `counts`: whether it is held against a greatest error."""

    metric: str
    statistic: str
    simulated: float
    measured: float
    unit: str
    counts: bool

    @property
    def name(self) -> Name:
        """What it is a figure of."""
        return self.metric, self.statistic

    @property
    def label(self) -> str:
        """How people call it."""
        if self.metric in THROUGHPUTS:
            return THROUGHPUTS[self.metric][0]
        return f"{METRICS[self.metric]} {STATISTICS[self.statistic]}"

    @property
    def error(self) -> float | None:
        """Simulated / measured - 1 in %; None where nothing was measured to compare with."""
        if self.measured == 0:
            return 0.0 if self.simulated == 0 else None
        return 100 * (self.simulated / self.measured - 1)


def origin_of(simulated: Recording, recorded: Recording, asked: str | None) -> str:
    """Return from which moment requests are counted: what is asked for, or what the recording counts from.

    A `UserError` where one of the two does not say.
    """
    origin = asked or recorded.origins[0]
    for one in (recorded, simulated):
        if origin not in one.origins:
            what = f"{origin}, which is on no clock of a recording in {one.kind}"
            fix = f"give {' or '.join(one.origins)}, or leave it out"
            raise UserError(f"{what} ({one.path})", field="--count_from", fix=fix)
    return origin


def figures(simulated: Recording, recorded: Recording, pairs: Pairs, origin: str) -> list[Figure]:
    """Return the figures of the requests that are in both.

    ITLs are compared where both sides have them, and do not count: a client sees chunks, and not when tokens were made.
    """
    ours, theirs = simulated.latencies(origin, pairs.simulated), recorded.latencies(origin, pairs.recorded)
    gaps = simulated.all_gaps(pairs.simulated), recorded.all_gaps(pairs.recorded)
    found: list[Figure] = []
    for metric in METRICS:
        sides = gaps if metric == "itl" else (ours[metric], theirs[metric])
        if sides[0] is None or sides[1] is None:
            continue
        made, seen = distribution(sides[0]), distribution(sides[1])
        if made is not None and seen is not None:
            found += [
                Figure(metric, name, getattr(made, name) / 1e6, getattr(seen, name) / 1e6, "ms", metric != "itl")
                for name in COUNTED_STATISTICS
            ]
    return [*found, *_throughputs(simulated, recorded, pairs, origin)]


def _throughputs(simulated: Recording, recorded: Recording, pairs: Pairs, origin: str) -> Iterator[Figure]:
    """Yield requests and output tokens a second, over the time from the first beginning to the last end."""
    spans = simulated.span_ns(origin, pairs.simulated), recorded.span_ns(origin, pairs.recorded)
    if not spans[0] or not spans[1]:
        return
    tokens = simulated.output_tokens[pairs.simulated], recorded.output_tokens[pairs.recorded]
    counts = {
        "requests_per_s": (len(tokens[0]), len(tokens[1])),
        "tokens_per_s": tuple(int(one.sum()) for one in tokens),
    }
    for metric, (ours, theirs) in counts.items():
        unit = THROUGHPUTS[metric][1]
        yield Figure(metric, "mean", ours / spans[0] * 1e9, theirs / spans[1] * 1e9, unit, True)


def beyond(found: list[Figure], most: float) -> list[Figure]:
    """Return the figures that count and whose error is more than `most` %, either way, the worst first."""
    counted = [one for one in found if one.counts and (one.error is None or abs(one.error) > most)]
    return sorted(counted, key=lambda one: -np.inf if one.error is None else -abs(one.error))


def worst(found: list[Figure]) -> Figure | None:
    """Return the figure that counts with the greatest error either way; None where there is none."""
    counted = [one for one in found if one.counts and one.error is not None]
    return max(counted, key=lambda one: abs(one.error or 0.0), default=None)
