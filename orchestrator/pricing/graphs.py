"""Which steps a server has captured as graphs, and the tokens that the device computes for them.

A graph has a fixed number of tokens. A step runs as the next larger one, the rest being padding that every operator
but attention computes; engines that advance in lock step all run the one of the largest. Logits are computed after the
graph, so of padding there are none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.batch_shape import BatchShape


@dataclass(frozen=True, slots=True)
class CapturedGraphs:
    """The tokens of each captured graph, ascending; none: every step is launched operator by operator."""

    sizes: tuple[int, ...] = ()

    def hold(self, tokens: int) -> bool:
        """Whether a step of so many tokens runs as a graph."""
        return bool(self.sizes) and tokens <= self.sizes[-1]

    def sizes_for(self, most: int) -> NDArray[np.int64]:
        """Return the tokens that a step of 0, 1, ... `most` tokens runs as."""
        tokens = np.arange(most + 1)
        sizes = np.array(self.sizes, dtype=np.int64)
        captured = tokens[1 : max(self.sizes, default=0) + 1]
        tokens[1 : len(captured) + 1] = sizes[np.searchsorted(sizes, captured)]
        return tokens

    def padded(self, batches: Sequence[BatchShape]) -> Sequence[BatchShape]:
        """Return the batches of a wave, or the one batch, with the padding of their graph."""
        largest = max(batch.total_tokens for batch in batches)
        if not self.hold(largest):
            return batches
        size = self.sizes[bisect_left(self.sizes, largest)]
        return [_filled(batch, size) for batch in batches]


def _filled(batch: BatchShape, size: int) -> BatchShape:
    """Return `batch` with padding up to `size` tokens; one that computes nothing stays as it is."""
    return replace(batch, graph_padding=size - batch.total_tokens) if batch.total_tokens else batch


def vllm_sizes(most: int) -> tuple[int, ...]:
    """Return the sizes that vLLM captures up to `most` tokens: 1, 2, 4, by eights to 256, by sixteens beyond.

    Source: `VllmConfig._set_cudagraph_sizes` of vLLM 0.19 (vllm/config/vllm.py).
    """
    return tuple(size for size in (1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16)) if size <= most)
