"""Latencies of kernels as NVIDIA's aiconfigurator measured them; what it did not measure is the roofline's.

Measured are matrix products (by number format), attention of prompts and of decodes, the two halves of latent
attention's up-projection as batched products, and the experts of a mixture as a whole. Norms, rotary embeddings,
activations, embedding and sampler are in no table: fused with others or bound by memory, they are the roofline's, as is
a format that was not measured. `lookups` counts both.

Experts are timed as one: activation and sum are in it and take a nanosecond each; where ranks differ the slowest
decides. What quantising activations takes before a product in 8 bits is not in the times: compiled engines fuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foundation.recent import RecentByIdentity
from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape
from trace_gen.batch_shape import BatchShape
from trace_gen.measured.lookups import LookupCounts, Lookups
from trace_gen.perf_model import AttentionGranularity, ExpertPart, IntArray, LatencySource, OperatorTable
from trace_gen.perf_models.aiconfigurator.attention import AttentionTimes
from trace_gen.perf_models.aiconfigurator.experts import Division, ExpertTimes
from trace_gen.perf_models.aiconfigurator.matrices import MatrixTimes
from trace_gen.perf_models.roofline.model import RooflineModel
from trace_gen.trace import OperatorClass
from trace_gen.vocabulary import FUSED, Vocabulary

FloatArray = NDArray[np.float64]
SIZES_KEPT = 256
"""So many different sizes of batches are remembered: as many as `trace_gen.generator` hands out again."""
INSIDE_EXPERTS = ("expert_act_fn", "expert_sum")
EXPERTS = "experts"


@dataclass(frozen=True, slots=True)
class MatrixKey:
    """What tells a model's matrices apart in an operator table: name, operations a row, arithmetic."""

    name: str
    flops: int
    arithmetic: int


class TimesMatrix(Protocol):
    """The times of one matrix, by rows."""

    @property
    def corrected(self) -> tuple[int, int]:
        """How many rows of the curves that were used were outliers, and how many these have."""

    def time_ns(self, rows: int) -> tuple[float, LookupCounts]:
        """Return the time for so many `rows`, and whether it was measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A matrix of `inputs` x `outputs`, whose times are in `table`."""

    outputs: int
    inputs: int
    table: MatrixTimes

    @property
    def corrected(self) -> tuple[int, int]:
        """See `TimesMatrix`."""
        return self.table.corrected

    def time_ns(self, rows: int) -> tuple[float, LookupCounts]:
        """See `TimesMatrix`."""
        return self.table.time_ns(rows, self.outputs, self.inputs)


class AiconfiguratorModel:
    """See the module's docstring.

    - `matrices`: those that a table has; `experts`: the mixture's table, None where none has it;
    - `attention`: makes the times of a shape, None where no table has them.
    """

    vocabulary: Vocabulary = FUSED
    attention_granularity: AttentionGranularity = "batch"
    latency_source: LatencySource = "model"

    def __init__(
        self,
        source: str,
        roofline: RooflineModel,
        matrices: Mapping[MatrixKey, TimesMatrix],
        attention: Callable[[AttentionShape], AttentionTimes | None],
        experts: ExpertTimes | None,
        said: tuple[str, ...],
    ) -> None:
        self.lookups = Lookups(source)
        self._roofline, self._matrices, self._experts, self._said = roofline, matrices, experts, said
        self._make_attention = attention
        self._attention: dict[AttentionShape, AttentionTimes | None] = {}
        self._plain: RecentByIdentity[FloatArray] = RecentByIdentity(SIZES_KEPT)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `trace_gen.measured.lookups.TellsOfLookups`: what was read, and until now, which rows were outliers."""
        tables = {
            id(matrix.table if isinstance(matrix, Matrix) else matrix): matrix.corrected
            for matrix in self._matrices.values()
        }
        counts = [*tables.values(), *(one.corrected for one in self._attention.values() if one is not None)]
        if self._experts is not None:
            counts.append(self._experts.corrected)
        corrected, used = sum(some for some, _ in counts), sum(rows for _, rows in counts)
        if not corrected or not self.lookups.counts():
            return self._said
        what = f"{corrected} of {used} rows in use were outliers (a larger size was faster) and take a fitted time"
        return (*self._said, f"{self.lookups.source}: {what}")

    def latency_ns(self, operators: OperatorTable) -> IntArray:
        """Return the measured time of each operator, or the roofline's, shape ``[k, m]``."""
        result = np.empty(operators.flops.shape)
        result[:] = self._plain.get([operators.rows], lambda: self._plain_ns(operators))
        for part in operators.attention:
            if part.per_request:
                requests = operators.request[part.columns] - part.first
                result[:, part.columns] = self._requests_ns(part.shape, part.batch)[:, requests]
            else:
                result[:, part.columns] = self._attention_ns(part.shape, part.batch)[:, None]
        return np.maximum(np.rint(result), 1).astype(np.int64)

    def attention_ns(self, shape: AttentionShape, batch: BatchShape) -> IntArray:
        """See `trace_gen.perf_model.TimesAttention`."""
        return np.maximum(np.rint(self._attention_ns(shape, batch)), 1).astype(np.int64)

    def _plain_ns(self, operators: OperatorTable) -> FloatArray:
        """Return the time of every operator but attention, shape ``[m]``."""
        result: FloatArray = self._roofline.latency_ns(operators)[0].astype(np.float64)
        timed_as_one = self._fill_experts(operators, result)
        for column, name in enumerate(operators.names):
            kind, rows = operators.kinds[column], int(operators.rows[column])
            if kind in (OperatorClass.ATTENTION, OperatorClass.COMMUNICATION) or not rows:
                continue
            if timed_as_one and (kind == OperatorClass.GROUPED_GEMM or name in INSIDE_EXPERTS):
                result[column] = 1.0 if name in INSIDE_EXPERTS else result[column]
                continue
            flops, rest = divmod(int(operators.flops[0, column]), rows)
            matrix = None if rest else self._matrices.get(MatrixKey(name, flops, int(operators.arithmetic[column])))
            if matrix is None:
                self.lookups.count(name, LookupCounts(roofline=1))
            else:
                result[column], found = matrix.time_ns(rows)
                self.lookups.count(name, found)
        return result

    def _fill_experts(self, operators: OperatorTable, result: FloatArray) -> bool:
        """Put the times of experts into `result`; return whether a table has them."""
        known = False
        for part in operators.experts:
            times = self._experts_ns(part)
            if times is not None:
                result[part.columns], known = times, True
        return known

    def _experts_ns(self, part: ExpertPart) -> FloatArray | None:
        """Return the times of the experts' matrices, ``[c]``: the slowest rank's, shared out by FLOPs in each layer."""
        if self._experts is None:
            return None
        result: FloatArray = np.zeros(len(part.columns))
        for layer in np.unique(part.layer):
            own = np.flatnonzero(part.layer == layer)
            if len(own) == 1:  # one matrix alone was not measured
                return None
            flops, copies = part.flops[own].astype(np.float64), part.copies[own[0]]
            busy = np.flatnonzero(copies > 0)
            if not busy.size:
                continue
            # Of a token's three matrices the last, of the fewest operations, goes from the inner width to the hidden.
            of_copy = flops[:, busy[0]].min() / copies[busy[0]]
            found = self._experts.times_ns(copies[busy].astype(np.float64), Division(part.held, self._inner(of_copy)))
            if found is None:
                return None
            self.lookups.count(EXPERTS, found[1])
            slowest = int(np.argmax(found[0]))
            of_each = flops[:, busy][:, slowest]
            result[own] = found[0][slowest] * of_each / of_each.sum()
        return result

    def _inner(self, flops: float) -> int:
        assert self._experts is not None
        return int(flops // (2 * self._experts.hidden))

    def _attention_ns(self, shape: AttentionShape, batch: BatchShape) -> FloatArray:
        """Return the time of a kernel over `batch` at each step, ``[k]``."""
        if shape not in self._attention:
            self._attention[shape] = self._make_attention(shape)
        times = self._attention[shape]
        if times is None:
            self.lookups.count("attention", LookupCounts(roofline=batch.steps))
            return self._roofline.attention_ns(shape, batch).astype(np.float64)
        if not len(batch.new_tokens):
            return np.zeros(batch.steps)
        result, found = times.times_ns(batch)
        self.lookups.count("attention", found)
        return result

    def _requests_ns(self, shape: AttentionShape, batch: BatchShape) -> FloatArray:
        """Return the time of a kernel for each request, ``[k, n]``."""
        every = np.arange(len(batch.new_tokens))
        return np.stack([self._attention_ns(shape, batch.only(every == request)) for request in every], axis=1)
