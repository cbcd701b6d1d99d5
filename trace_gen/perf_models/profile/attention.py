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

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError
from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape
from trace_gen.attention_numbers import CompiledAttention
from trace_gen.measured.lookups import LookupCounts
from trace_gen.measured.reading import WHAT, MeasuredTable
from trace_gen.perf_models.profile.numbers import SQUARES_FROM, profile_numbers
from trace_gen.perf_models.profile.skew import Skew
from trace_gen.perf_models.profile.tables import KernelSizes

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
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
        if len(times) > 1 and decode.max() > self.decode[-1]:
            slope = max(0.0, (times[-1] - times[-2]) / (self.decode[-1] - self.decode[-2]))
            found = found + np.maximum(decode - self.decode[-1], 0.0) * slope
        return found


class AttentionTable:
    """Looks up kernels of which every request that decodes has the same context; see the module's docstring.

    `rows`: as they were read; `slices`: by chunk (0: none) and number of decodes; `most`: the largest of each axis;
    `decode_range`: of the contexts of decodes; `alone`, `beside`: the chunks that were measured alone, and beside
    decodes.

    Raises `UserError` where prompts alone, decodes alone or both together were not measured.
    """

    def __init__(self, table: MeasuredTable) -> None:
        self.rows = table
        self.slices: dict[int, dict[int, Slice]] = {}
        self.most: list[int] = table.sizes.max(axis=0).tolist()
        decoding = table.sizes[table.sizes[:, 2] > 0, 3]
        self.decode_range = (int(decoding.min()), int(decoding.max())) if len(decoding) else (0, 0)
        pairs, own = np.unique(table.sizes[:, [0, 2]], axis=0, return_inverse=True)
        for place, (chunk, decodes) in enumerate(pairs.tolist()):
            rows = own.ravel() == place
            self.slices.setdefault(chunk, {})[decodes] = Slice.of(table.sizes[rows][:, [1, 3]], table.times[rows])
        self._counts = {chunk: _sorted(filter(None, slices)) for chunk, slices in self.slices.items()}
        self.alone = _sorted(chunk for chunk, slices in self.slices.items() if chunk and 0 in slices)
        self.beside = _sorted(chunk for chunk, counts in self._counts.items() if chunk and len(counts))
        for what, sizes in (
            ("no decodes without a prompt", self._counts.get(0, _sorted(()))),
            ("no prompts without decodes", self.alone),
            ("no decodes beside a prompt", self.beside),
        ):
            if not len(sizes):
                raise UserError(f"the {WHAT} has {what}", path=table.path, fix="measure them, too")

    def equal_ns(self, chunks: IntArray, contexts: IntArray, count: int, decode: FloatArray) -> FloatArray:
        """Return the times where each of `count` requests decodes on `decode` ``[k]`` tokens, beside prompts or none.

        `chunks`, `contexts` ``[c]``: tokens computed and cached of each prompt. Something of either there must be.
        """
        if not len(chunks):
            return self._decodes_ns(0, 0.0, count, decode)
        base = self._decodes_ns(int(self._chunks(count)[0]), 0.0, count, decode)
        more = (
            self._beyond_base(chunk, float(context), count, decode, base)
            for chunk, context in zip(chunks.tolist(), contexts.tolist(), strict=True)
        )
        return sum(more, base)

    def alone_ns(self, count: int, context: float) -> float:
        """Return the time of `count` decodes on `context` tokens each, without any prompt."""
        return float(self._decodes_ns(0, 0.0, count, np.array([context]))[0])

    def lookups(self, sizes: KernelSizes) -> LookupCounts:
        """See `AttentionTimes.lookups`."""
        steps, count, decode = len(sizes.decoding), sizes.decoding.shape[1], sizes.mean_context()
        prompts = list(zip(sizes.chunks.tolist(), sizes.contexts.tolist(), strict=True))
        least, (most_chunk, most_context, most_count, _) = self._chunks(count)[0], self.most
        if count > most_count or any(
            not least <= chunk <= most_chunk or context > most_context for chunk, context in prompts
        ):
            return LookupCounts(extrapolated=steps)
        outside = int(((decode < self.decode_range[0]) | (decode > self.decode_range[1])).sum()) if count else 0
        chunk, context = prompts[0] if prompts else (0, 0)
        found = self.slices.get(chunk, {}).get(count)
        measured = 0
        if found is not None and len(prompts) < 2 and context in found.prompt:
            measured = int(np.isin(decode, found.decode).sum())
        return LookupCounts(measured, steps - measured - outside, outside)

    def _chunks(self, count: int) -> FloatArray:
        """Return the chunks that were measured beside decodes, or alone."""
        return self.beside if count else self.alone

    def _beyond_base(self, chunk: int, context: float, count: int, decode: FloatArray, base: FloatArray) -> FloatArray:
        """Return what one chunk takes beyond the smallest one, beside `count` decodes."""
        chunks = self._chunks(count)
        low, high, share = _bracket(chunks, chunk)
        smaller, larger = int(chunks[low]), int(chunks[high])
        least = self._decodes_ns(smaller, context, count, decode) - base
        if not share:
            return least
        most = self._decodes_ns(larger, context, count, decode) - base
        if smaller < SQUARES_FROM:
            return _mixed(least, most, share)
        return chunk * _mixed(least / smaller, most / larger, share)

    def _decodes_ns(self, chunk: int, context: float, count: int, decode: FloatArray) -> FloatArray:
        """Return the times of a chunk that was measured (0: none) beside `count` decodes."""
        slices, counts = self.slices[chunk], self._counts[chunk]
        if not count:
            return slices[0].at(context, decode)
        low, high, share = _bracket(counts, count)
        return _mixed(
            slices[int(counts[low])].at(context, decode), slices[int(counts[high])].at(context, decode), share
        )


@dataclass(frozen=True, slots=True, eq=False)
class UnequalAttention:
    """`AttentionTimes` of a table, and of what contexts of unequal length take longer (None: nothing)."""

    table: AttentionTable
    skew: Skew | None

    def kernel_ns(self, sizes: KernelSizes) -> FloatArray:
        """See `AttentionTimes.kernel_ns`."""
        count, mean = sizes.decoding.shape[1], sizes.mean_context()
        equal = self.table.equal_ns(sizes.chunks, sizes.contexts, count, mean)
        if count < 2 or self.skew is None:
            return equal
        return equal + self.skew.excess_ns(count, mean, sizes.decoding.max(axis=1), prompts=len(sizes.chunks) > 0)

    def lookups(self, sizes: KernelSizes) -> LookupCounts:
        """See `AttentionTimes.lookups`."""
        return self.table.lookups(sizes)

    def compiled(self, shape: AttentionShape) -> CompiledAttention:
        """Return the numbers of attention of `shape`, see `profile.numbers`."""
        return profile_numbers(self.table, self.skew, shape)


def _sorted(sizes: Iterable[int]) -> FloatArray:
    return np.array(sorted(sizes), dtype=np.float64)


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
