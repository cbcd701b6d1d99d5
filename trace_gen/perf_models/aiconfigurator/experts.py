"""The matrices of a rank's experts, with what is done between and after them: measured as one.

Tables are of single models: of so many tokens a step, hidden and inner width, experts, experts a token, and ways to
divide widths (``moe_tp_size``) or experts (``moe_ep_size``). A model whose widths and experts are in no table has none.
A rank takes what it takes in the table for so many tokens that as many copies reach it, routed evenly (or the least
unevenly of what was measured): how uneven routing is, is the simulated routing's to say. Base: a plain roofline of the
copies and of the experts that have any.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.measured.lookups import LookupCounts
from trace_gen.mlp.experts import Experts
from trace_gen.perf_models.aiconfigurator.curves import Ratios, by_size
from trace_gen.perf_models.aiconfigurator.files import Kernels

FloatArray = NDArray[np.float64]
EVEN = "balanced"
ACTIVATION_BYTES = 2


@dataclass(frozen=True, slots=True)
class Division:
    """What a rank has: `held` whole experts, or the part of `inner` of each one's width."""

    held: int
    inner: int


class ExpertTimes:
    """Times of the experts of one mixture, of hidden width `hidden`; `kernels` are of one number format."""

    def __init__(
        self, kernels: Kernels, experts: Experts, hidden: int, peak: float, bandwidth: float, weight_bytes: float
    ) -> None:
        self._experts, self.hidden = experts, hidden
        self._peak, self._bandwidth, self._weight_bytes = peak, bandwidth, weight_bytes
        self._kernels = kernels.where(
            hidden_size=hidden, inter_size=experts.width, topk=experts.per_token, num_experts=experts.count
        )
        ways = sorted(set(self._kernels.texts["distribution"].tolist()))
        if ways:
            self._kernels = self._kernels.where(distribution=EVEN if EVEN in ways else ways[0])
        self._curves: dict[Division, Ratios | None] = {}

    @property
    def known(self) -> bool:
        """Whether the mixture is in the table."""
        return bool(len(self._kernels.times))

    @property
    def corrected(self) -> tuple[int, int]:
        """See `MatrixTimes.corrected`."""
        used = [curve for curve in self._curves.values() if curve is not None]
        return sum(curve.corrected for curve in used), sum(len(curve.sizes) for curve in used)

    def times_ns(self, copies: FloatArray, division: Division) -> tuple[FloatArray, LookupCounts] | None:
        """Return the times of ranks that so many `copies` of tokens reach; None where the division is in no table."""
        curve = self._curve(division)
        if curve is None:
            return None
        tokens = np.maximum(copies / self._experts.per_token * self._ranks(division), 1.0)
        outside = int(curve.outside(tokens).sum())
        measured = int(np.isin(tokens, curve.sizes).sum())
        times = np.exp(curve.at(tokens)) * self._base(tokens, division)
        return times, LookupCounts(measured, len(tokens) - measured - outside, outside)

    def _ranks(self, division: Division) -> int:
        return round(self._experts.count / division.held)

    def _curve(self, division: Division) -> Ratios | None:
        if division not in self._curves:
            parts = round(self._experts.width / division.inner)
            own = self._kernels.where(moe_ep_size=self._ranks(division), moe_tp_size=parts)
            exact = self._ranks(division) * division.held == self._experts.count and parts * division.inner == (
                self._experts.width
            )
            self._curves[division] = self._made(own, division) if len(own.times) and exact else None
        return self._curves[division]

    def _made(self, kernels: Kernels, division: Division) -> Ratios:
        sizes, times = by_size(kernels.sizes["num_tokens"], kernels.times)
        return Ratios.of(sizes, times, self._base(sizes, division))

    def _base(self, tokens: FloatArray, division: Division) -> FloatArray:
        copies = tokens * self._experts.per_token / self._ranks(division)
        matrices = 3 * self.hidden * division.inner
        missed = (1 - self._experts.per_token / self._experts.count) ** tokens
        moved = np.maximum(division.held * (1 - missed), 1.0) * matrices * self._weight_bytes
        moved = moved + copies * (2 * self.hidden + 3 * division.inner) * ACTIVATION_BYTES
        return np.asarray(np.hypot(2 * copies * matrices / self._peak, moved / self._bandwidth) * 1e9)
