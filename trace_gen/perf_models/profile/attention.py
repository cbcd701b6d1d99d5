"""The time of one attention kernel over a batch, from a table over four sizes.

    prefill_chunk   tokens of one prompt that are computed, or 0        n_decode    requests that decode
    kv_prefill      tokens of that prompt that are in the KV cache      kv_decode   tokens in the cache of each of them

The table has *slices*, one for each pair of chunk and decodes that was measured, and in each a grid over the two
contexts (of two measurements joined, a grid that is not full: what lacks is interpolated along `kv_decode`, over which
times are straight lines). Between slices and within them times are interpolated linearly; below the first size they
are the first's, above the last they go on with the last two points' slope, never downwards. Only over chunks from
`SQUARES_FROM` tokens on it is the time a token that is interpolated, for a chunk attends to itself: with every second
chunk left out, times in between come out 0.2 % too long in the mean on an RTX 4090, by straight lines 10 %.

What the table does not have a column for:

- **several prompts in one batch** are chunks of their own, not one long one, whose queries would attend to each other:
  each adds what it takes beyond the smallest chunk that was measured beside the same decodes;
- **unequal contexts**: the kernel takes longer than with equal ones of the same mean. By how much is the `Skew`'s to
  say, where it was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trace_gen.measured.reading import MeasuredTable
from trace_gen.perf_models.profile.skew import Skew

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SQUARES_FROM = 256
"""Tokens of a chunk from which its time grows with the square, below it is the launching and the tiles that show."""
AXES = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Times ``[p, d]`` (ns) over `prompt` contexts ``[p]`` and `decode` contexts ``[d]``, at one chunk and decodes."""

    prompt: FloatArray
    decode: FloatArray
    times: FloatArray

    @classmethod
    def of(cls, contexts: IntArray, times: FloatArray) -> Slice:
        """Return the slice of rows `contexts` ``[n, 2]``; see the module's text for a grid that is not full."""
        prompt, decode = np.unique(contexts[:, 0]), np.unique(contexts[:, 1]).astype(np.float64)
        rows = [contexts[:, 0] == context for context in prompt]
        grid = np.stack([np.interp(decode, contexts[own, 1], times[own]) for own in rows])
        return cls(prompt.astype(np.float64), decode, grid)

    def at(self, prompt: float, decode: FloatArray) -> FloatArray:
        """Return the times where the prompt has `prompt` tokens of context, and those that decode `decode` ``[k]``."""
        low, high, share = _bracket(self.prompt, prompt)
        return _mixed(self._row(low, decode), self._row(high, decode), share)

    def _row(self, place: int, decode: FloatArray) -> FloatArray:
        times = self.times[place]
        found: FloatArray = np.interp(decode, self.decode, times)
        if len(times) > 1 and decode[-1] > self.decode[-1]:
            slope = max(0.0, (times[-1] - times[-2]) / (self.decode[-1] - self.decode[-2]))
            found = found + np.maximum(decode - self.decode[-1], 0.0) * slope
        return found


class AttentionTable:
    """Looks batches up; see the module's docstring."""

    def __init__(self, table: MeasuredTable) -> None:
        self.skew: Skew | None = None
        """What unequal contexts take longer; None: nothing."""
        self.most = table.sizes.max(axis=0)
        self._slices: dict[int, dict[int, Slice]] = {}
        pairs, own = np.unique(table.sizes[:, [0, 2]], axis=0, return_inverse=True)
        for place, (chunk, decodes) in enumerate(pairs.tolist()):
            rows = own.ravel() == place
            self._slices.setdefault(chunk, {})[decodes] = Slice.of(table.sizes[rows][:, [1, 3]], table.times[rows])
        self._counts = {chunk: np.array(sorted(slices), dtype=np.float64) for chunk, slices in self._slices.items()}
        self._chunks = {
            beside: np.array(
                sorted(chunk for chunk, counts in self._slices.items() if chunk and self._has(counts, beside))
            )
            for beside in (False, True)
        }

    @staticmethod
    def _has(counts: dict[int, Slice], beside: bool) -> bool:
        return any(counts) if beside else 0 in counts

    def batch_ns(self, chunks: IntArray, contexts: IntArray, decoding: IntArray) -> FloatArray:
        """Return the time of a kernel at each step, ``[k]``.

        `chunks`, `contexts` ``[c]``: tokens computed and cached of each prompt; `decoding` ``[k, n]``: tokens in the
        cache of each request that decodes.
        """
        count = decoding.shape[1]
        mean = decoding.mean(axis=1) if count else np.zeros(len(decoding))
        at_mean = self._kernel(chunks, contexts, count, mean)
        if count < 2 or self.skew is None:
            return at_mean
        return at_mean + self.skew.excess_ns(count, mean, decoding.max(axis=1), prompts=len(chunks) > 0)

    def alone_ns(self, count: int, context: float) -> float:
        """Return the time of `count` decodes on `context` tokens each, without any prompt."""
        return float(self._beside(0, 0.0, count, np.array([context]))[0])

    def beyond(self, chunks: IntArray, contexts: IntArray, decoding: IntArray) -> int:
        """Return at how many steps some size is larger than any that was measured; arguments as in `batch_ns`."""
        chunk, context, count, decode = self.most.tolist()
        if decoding.shape[1] > count or (chunks > chunk).any() or (contexts > context).any():
            return len(decoding)
        return int((decoding.mean(axis=1) > decode).sum()) if decoding.shape[1] else 0

    def _kernel(self, chunks: IntArray, contexts: IntArray, count: int, decode: FloatArray) -> FloatArray:
        """Return the times of a kernel whose decodes have `decode` ``[k]`` tokens of context each."""
        if not len(chunks):
            return self._beside(0, 0.0, count, decode)
        base = self._beside(int(self._chunks[count > 0][0]), 0.0, count, decode)
        more = (
            self._beyond_base(chunk, float(context), count, decode, base)
            for chunk, context in zip(chunks.tolist(), contexts.tolist(), strict=True)
        )
        return sum(more, base)

    def _beyond_base(self, chunk: int, context: float, count: int, decode: FloatArray, base: FloatArray) -> FloatArray:
        """Return what one chunk takes beyond the smallest one, beside `count` decodes."""
        chunks = self._chunks[count > 0]
        low, high, share = _bracket(chunks, chunk)
        smaller, larger = int(chunks[low]), int(chunks[high])
        least = self._beside(smaller, context, count, decode) - base
        if not share:
            return least
        most = self._beside(larger, context, count, decode) - base
        if smaller < SQUARES_FROM:
            return _mixed(least, most, share)
        return chunk * _mixed(least / smaller, most / larger, share)

    def _beside(self, chunk: int, context: float, count: int, decode: FloatArray) -> FloatArray:
        slices = self._slices[chunk]
        if not count:
            return slices[0].at(context, decode)
        counts = self._counts[chunk]
        counts = counts[counts > 0]
        low, high, share = _bracket(counts, count)
        return _mixed(
            slices[int(counts[low])].at(context, decode), slices[int(counts[high])].at(context, decode), share
        )


def _has(slices: Mapping[int, Slice], beside: bool) -> bool:
    """Whether there are slices with decodes beside the chunk, or one without."""
    return any(slices) if beside else 0 in slices


def _bracket(sizes: NDArray[np.generic], size: float) -> tuple[int, int, float]:
    """Return the two places of `sizes` that `size` lies between (or beyond), and how far along: 0 below the first."""
    if len(sizes) == 1 or size <= sizes[0]:
        return 0, 0, 0.0
    high = min(int(np.searchsorted(sizes, size)), len(sizes) - 1)
    low = high - 1
    return low, high, float((size - sizes[low]) / (sizes[high] - sizes[low]))


def _mixed(low: FloatArray, high: FloatArray, share: float) -> FloatArray:
    """Return what lies `share` of the way from `low` to `high`; beyond 1 it is never less than `high`."""
    if not share:
        return low
    step = (high - low) * share
    return low + step if share <= 1 else np.maximum(low + step, high)
