"""Weights that stay in host memory and are streamed: every iteration loads them, before the operator that reads them.

As with vLLM's `--cpu-offload-gb`, the layers of a stage give up their weights in order, operator by operator, until so
many bytes of a rank are away; the one that reaches the limit goes whole. Embedding, final norm and LM head stay. What
is streamed takes no device memory. Experts are loaded whole, whoever is chosen.

In the trace the operator's weights are `Location.REMOTE`; a backend loads them at the figures of memory.json, after the
operators before and before this one, so nothing of the load is hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.operators import Operator


@dataclass(frozen=True, slots=True)
class StreamedWeights:
    """Operators of layers whose weights are away, and by stage how many bytes of a rank these are."""

    operators: frozenset[tuple[int, Operator]] = field(default_factory=frozenset)
    stage_bytes: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, blocks: Sequence[Sequence[Operator]], kind_of: Sequence[int], stages: Sequence[range], most_bytes: int
    ) -> StreamedWeights:
        """Return what is away where at most about `most_bytes` of a rank are.

        `blocks` are the operators of each kind of layer, `kind_of` the kinds of all layers, `stages` their layers.
        """
        away = set()
        for layers in stages:
            sent = 0
            for layer, operator in _weighty(blocks, kind_of, layers):
                if sent >= most_bytes:
                    break
                away.add((layer, operator))
                sent += operator.weight_bytes
        # Counted once more, because operators of a block that are equal in all go together.
        held = [
            sum(row[1].weight_bytes for row in _weighty(blocks, kind_of, layers) if row in away) for layers in stages
        ]
        return cls(frozenset(away), tuple(held))

    def bytes_of(self, stage: int) -> int:
        """Return the bytes of a rank of `stage` that are away."""
        return self.stage_bytes[stage] if self.operators else 0

    def rows(
        self, operators: Sequence[Operator], column: NDArray[np.int64], layer: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """Return which rows stream their weights, of rows with these `column`s of `operators` and layers."""
        if not self.operators:
            return np.zeros(len(column), dtype=np.bool_)
        layers = int(layer.max(initial=0)) + 1
        table = np.zeros((layers + 1, len(operators) + 1), dtype=np.bool_)  # the last ones: no layer, no operator
        for place, operator in enumerate(operators):
            table[:layers, place] = [(number, operator) in self.operators for number in range(layers)]
        found: NDArray[np.bool_] = table[layer, column]
        return found


def _weighty(
    blocks: Sequence[Sequence[Operator]], kind_of: Sequence[int], layers: range
) -> Iterator[tuple[int, Operator]]:
    """Yield the operators of `layers` that have weights, in order."""
    for layer in layers:
        for operator in blocks[kind_of[layer]]:
            if operator.weight_bytes and not operator.is_per_request:
                yield layer, operator
