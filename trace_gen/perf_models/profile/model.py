"""Latencies looked up in tables that were measured on a device, operator by operator.

Matrix products, norms and element-wise operators are looked up at the tokens of the batch, LM head and sampler at the
sequences whose logits are needed, attention at the whole batch. Router and experts were measured
as one: their time is that of the experts' matrices, by their FLOPs; router, activation and sum are
in it and take a nanosecond each. Where ranks have different experts the slowest decides; a rank that has a part of
every expert takes that part of the time.

A matrix takes at least as long as its weights from device memory, at the rate at which the LM head's, the largest of
all, are read: the tables were measured on a single layer, whose smaller matrices are found in the device's cache, and
a model of many layers never finds them there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError
from foundation.recent import RecentByIdentity
from trace_gen.attention.work import AttentionShape
from trace_gen.attention_numbers import CompiledAttention
from trace_gen.batch_shape import BatchShape
from trace_gen.measured.lines import Lines
from trace_gen.measured.lookups import Lookups
from trace_gen.perf_model import (
    AttentionGranularity,
    AttentionPart,
    ExpertPart,
    IntArray,
    LatencySource,
    OperatorTable,
    PerfModel,
)
from trace_gen.perf_models.profile.attention import UnequalAttention
from trace_gen.perf_models.profile.numbers import EXTRAPOLATED, MEASURED
from trace_gen.perf_models.profile.tables import AttentionTimes, Measured, kernel_sizes
from trace_gen.trace import OperatorClass
from trace_gen.vocabulary import FUSED, Vocabulary

FloatArray = NDArray[np.float64]
SIZES_KEPT = 256
"""So many different sizes of batches are remembered: as many as `trace_gen.generator` hands out again."""
INSIDE_EXPERTS = frozenset({"router", "expert_act_fn", "expert_sum"})
"""What is measured with the experts' matrices."""
NOT_LOOKED_UP = (OperatorClass.COMMUNICATION, OperatorClass.ATTENTION, OperatorClass.GROUPED_GEMM)
"""What has no curve: collectives, and what is timed as a whole."""


class ProfileModel:
    """See the module's docstring.

    - `measured`: one rank's tables;
    - `coldest`: the shortest time (ns) that reading an operator's weights takes, by its name;
    - `expert_flops`: operations on a token in the matrices of all its experts, each of them whole;
    - `roofline`: times the operators that were not measured (`Measured.roofline`).
    """

    vocabulary: Vocabulary = FUSED
    attention_granularity: AttentionGranularity = "batch"
    latency_source: LatencySource = "model"

    def __init__(
        self, measured: Measured, coldest: Mapping[str, float], expert_flops: int, roofline: PerfModel | None
    ) -> None:
        self.measured = measured
        self.lookups = Lookups(measured.source)
        self.notes = measured.notes
        self._coldest = coldest
        self._expert_flops = expert_flops
        self._roofline = roofline
        self._compiled: dict[AttentionShape, CompiledAttention] = {}
        self._plain: RecentByIdentity[FloatArray] = RecentByIdentity(SIZES_KEPT)

    def measured_as(self, measured: Measured) -> ProfileModel:
        """Return this model with other tables of the same operators."""
        return ProfileModel(measured, self._coldest, self._expert_flops, self._roofline)

    def latency_ns(self, operators: OperatorTable) -> IntArray:
        """Return the measured time of each operator, shape ``[k, m]``."""
        result = np.empty(operators.flops.shape)
        result[:] = self._plain.get([operators.rows], lambda: self._plain_ns(operators))
        for part in operators.attention:
            if part.per_request:
                requests = operators.request[part.columns] - part.first
                # A rank that does the whole of a request has all heads, as a single rank has.
                times = self._whole_attention if operators.whole[part.columns[0]] else self.measured.attention
                result[:, part.columns] = self._requests_ns(part, times)[:, requests]
            else:
                everybody = np.arange(len(part.batch.new_tokens))
                result[:, part.columns] = self._kernel_ns(part, everybody, self.measured.attention)[:, None]
        return np.maximum(np.rint(result), 1).astype(np.int64)

    def attention_ns(self, shape: AttentionShape, batch: BatchShape) -> IntArray:
        """See `trace_gen.perf_model.TimesAttention`."""
        part = AttentionPart(np.zeros(1, dtype=np.int64), False, shape, batch, shape.work(batch))
        times = self._kernel_ns(part, np.arange(len(batch.new_tokens)), self.measured.attention)
        return np.maximum(np.rint(times), 1).astype(np.int64)

    def compiled_attention(self, shape: AttentionShape) -> CompiledAttention | None:
        """See `trace_gen.perf_model.CompilesAttention`; what compiled functions look up counts among `lookups`."""
        attention = self.measured.attention
        if not isinstance(attention, UnequalAttention):
            return None
        if shape not in self._compiled:
            numbers = attention.compiled(shape)
            self.lookups.follow("attention", numbers.ints[MEASURED : EXTRAPOLATED + 1])
            self._compiled[shape] = numbers
        return self._compiled[shape]

    def _plain_ns(self, operators: OperatorTable) -> FloatArray:
        """Return the time of every operator but attention, whose place holds 0, shape ``[m]``."""
        result = np.zeros(len(operators.names))
        roofline = None if self._roofline is None else self._roofline.latency_ns(operators)[0]
        for column, name in enumerate(operators.names):
            if operators.kinds[column] in NOT_LOOKED_UP or name in INSIDE_EXPERTS or not operators.rows[column]:
                continue
            if roofline is not None and name in self.measured.roofline:
                result[column] = roofline[column]
            else:
                result[column] = self._operator_ns(name, operators.rows[column : column + 1])
        for part in operators.experts:
            if self.measured.experts is not None:
                result[part.columns] = self._experts_ns(part, self.measured.experts)
        return result

    def _operator_ns(self, name: str, rows: IntArray) -> float:
        """Return the time of one operator over ``rows[0]`` tokens or sequences."""
        curve = self.measured.curves.get(name)
        if curve is None:
            what = f"{self.measured.source}: nothing was measured of {name}"
            raise UserError(what, field="--profile_dir", fix="use --perf_model roofline")
        self.lookups.count(name, curve.lookups(rows))
        return max(float(curve.at(rows)[0]), self._coldest.get(name, 0.0))

    def _experts_ns(self, part: ExpertPart, table: Lines) -> FloatArray:
        """Return the times of the experts' matrices, ``[c]``: the slowest rank's, shared out by FLOPs in each layer."""
        result = np.zeros(len(part.columns))
        for layer in np.unique(part.layer):
            own = np.flatnonzero(part.layer == layer)
            flops, copies = part.flops[own].astype(np.float64), part.copies[own[0]]
            busy = copies > 0
            if not busy.any():
                continue
            tokens, active = copies[busy] / part.per_token, part.active[own[0]][busy]
            self.lookups.count("experts", table.lookups(tokens, active))
            # Of its own experts a rank has the whole, or, where all ranks share all, a part.
            shares = flops[:, busy].sum(axis=0) / (tokens * self._expert_flops)
            times = table.at(tokens, active) * shares
            slowest = int(np.argmax(times))
            of_each = flops[:, busy][:, slowest]
            result[own] = times[slowest] * of_each / of_each.sum()
        return result

    @cached_property
    def _whole_attention(self) -> AttentionTimes:
        return self.measured.whole_attention()

    def _requests_ns(self, part: AttentionPart, times: AttentionTimes) -> FloatArray:
        """Return the time of a kernel for each request, ``[k, n]``."""
        alone = [self._kernel_ns(part, np.array([request]), times) for request in range(len(part.batch.new_tokens))]
        return np.stack(alone, axis=1)

    def _kernel_ns(self, part: AttentionPart, requests: IntArray, times: AttentionTimes) -> FloatArray:
        """Return the time of one kernel over some of the requests at each step, ``[k]``."""
        sizes = kernel_sizes(part.shape, part.batch, requests)
        if sizes.empty:
            return np.zeros(part.batch.steps)
        self.lookups.count("attention", times.lookups(sizes))
        return times.kernel_ns(sizes)
