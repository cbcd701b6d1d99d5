"""The contract of performance models (operator -> ns), and what they are given; `trace_gen.perf_models` holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from trace_gen.architecture import ModelArchitecture
from trace_gen.attention_work import AttentionShape, AttentionWork
from trace_gen.batch_shape import BatchShape
from trace_gen.hardware import Hardware
from trace_gen.operators import Vocabulary
from trace_gen.perf_models import perf_models
from trace_gen.sharding import Precision

IntArray = NDArray[np.int64]
AttentionGranularity = Literal["request", "batch"]
LatencySource = Literal["model", "backend"]
WHOLE_BATCH = -1


@dataclass(frozen=True, slots=True)
class OperatorTable:
    """The distinct operators of one iteration on one rank, as columns: `m` operators, `k` steps.

    A transformer block appears once, however many layers the model has; per-request operators appear once a
    request.

    - `names`, `kinds` ``[m]`` (`trace_gen.operators.OperatorClass`);
    - `rows` ``[m]``: tokens or sequences that the operator works on; while only contexts change, the same array
      object, so that a model may keep what it worked out for all but attention;
    - `request` ``[m]``: position in the batch that a per-request operator works for, or `WHOLE_BATCH`;
    - `whole` ``[m]``: the rank does the request's work alone (attention placed by request), not a share of it;
    - `flops`, `mem_bytes` ``[k, m]``: per rank; attention's sum over its requests;
    - `work`: attention by request, whether it is one column or many; `attention`: one rank's attention, a token;
    - `tensor`: ranks that share the operators that are not `whole`.
    """

    names: tuple[str, ...]
    kinds: NDArray[np.int8]
    rows: IntArray
    request: IntArray
    whole: NDArray[np.bool_]
    flops: IntArray
    mem_bytes: IntArray
    work: AttentionWork
    tensor: int
    attention: AttentionShape


class PerfModel(Protocol):
    """Turns operators into nanoseconds."""

    vocabulary: Vocabulary
    """Which operator names it knows (see `trace_gen.model_operators`)."""

    attention_granularity: AttentionGranularity
    """Whether attention is one row a request or one row a batch. A model of batch rows must also answer for
    the row of a single request: attention placed by request has no other."""

    latency_source: LatencySource
    """``"backend"``: the latencies are placeholders; the backend's own roofline turns FLOPs and bytes into time."""

    def latency_ns(self, operators: OperatorTable, batch: BatchShape) -> IntArray:
        """Return the time of each operator at each step, at least 1 ns, shape ``[k, m]``."""


@dataclass(frozen=True, slots=True)
class PerfModelOptions:
    """What a performance model may draw on.

    `memory_bandwidth` (bytes/s) overrides the hardware's.
    """

    architecture: ModelArchitecture
    hardware: Hardware
    tensor: int = 1
    precision: Precision = field(default_factory=Precision)
    memory_bandwidth: float | None = None


def make_perf_model(name: str, options: PerfModelOptions, **settings: object) -> PerfModel:
    """Return the performance model called `name` with its `settings`; an unknown one is a `UserError`."""
    return perf_models.get(name, field="--perf_model")(**settings).model(options)
