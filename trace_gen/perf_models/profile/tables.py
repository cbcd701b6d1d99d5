"""What was measured of one tensor-parallel rank, whatever files it was read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape
from trace_gen.batch_shape import BatchShape
from trace_gen.measured.curve import Curve
from trace_gen.measured.lines import Lines
from trace_gen.measured.lookups import LookupCounts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class KernelSizes:
    """What one attention kernel works on.

    `chunks`, `contexts` ``[c]``: tokens computed and cached of each prompt; `decoding` ``[k, n]``: tokens in the cache
    of each request that decodes, at each step.
    """

    chunks: IntArray
    contexts: IntArray
    decoding: IntArray

    @property
    def empty(self) -> bool:
        """Whether there is nothing to attend for."""
        return not len(self.chunks) and not self.decoding.shape[1]

    def mean_context(self) -> FloatArray:
        """Return the mean context of the requests that decode at each step, ``[k]``; 0 where there are none."""
        count = self.decoding.shape[1]
        result: FloatArray = self.decoding.mean(axis=1) if count else np.zeros(len(self.decoding))
        return result


def kernel_sizes(shape: AttentionShape, batch: BatchShape, requests: IntArray) -> KernelSizes:
    """Return what a kernel of `shape` works on for some of the requests of `batch`, ``[n]``: contexts in its window."""
    contexts, window = batch.context_by_step()[:, requests], shape.window
    if window is not None:
        contexts = contexts % window if shape.chunked else np.minimum(contexts, window - 1)
    new_tokens = batch.new_tokens[requests]
    prompts, decodes = new_tokens > 1, new_tokens == 1
    return KernelSizes(new_tokens[prompts], contexts[0, prompts], contexts[:, decodes])


class AttentionTimes(Protocol):
    """Times of attention kernels."""

    def kernel_ns(self, sizes: KernelSizes) -> FloatArray:
        """Return the time of a kernel at each step, ``[k]``; `sizes` are not empty."""

    def lookups(self, sizes: KernelSizes) -> LookupCounts:
        """Return how many of the sizes that are looked up were measured, lie between, and outside of what was."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The tables of one rank.

    - `source`: what notes call them; `notes`: what a user should know of them, one sentence each;
    - `curves`: times over tokens or sequences (an operator's `rows`) by the operator's name;
    - `whole_attention`: reads the times of a rank that has all heads; raises `UserError` where none was measured;
    - `experts`: router and experts over tokens that have all their experts on the rank, and experts whose weights are
      read; None where the model has none;
    - `roofline`: operators that were not measured, and are timed by the roofline.
    """

    source: str
    curves: Mapping[str, Curve]
    attention: AttentionTimes
    whole_attention: Callable[[], AttentionTimes]
    experts: Lines | None = None
    roofline: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
