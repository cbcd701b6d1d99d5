"""Attention, by tables of batches whose requests are alike: prompts without a cache, and decodes.

    prompts   heads, KV heads, head size, requests, tokens of each      decodes   ..., tokens in each one's cache

What any batch takes is our roofline's time for it, which knows of unequal contexts, of chunks, of what decodes take
beside a prompt and of windows, times a ratio of measured to roofline at the batch of the table that is most alike:

- heads: those of the table that are nearest, by query heads a KV head first; requests are then so many that the KV
  heads of all of them together are as many;
- decodes: the mean of what they attend to; prompts: the length that makes as many query-key pairs as they have in the
  mean, so that a chunk is as long as a prompt of its work;
- prompts and decodes together: the ratios of both, weighted by what each takes alone.

Ratios are interpolated over the logarithms of requests and lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape
from trace_gen.batch_shape import BatchShape
from trace_gen.measured.lookups import LookupCounts
from trace_gen.perf_model import TimesAttention
from trace_gen.perf_models.aiconfigurator.curves import Ratios, bracket, by_size
from trace_gen.perf_models.aiconfigurator.files import Kernels

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
HEADS, KV_HEADS, HEAD_SIZE, REQUESTS, TOKENS, WINDOW = (
    "num_heads",
    "num_key_value_heads",
    "head_dim",
    "batch_size",
    "isl",
    "window_size",
)
CACHED = "step"


@dataclass(frozen=True, slots=True)
class Heads:
    """What rows are grouped by: query heads, KV heads, the size of a head and the window (0: none)."""

    query: int
    kv: int
    size: int
    window: int = 0

    def distance(self, other: Heads) -> tuple[float, float]:
        """Return how unlike two are: group and size of heads, then their number."""
        groups = abs(np.log(self.query / self.kv * other.kv / other.query))
        return float(groups + abs(np.log(self.size / other.size))), float(abs(np.log(self.kv / other.kv)))


class AlikeBatches:
    """Ratios of measured to roofline for batches of like requests, with heads as in `group`; sizes are tokens.

    `decodes`: the sizes are tokens in the cache, of which one more is computed; else tokens that are computed.
    """

    def __init__(self, kernels: Kernels, shape: AttentionShape, roofline: TimesAttention, *, decodes: bool) -> None:
        self._shape, self._roofline, self._decodes = shape, roofline, decodes
        self._sizes, self._times = kernels.sizes[CACHED if decodes else TOKENS], kernels.times
        self._requests = kernels.sizes[REQUESTS]
        self._batches = np.unique(self._requests).astype(np.float64)
        self._curves: dict[int, Ratios] = {}

    @property
    def corrected(self) -> tuple[int, int]:
        """See `MatrixTimes.corrected`."""
        used = self._curves.values()
        return sum(curve.corrected for curve in used), sum(len(curve.sizes) for curve in used)

    def ratios(self, requests: float, sizes: FloatArray) -> tuple[FloatArray, LookupCounts]:
        """Return the ratio for so many `requests` of each of `sizes` ``[k]``."""
        low, high, share = bracket(self._batches, requests)
        first, last = self._curve(int(self._batches[low])), self._curve(int(self._batches[high]))
        logs = first.at(sizes)
        outside = first.outside(sizes) & last.outside(sizes)
        measured = np.isin(sizes, first.sizes)
        if share:
            logs = logs * (1 - share) + last.at(sizes) * share
            measured[:] = False
        if not self._batches[0] <= requests <= self._batches[-1]:
            outside[:] = True
        known, beyond = int((measured & ~outside).sum()), int(outside.sum())
        return np.exp(logs), LookupCounts(known, len(sizes) - known - beyond, beyond)

    def _curve(self, requests: int) -> Ratios:
        if requests not in self._curves:
            own = self._requests == requests
            sizes, times = by_size(self._sizes[own], self._times[own])
            base = np.array([self._base_ns(requests, int(size)) for size in sizes])
            self._curves[requests] = Ratios.of(sizes, times, base)
        return self._curves[requests]

    def _base_ns(self, requests: int, size: int) -> float:
        every = np.ones(requests, dtype=np.int64)
        new, context = (every, every * size) if self._decodes else (every * size, every * 0)
        batch = BatchShape(np.arange(requests), new, context, every)
        return float(self._roofline.attention_ns(self._shape, batch)[0])


class AttentionTimes:
    """The times of attention of one `shape`, whose heads are `heads`, by the tables `prompts` and `decodes`."""

    def __init__(
        self,
        shape: AttentionShape,
        heads: Heads,
        roofline: TimesAttention,
        prompts: Kernels | None,
        decodes: Kernels | None,
    ) -> None:
        self._shape, self._roofline = shape, roofline
        self._heads = heads
        self._prompts, self._near_prompts = self._nearest(prompts, decodes=False)
        self._decodes, self._near_decodes = self._nearest(decodes, decodes=True)

    @property
    def corrected(self) -> tuple[int, int]:
        """See `MatrixTimes.corrected`."""
        both = [table.corrected for table in (self._prompts, self._decodes) if table is not None]
        return sum(some for some, _ in both), sum(all_ for _, all_ in both)

    def times_ns(self, batch: BatchShape) -> tuple[FloatArray, LookupCounts]:
        """Return the time of a kernel over `batch` at each step, ``[k]``."""
        times = self._roofline.attention_ns(self._shape, batch).astype(np.float64)
        if not len(batch.new_tokens):
            return np.zeros_like(times), LookupCounts()
        prompting = batch.new_tokens > 1
        found = [
            (part, *ratios)
            for part, ratios in (
                (part, self._decode_ratios(part) if decodes else self._prompt_ratios(part))
                for part, decodes in ((batch.only(prompting), False), (batch.only(~prompting), True))
                if len(part.new_tokens)
            )
        ]
        counts = LookupCounts()
        if len(found) == 1:
            _, ratio, own = found[0]
            counts.add(own)
            return times * ratio, counts
        weights = [self._roofline.attention_ns(self._shape, part).astype(np.float64) for part, _, _ in found]
        for _, _, own in found:
            counts.add(own)
        mixed = sum(weight * ratio for weight, (_, ratio, _) in zip(weights, found, strict=True)) / sum(weights)
        return np.asarray(times * mixed), counts

    def _prompt_ratios(self, batch: BatchShape) -> tuple[FloatArray, LookupCounts]:
        table, count = self._prompts, len(batch.new_tokens)
        if table is None:
            return np.ones(1), LookupCounts(roofline=1)
        if self._near_prompts.window:
            length = float((batch.new_tokens + batch.context_tokens).mean())
        else:
            length = float(np.sqrt(2 * self._shape.pairs(batch).sum() / count))
            whole = not batch.context_tokens.any() and (batch.new_tokens == batch.new_tokens[0]).all()
            if whole and self._shape.window is None:  # whose pairs are t (t + 1) / 2
                length = float(batch.new_tokens[0])
        ratios, counts = table.ratios(self._alike(count, self._near_prompts), np.array([max(length, 1.0)]))
        return ratios, self._honest(counts, self._near_prompts)

    def _decode_ratios(self, batch: BatchShape) -> tuple[FloatArray, LookupCounts]:
        table, count = self._decodes, len(batch.new_tokens)
        if table is None:
            return np.ones(batch.steps), LookupCounts(roofline=batch.steps)
        contexts = batch.context_by_step()
        if self._shape.window is not None and not self._near_decodes.window:
            contexts = self._shape.attended(batch) - 1
        mean = np.maximum(contexts.mean(axis=1), 1.0)
        ratios, counts = table.ratios(self._alike(count, self._near_decodes), mean)
        return ratios, self._honest(counts, self._near_decodes)

    def _alike(self, count: int, near: Heads) -> float:
        """Return how many requests of a table have as many KV heads together."""
        return count * self._heads.kv / near.kv

    def _honest(self, counts: LookupCounts, near: Heads) -> LookupCounts:
        """Return `counts`, of which none is measured where the heads are others."""
        asked = (self._heads.query, self._heads.kv, self._heads.size)
        if (near.query, near.kv, near.size) == asked and self._heads.window == near.window:
            return counts
        return LookupCounts(0, counts.measured + counts.interpolated, counts.extrapolated)

    def _nearest(self, kernels: Kernels | None, *, decodes: bool) -> tuple[AlikeBatches | None, Heads]:
        """Return the table of the heads that are most alike, and these."""
        if kernels is None or not len(kernels.times):
            return None, self._heads
        groups = [Heads(*row) for row in kernels.distinct(HEADS, KV_HEADS, HEAD_SIZE, WINDOW)]
        windowed = [group for group in groups if group.window == self._heads.window]
        own = self._pick(windowed) if windowed else None
        if own is None or own.distance(self._heads)[0] > 0:
            own = self._pick([group for group in groups if not group.window])
        rows = kernels.where(**{HEADS: own.query, KV_HEADS: own.kv, HEAD_SIZE: own.size, WINDOW: own.window})
        shape = replace(_with_heads(self._shape, self._heads, own), window=own.window or None, chunked=False)
        return AlikeBatches(rows, shape, self._roofline, decodes=decodes), own

    def _pick(self, groups: Sequence[Heads]) -> Heads:
        return min(groups, key=lambda group: (group.distance(self._heads), group.query, group.size))


def _with_heads(shape: AttentionShape, own: Heads, other: Heads) -> AttentionShape:
    """Return `shape`, whose heads are `own`, with those of `other`."""
    queries, keys = other.query * other.size / (own.query * own.size), other.kv * other.size / (own.kv * own.size)

    def scaled(value: int, by: float) -> int:
        return round(value * by)

    return replace(
        shape,
        query_heads=other.query,
        kv_heads=shape.kv_heads if shape.tile_heads > 1 else other.kv,
        pair_flops=scaled(shape.pair_flops, queries),
        kv_bytes=scaled(shape.kv_bytes, keys),
        query_bytes=scaled(shape.query_bytes, queries),
        output_bytes=scaled(shape.output_bytes, queries),
        kept_bytes=scaled(shape.kept_bytes, keys),
        context_flops=scaled(shape.context_flops, queries),
        context_bytes=scaled(shape.context_bytes, keys),
        tile_heads=other.query if shape.tile_heads > 1 else 1,
    )
