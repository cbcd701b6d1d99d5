"""Latencies looked up in a kernel table (`trace_gen.kernels`): kernels are known by their shapes.

An operator is looked up at its rows, a matrix of experts at its rows and the experts whose weights are read (where
ranks differ, the slowest decides), attention of each shape at the whole batch (`trace_gen.perf_models.profile.
attention`). What the table lacks is a `UserError` that names it: nothing is guessed.

Context-parallel ranks work on parts of sequences: a part of a prompt is looked up as a chunk on so long a context that
its work is the same (`trace_gen.attention.divided` has the work).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError
from foundation.recent import RecentByIdentity
from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape
from trace_gen.attention_numbers import CompiledAttention
from trace_gen.batch_shape import BatchShape
from trace_gen.kernels.layout import RankTables
from trace_gen.kernels.shapes import ExpertKernel, PlainKernel
from trace_gen.measured.curve import Curve
from trace_gen.measured.lines import Lines
from trace_gen.measured.lookups import Lookups
from trace_gen.perf_model import (
    AttentionGranularity,
    AttentionPart,
    ExpertPart,
    IntArray,
    LatencySource,
    OperatorTable,
)
from trace_gen.perf_models.profile.attention import AttentionTable, UnequalAttention
from trace_gen.perf_models.profile.model import NOT_LOOKED_UP, SIZES_KEPT
from trace_gen.perf_models.profile.numbers import EXTRAPOLATED, MEASURED
from trace_gen.perf_models.profile.tables import KernelSizes, kernel_sizes
from trace_gen.vocabulary import Vocabulary

FloatArray = NDArray[np.float64]
_NEAR = 1e-6
"""How far the bytes of experts may differ, for shares of them are rounded."""


@dataclass(frozen=True, slots=True, eq=False)
class KernelTimes:
    """The times of one rank's kernels.

    `operators`, `experts`: by name, arithmetic and FLOPs a row, those that differ in bytes alone beside each other.
    """

    operators: Mapping[tuple[str, int, int], list[tuple[PlainKernel, Curve]]]
    experts: Mapping[tuple[str, int, int], list[tuple[ExpertKernel, Lines]]]
    attention: Mapping[AttentionShape, UnequalAttention]

    @classmethod
    def of(cls, tables: RankTables) -> KernelTimes:
        """Return the times in `tables`; sizes that lack are a `UserError`."""
        operators: dict[tuple[str, int, int], list[tuple[PlainKernel, Curve]]] = {}
        for plain, table in tables.operators.items():
            key = plain.name, plain.arithmetic, plain.flops
            operators.setdefault(key, []).append((plain, Curve.of(table.sizes[:, 0], table.times)))
        experts: dict[tuple[str, int, int], list[tuple[ExpertKernel, Lines]]] = {}
        for matrix, table in tables.experts.items():
            key = matrix.name, matrix.arithmetic, matrix.flops
            experts.setdefault(key, []).append((matrix, Lines(table.sizes, table.times)))
        attention = {
            one.shape: UnequalAttention(AttentionTable(table), None) for one, table in tables.attention.items()
        }
        return cls(operators, experts, attention)

    @property
    def names(self) -> frozenset[str]:
        """The operators that the table has, attention left out."""
        return frozenset(name for name, _, _ in (*self.operators, *self.experts))


class KernelTableModel:
    """See the module's docstring.

    `source`: what notes and errors call the table; `notes`: what a user should know; `off`: as of `Lookups`.
    """

    attention_granularity: AttentionGranularity = "batch"
    latency_source: LatencySource = "model"

    def __init__(
        self,
        times: KernelTimes,
        source: str,
        vocabulary: Vocabulary,
        notes: tuple[str, ...] = (),
        off: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.times = times
        self.vocabulary = vocabulary
        self.lookups = Lookups(source, off)
        self.notes = notes
        self._compiled: dict[AttentionShape, CompiledAttention] = {}
        self._plain: RecentByIdentity[FloatArray] = RecentByIdentity(SIZES_KEPT)

    def latency_ns(self, operators: OperatorTable) -> IntArray:
        """Return the time of each operator in the table, shape ``[k, m]``."""
        result = np.empty(operators.flops.shape)
        result[:] = self._plain.get([operators.rows], lambda: self._plain_ns(operators))
        for part in operators.attention:
            if part.per_request:
                raise self._lacks("attention of single requests")
            result[:, part.columns] = self._kernel_ns(part.shape, _sizes(part))[:, None]
        return _whole(result)

    def attention_ns(self, shape: AttentionShape, batch: BatchShape) -> IntArray:
        """See `trace_gen.perf_model.TimesAttention`."""
        return _whole(self._kernel_ns(shape, kernel_sizes(shape, batch, np.arange(len(batch.new_tokens)))))

    def compiled_attention(self, shape: AttentionShape) -> CompiledAttention:
        """See `trace_gen.perf_model.CompilesAttention`; what compiled functions look up counts among `lookups`."""
        if shape not in self._compiled:
            numbers = self._attention(shape).compiled(shape)
            self.lookups.follow("attention", numbers.ints[MEASURED : EXTRAPOLATED + 1])
            self._compiled[shape] = numbers
        return self._compiled[shape]

    def _attention(self, shape: AttentionShape) -> UnequalAttention:
        found = self.times.attention.get(shape)
        if found is None:
            raise self._lacks(f"attention of {shape.query_heads:g} heads on {shape.kv_heads:g} of the KV cache")
        return found

    def _kernel_ns(self, shape: AttentionShape, sizes: KernelSizes) -> FloatArray:
        times = self._attention(shape)
        if sizes.empty:
            return np.zeros(len(sizes.decoding))
        self.lookups.count("attention", times.lookups(sizes))
        return times.kernel_ns(sizes)

    def _plain_ns(self, operators: OperatorTable) -> FloatArray:
        """Return the time of every operator but attention, whose place holds 0, shape ``[m]``."""
        result = np.zeros(len(operators.names))
        for column, rows in enumerate(operators.rows.tolist()):
            if rows and operators.kinds[column] not in NOT_LOOKED_UP:
                name, curve = operators.names[column], self._curve(operators, column, rows)
                self.lookups.count(name, curve.lookups(operators.rows[column : column + 1]))
                result[column] = curve.at(operators.rows[column : column + 1])[0]
        for part in operators.experts:
            for place, column in enumerate(part.columns.tolist()):
                if operators.rows[column]:
                    result[column] = self._experts_ns(operators, part, place, column)
        return result

    def _curve(self, operators: OperatorTable, column: int, rows: int) -> Curve:
        name, flops = operators.names[column], int(operators.flops[0, column])
        moved, key = int(operators.mem_bytes[0, column]), (name, int(operators.arithmetic[column]), flops // rows)
        for kernel, curve in self.times.operators.get(key, ()):
            if rows * kernel.traffic + kernel.weights == moved:
                return curve
        raise self._lacks(f"{name} of {flops // rows} operations a row")

    def _experts_ns(self, operators: OperatorTable, part: ExpertPart, place: int, column: int) -> float:
        """Return the time of the rank whose experts take longest in one column."""
        most, rows = int(part.flops[place].max()), int(operators.rows[column])
        key = operators.names[column], int(operators.arithmetic[column]), most // rows
        busy = part.flops[place] > 0
        if not busy.any():
            return 0.0
        worked, active = part.flops[place][busy] // key[2], part.active[place][busy]
        moved = part.mem_bytes[place][busy]
        for kernel, lines in self.times.experts.get(key, ()):
            if np.allclose(kernel.traffic * worked + kernel.weights * active, moved, rtol=_NEAR, atol=1):
                self.lookups.count("experts", lines.lookups(worked, active))
                return float(lines.at(worked, active).max())
        raise self._lacks(f"{key[0]} of {key[2]} operations a row")

    def _lacks(self, what: str) -> UserError:
        fix = "fill a table for this deployment: orrery kernels"
        return UserError(f"{self.lookups.source}: no kernel is {what}", field="--profile_dir", fix=fix)


def _sizes(part: AttentionPart) -> KernelSizes:
    """Return what attention of `part` works on; of a divided sequence, contexts on which its work is the same."""
    shape, batch = part.shape, part.batch
    if shape.window is not None:
        return kernel_sizes(shape, batch, np.arange(len(batch.new_tokens)))
    new = batch.new_tokens
    # The inverse of `AttentionShape.work`: exactly the contexts of a sequence that is not divided.
    own = part.work.flops - shape.pair_flops * (new * (new + 1) // 2)
    contexts = np.maximum(np.rint(own / (shape.pair_flops * new + shape.context_flops)), 0).astype(np.int64)
    prompts, decodes = new > 1, new == 1
    return KernelSizes(new[prompts], contexts[0, prompts], contexts[:, decodes])


def _whole(times: FloatArray) -> IntArray:
    """Return times as whole nanoseconds, at least one."""
    return np.maximum(np.rint(times), 1).astype(np.int64)
