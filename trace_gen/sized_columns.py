"""What one count decides of the operators of an iteration, for many values of the count at once.

Every column of an operator table but attention's works on rows that one count of the batch gives: all its tokens, its
samples, the tokens of requests that decode, or those of prompts. So its time is a function of that count, and so are
the bytes of its collective and of what a stage sends on. Many values are laid side by side as if each were the batch
of one member of a wave, so that `column_sizes` and the performance model see one wide table:

    columns of the table    norm qkv .. | norm qkv .. | norm qkv ..
    count                   64          | 65          | 66
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from foundation.recent import Recent
from foundation.records import dataclass
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.measured.lookups import TellsOfLookups
from trace_gen.mlp.routing import BalancedRouting
from trace_gen.operator_table import TableShape, column_sizes
from trace_gen.operators import Rows
from trace_gen.perf_model import OperatorTable
from trace_gen.trace import IntArray, OperatorClass
from trace_gen.trace_structure import Structure

SHAPES_KEPT = 8


class Count(IntEnum):
    """A count of a batch that sizes depend on."""

    TOKENS = 0
    SAMPLES = 1
    DECODES = 2
    PROMPTS = 3


COUNT_OF = dict.fromkeys(Rows, Count.TOKENS) | {
    Rows.LOGITS: Count.SAMPLES,
    Rows.DECODES: Count.DECODES,
    Rows.OWN_DECODES: Count.DECODES,
    Rows.ALL_PARTS: Count.DECODES,
    Rows.OWN_PROMPTS: Count.PROMPTS,
}
"""Which count gives which rows, where a sequence is not divided over ranks."""


@dataclass(frozen=True, slots=True, eq=False)
class CountedSizes:
    """Sizes for `v` values of a count, ``[v, columns]`` of those that it decides anything of.

    `latency_ns` is 0 in the columns whose work another count decides, or the context (attention).
    """

    latency_ns: IntArray
    comm_bytes: IntArray
    output_bytes: IntArray

    def among(self, values: slice) -> CountedSizes:
        """Return the sizes for some of the values."""
        return CountedSizes(self.latency_ns[values], self.comm_bytes[values], self.output_bytes[values])


class SizedColumns:
    """The columns of `structure`, which `generator` made for one batch, that `count` decides anything of.

    `columns` ``[c]``: their places in the table; `works`, `carries`, `puts_out` ``[c]``: whether `count` decides their
    work, what their collective carries, and their output; `kinds`: of their operators. `least`: the smallest value that
    there is but 0.
    """

    def __init__(self, generator: TraceGenerator, structure: Structure, count: Count) -> None:
        self._generator = generator
        self._count = count
        operators = [entry.operator for entry in structure.entries]
        decided = np.array(
            [[COUNT_OF[rows] is count for rows in (o.work_rows, o.comm_rows, o.output_rows)] for o in operators]
        )
        self.columns: NDArray[np.intp] = np.flatnonzero(decided.any(axis=1))
        self.works, self.carries, self.puts_out = decided[self.columns].T
        self._entries = [structure.entries[column] for column in self.columns]
        self.kinds = [entry.operator.kind for entry in self._entries]
        apart = (OperatorClass.ATTENTION, OperatorClass.COMMUNICATION)
        self.works &= np.array([kind not in apart for kind in self.kinds], bool)  # np.isin imports numpy.ma
        self.least = 2 if count is Count.PROMPTS else 1
        self._shapes: Recent[TableShape] = Recent(SHAPES_KEPT)

    @property
    def alike(self) -> bool:
        """Whether many values may be worked out at once: no tokens are told apart, and no lookups are counted."""
        routed, model = self._generator.routing, self._generator.perf_model
        return isinstance(routed, BalancedRouting) and not isinstance(model, TellsOfLookups)

    def sizes(self, values: Sequence[int]) -> CountedSizes:
        """Return the sizes for `values` of the count, each at least `least`."""
        shape = self._shapes.get(len(values), lambda: self._side_by_side(len(values)))
        batches = [_batch_with(self._count, value) for value in values]
        sizes = column_sizes(shape, batches, self._generator.routing, 0)
        table = OperatorTable(
            names=shape.names,
            kinds=np.where(np.tile(self.works, len(values)), shape.kinds, OperatorClass.COMMUNICATION),
            arithmetic=shape.arithmetic,
            rows=sizes.rows,
            request=shape.request,
            whole=shape.whole,
            flops=sizes.flops[None, :],
            mem_bytes=sizes.mem_bytes[None, :],
            attention=(),
            experts=sizes.experts,
            batch=batches[0],
            tensor=shape.mesh.tensor,
        )
        by_value = (len(values), len(self.columns))
        latency = self._generator.perf_model.latency_ns(table).reshape(by_value)
        return CountedSizes(
            latency * self.works, sizes.comm_bytes.reshape(by_value), sizes.output_bytes.reshape(by_value)
        )

    def _side_by_side(self, values: int) -> TableShape:
        entries = [replace(entry, member=member) for member in range(values) for entry in self._entries]
        return self._generator.table_shape(entries)


def _batch_with(count: Count, value: int) -> BatchShape:
    """Return a batch of which `count` is `value`, and so are its tokens."""
    one, zero = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    if count is Count.PROMPTS:
        return BatchShape(zero, one * value, zero, zero)
    return BatchShape(zero, one, zero, one, padding=value - 1)
