"""Latencies looked up in tables that were measured on a device, operator by operator.

Matrix products, norms and element-wise operators are looked up at the tokens of the batch, LM head and sampler at the
sequences whose logits are needed, attention at the whole batch (`profile.attention`). Router and experts were measured
as one (`profile.experts`): their time is that of the experts' matrices, by their FLOPs; router, activation and sum are
in it and take a nanosecond each. Where ranks have different experts the slowest decides.

A matrix takes at least as long as its weights from device memory, at the rate at which the LM head's, the largest of
all, are read: the tables were measured on a single layer, whose smaller matrices are found in the device's cache, and
a model of many layers never finds them there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from foundation.recent import RecentByIdentity
from trace_gen.measured.curve import Curve
from trace_gen.measured.lookups import Lookups
from trace_gen.perf_model import (
    AttentionGranularity,
    AttentionPart,
    ExpertPart,
    IntArray,
    LatencySource,
    OperatorTable,
)
from trace_gen.perf_models.profile.bundle import Measured
from trace_gen.perf_models.profile.experts import ExpertTable
from trace_gen.vocabulary import FUSED, Vocabulary

FloatArray = NDArray[np.float64]
SIZES_KEPT = 256
"""So many different sizes of batches are remembered: as many as `trace_gen.generator` hands out again."""
INSIDE_EXPERTS = frozenset({"router", "expert_act_fn", "expert_sum"})
"""What is measured with the experts' matrices."""


class ProfileModel:
    """See the module's docstring.

    `measured`: one rank's tables. `coldest`: the shortest time (ns) that reading an operator's weights takes, by its
    name. `source`: what notes call the tables.
    """

    vocabulary: Vocabulary = FUSED
    attention_granularity: AttentionGranularity = "batch"
    latency_source: LatencySource = "model"

    def __init__(self, measured: Measured, coldest: Mapping[str, float], source: str) -> None:
        self.measured = measured
        self.lookups = Lookups()
        self._coldest = coldest
        self._source = source
        self._curves: dict[str, Curve] = {**measured.per_sequence, **measured.dense}
        self._plain: RecentByIdentity[FloatArray] = RecentByIdentity(SIZES_KEPT)

    def notes(self) -> Sequence[str]:
        """Return what a user should know of the lookups so far."""
        return self.lookups.notes(self._source)

    def latency_ns(self, operators: OperatorTable) -> IntArray:
        """Return the measured time of each operator, shape ``[k, m]``."""
        result = np.empty(operators.flops.shape)
        result[:] = self._plain.get([operators.rows], lambda: self._plain_ns(operators))
        for part in operators.attention:
            if part.per_request:
                requests = operators.request[part.columns] - part.first
                result[:, part.columns] = self._requests_ns(part)[:, requests]
            else:
                everybody = np.arange(len(part.batch.new_tokens))
                result[:, part.columns] = self._kernel_ns(part, everybody)[:, None]
        return np.maximum(np.rint(result), 1).astype(np.int64)

    def _plain_ns(self, operators: OperatorTable) -> FloatArray:
        """Return the time of every operator but attention, whose place holds 0, shape ``[m]``."""
        result = np.zeros(len(operators.names))
        sizes = operators.rows.tolist()
        for column, name in enumerate(operators.names):
            curve = self._curves.get(name)
            if curve is not None and sizes[column]:
                self.lookups.count(name, 1, int(sizes[column] > curve.sizes[-1]))
                time = float(curve.at(operators.rows[column : column + 1])[0])
                result[column] = max(time, self._coldest.get(name, 0.0))
        for part in operators.experts:
            if self.measured.experts is not None:
                result[part.columns] = self._experts_ns(part, self.measured.experts)
        return result

    def _experts_ns(self, part: ExpertPart, table: ExpertTable) -> FloatArray:
        """Return the times of the experts' matrices, ``[c]``: the slowest rank's, shared out by FLOPs in each layer."""
        result = np.zeros(len(part.columns))
        for layer in np.unique(part.layer):
            own = np.flatnonzero(part.layer == layer)
            ranks = zip(part.copies[own[0]].tolist(), part.active[own[0]].tolist(), strict=True)
            times = [self._rank_ns(copies / part.per_token, active, table) for copies, active in ranks]
            slowest = int(np.argmax(times))
            flops = part.flops[own, slowest].astype(np.float64)
            result[own] = times[slowest] * flops / flops.sum() if flops.any() else 0.0
        return result

    def _rank_ns(self, tokens: float, active: float, table: ExpertTable) -> float:
        if not tokens:
            return 0.0
        most_tokens, most_experts = table.most.tolist()
        self.lookups.count("experts", 1, int(tokens > most_tokens or active > most_experts))
        return table.at(tokens, active)

    def _requests_ns(self, part: AttentionPart) -> FloatArray:
        """Return the time of a kernel for each request, ``[k, n]``."""
        alone = [self._kernel_ns(part, np.array([request])) for request in range(len(part.batch.new_tokens))]
        return np.stack(alone, axis=1)

    def _kernel_ns(self, part: AttentionPart, requests: IntArray) -> FloatArray:
        """Return the time of one kernel over some of the requests at each step, ``[k]``."""
        contexts = part.batch.context_by_step()[:, requests]
        if part.shape.window is not None:
            contexts = np.minimum(contexts, part.shape.window)
        new_tokens = part.batch.new_tokens[requests]
        decodes = new_tokens == 1
        sizes = new_tokens[~decodes], contexts[0, ~decodes], contexts[:, decodes]
        table = self.measured.attention
        self.lookups.count("attention", len(contexts), table.beyond(*sizes))
        return table.batch_ns(*sizes)
