"""A performance model of tables in which a predictor takes the place of straight lines between rows.

Each table is learned for itself: an operator's times over tokens or sequences, experts over tokens and activated
experts, attention over its four sizes, decodes alone, prompts alone and both together apart, for they are other
kernels. What lies outside the measured sizes is the table's own to say, as without a predictor: no forest knows more
than its rows, and polynomials soon know less. So are several prompts in a step, and what unequal contexts take longer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InternalError, UserError
from foundation.records import dataclass
from trace_gen.measured.curve import Curve
from trace_gen.measured.lines import Lines
from trace_gen.measured.lookups import LookupCounts
from trace_gen.perf_model import PerfModel
from trace_gen.perf_models.profile.attention import AttentionTable, UnequalAttention
from trace_gen.perf_models.profile.formats.vidur import SeparateAttention
from trace_gen.perf_models.profile.learning.cache import learned
from trace_gen.perf_models.profile.learning.interface import Fitted, FloatArray, Predictor
from trace_gen.perf_models.profile.model import ProfileModel
from trace_gen.perf_models.profile.tables import AttentionTimes, KernelSizes, Measured
from trace_gen.perf_models.table_v0.table import LayerTable, TableV0Model

IntArray = NDArray[np.int64]
FLAG = "--profile_predictor"


def predicted(model: PerfModel, predictor: Predictor) -> PerfModel:
    """Return `model`, which looks times up, with those of `predictor` in their place."""
    note = f"times between measured ones are learned ({predictor.identity.partition(' ')[0]}): {FLAG}"
    if isinstance(model, ProfileModel):
        made: ProfileModel | TableV0Model = model.measured_as(_measured(model.measured, predictor))
    elif isinstance(model, TableV0Model):
        layers = {name: [_layer(one, predictor) for one in parts] for name, parts in model.layers.items()}
        made = TableV0Model(layers, model.lookups.source)
    else:
        what = "a kernel table was computed, not measured: there is nothing to learn from it"
        raise UserError(what, field=FLAG, fix="use lookup")
    made.notes = (*model.notes, f"{model.lookups.source}: {note}")
    return made


def _measured(measured: Measured, predictor: Predictor) -> Measured:
    return replace(
        measured,
        curves={name: LearnedCurve(curve, predictor) for name, curve in measured.curves.items()},
        attention=_attention(measured.attention, predictor),
        whole_attention=lambda: _attention(measured.whole_attention(), predictor),
        experts=None if measured.experts is None else LearnedLines(measured.experts, predictor),
    )


def _attention(times: AttentionTimes, predictor: Predictor) -> AttentionTimes:
    if isinstance(times, UnequalAttention):
        return LearnedAttention(times, LearnedTable(times.table, predictor))
    if isinstance(times, SeparateAttention):
        saves = None if times.saves is None else LearnedCurve(times.saves, predictor)
        return SeparateAttention(LearnedLines(times.prompts, predictor), LearnedLines(times.decodes, predictor), saves)
    raise InternalError(f"no predictor learns {type(times).__name__}")


def _layer(layer: LayerTable, predictor: Predictor) -> LayerTable:
    made = LayerTable(layer.points, exact=False)
    made.by_input, made.by_context = (LearnedCurve(one, predictor) for one in (layer.by_input, layer.by_context))
    return made


class LearnedCurve(Curve):
    """A `Curve` whose times from the first size to the last are a predictor's."""

    def __init__(self, curve: Curve, predictor: Predictor) -> None:
        super().__init__({int(size): value for size, value in zip(curve.sizes, curve.values, strict=True)})
        self._predictor = predictor
        self._fitted = learned(predictor, self.sizes[:, None], np.asarray(self.values, dtype=np.float64))

    def at(self, sizes: IntArray | FloatArray) -> FloatArray:
        """See `Curve.at`."""
        asked = np.asarray(sizes, dtype=np.float64)
        result = super().at(asked)
        inside = (asked >= self.sizes[0]) & (asked <= self.sizes[-1])
        if inside.any():
            result[inside] = self._predictor.at(self._fitted, asked[inside][:, None])
        return result


class LearnedLines(Lines):
    """`Lines` whose times within the measured sizes are a predictor's."""

    def __init__(self, lines: Lines, predictor: Predictor) -> None:
        sizes, times = lines.points()
        super().__init__(sizes, times)
        self._predictor = predictor
        self._fitted = learned(predictor, sizes.astype(np.float64), times)
        self._ends = sizes.min(axis=0), sizes.max(axis=0)

    def at(self, first: FloatArray | IntArray, second: FloatArray | IntArray) -> FloatArray:
        """See `Lines.at`."""
        result = np.array(super().at(first, second))
        asked = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)], axis=1)
        inside = ((asked >= self._ends[0]) & (asked <= self._ends[1])).all(axis=1)
        if inside.any():
            result[inside] = self._predictor.at(self._fitted, asked[inside])
        return result


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """What was learned of attention of one kind: `axes` of the four that vary, and the `least` and `most` of each."""

    axes: tuple[int, ...]
    fitted: Fitted
    least: FloatArray
    most: FloatArray


class LearnedTable:
    """Times of one chunk (or none) beside decodes of equal contexts (or none), learned from an `AttentionTable`."""

    def __init__(self, table: AttentionTable, predictor: Predictor) -> None:
        self._table = table
        self._predictor = predictor
        self._kinds = {kind: self._learn(*kind) for kind in ((False, True), (True, False), (True, True))}

    def _learn(self, prompts: bool, decodes: bool) -> _Kind:
        sizes, times = self._table.rows.sizes, self._table.rows.times
        own = ((sizes[:, 0] > 0) == prompts) & ((sizes[:, 2] > 0) == decodes)
        axes = ((0, 1) if prompts else ()) + ((2, 3) if decodes else ())
        rows = sizes[own][:, axes].astype(np.float64)
        return _Kind(axes, learned(self._predictor, rows, times[own]), rows.min(axis=0), rows.max(axis=0))

    def one_ns(self, chunk: int, context: float, count: int, decode: FloatArray) -> FloatArray:
        """Return the times of `chunk` tokens (0: none) on `context` beside `count` decodes on `decode` ``[k]`` each."""
        steps = len(decode)
        columns = [np.full(steps, float(chunk)), np.full(steps, float(context)), np.full(steps, float(count)), decode]
        kind = self._kinds[chunk > 0, count > 0]
        asked = np.stack([columns[axis] for axis in kind.axes], axis=1)
        inside = ((asked >= kind.least) & (asked <= kind.most)).all(axis=1)
        if inside.all():
            return self._predictor.at(kind.fitted, asked)
        prompts = np.full(int(chunk > 0), chunk), np.full(int(chunk > 0), int(context))
        result = self._table.equal_ns(*prompts, count, decode)
        if inside.any():
            result = np.where(inside, self._predictor.at(kind.fitted, asked), result)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class LearnedAttention:
    """`AttentionTimes` of a learned table; several prompts and unequal contexts are as `looked_up` has them."""

    looked_up: UnequalAttention
    table: LearnedTable

    def kernel_ns(self, sizes: KernelSizes) -> FloatArray:
        """See `AttentionTimes.kernel_ns`."""
        count, mean, skew = sizes.decoding.shape[1], sizes.mean_context(), self.looked_up.skew
        equal = self._equal_ns(sizes.chunks, sizes.contexts, count, mean)
        if count < 2 or skew is None:
            return equal
        return equal + skew.excess_ns(count, mean, sizes.decoding.max(axis=1), prompts=len(sizes.chunks) > 0)

    def lookups(self, sizes: KernelSizes) -> LookupCounts:
        """See `AttentionTimes.lookups`."""
        return self.looked_up.lookups(sizes)

    def _equal_ns(self, chunks: IntArray, contexts: IntArray, count: int, decode: FloatArray) -> FloatArray:
        """Return the times beside decodes of equal contexts: of several prompts, each adds what it has beyond a base.

        The base is the smallest chunk that was measured, without context, beside the same decodes.
        """
        if len(chunks) < 2:
            chunk, context = (int(chunks[0]), float(contexts[0])) if len(chunks) else (0, 0.0)
            return self.table.one_ns(chunk, context, count, decode)
        table = self.looked_up.table
        base = self.table.one_ns(int((table.beside if count else table.alone)[0]), 0.0, count, decode)
        prompts = zip(chunks.tolist(), contexts.tolist(), strict=True)
        each = (self.table.one_ns(chunk, float(context), count, decode) for chunk, context in prompts)
        return sum((np.maximum(one - base, 0.0) for one in each), base)
