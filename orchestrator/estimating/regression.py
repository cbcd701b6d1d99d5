"""The prompt speed of samples: a straight line through latencies over tokens, and how straight they are."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from foundation.errors import UserError
from foundation.records import dataclass


@dataclass(frozen=True, slots=True)
class PromptFit:
    """A line through 0: `ptps` prompt tokens/s.

    `worst_error`: the largest |line / sample - 1|; `intercept`: what a line with one begins at, s (None of samples of
    one size), which the formula has no place for.
    """

    ptps: float
    worst_error: float
    intercept: float | None


def fit(tokens: Sequence[int], latencies: Sequence[float]) -> PromptFit:
    """Return the line of least squares through 0 over samples ``[n]``: prompt tokens, and seconds that they took.

    L = N / k has no intercept, so 1/k = sum(N L) / sum(N^2). No samples, or times that are not positive, are a
    `UserError`.
    """
    if not tokens or len(tokens) != len(latencies):
        raise UserError(f"{len(latencies)} latencies of {len(tokens)} prompts", fix="give one for each of at least one")
    if min(tokens) < 1 or min(latencies) <= 0:
        raise UserError("a sample has no tokens or took no time", fix="measure prompts of at least one token")
    slope = fsum(n * s for n, s in zip(tokens, latencies, strict=True)) / fsum(n * n for n in tokens)
    worst = max(abs(slope * n / s - 1) for n, s in zip(tokens, latencies, strict=True))
    return PromptFit(1 / slope, worst, _intercept(tokens, latencies))


def _intercept(tokens: Sequence[int], latencies: Sequence[float]) -> float | None:
    count = len(tokens)
    mean_n, mean_s = fsum(tokens) / count, fsum(latencies) / count
    spread = fsum((n - mean_n) ** 2 for n in tokens)
    if not spread:
        return None
    slope = fsum((n - mean_n) * (s - mean_s) for n, s in zip(tokens, latencies, strict=True)) / spread
    return mean_s - slope * mean_n
