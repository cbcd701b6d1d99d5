"""The contract of performance models (operator -> ns), and what they are given; `trace_gen.perf_models` holds them."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass
from trace_gen.architecture import ModelArchitecture
from trace_gen.attention.work import AttentionShape, AttentionWork
from trace_gen.batch_shape import BatchShape
from trace_gen.hardware import Hardware
from trace_gen.perf_models import perf_models
from trace_gen.precision import Precision
from trace_gen.vocabulary import Vocabulary

if TYPE_CHECKING:
    from trace_gen.attention_numbers import CompiledAttention

IntArray = NDArray[np.int64]
AttentionGranularity = Literal["request", "batch"]
LatencySource = Literal["model", "backend"]
WHOLE_BATCH = -1


@dataclass(frozen=True, slots=True, eq=False)
class AttentionPart:
    """Attention of one kind for the requests of one batch: some columns of an operator table.

    - `columns`: which columns of the table; `per_request` says that there is one for each of `batch`'s requests that
      the table's `request` names, otherwise each column stands for the whole batch;
    - `shape`: one rank's attention; `batch` and `work` ``[k, n]``: the requests and what each of them costs;
    - `first`: the position of `batch`'s first request in the table's batch.
    """

    columns: IntArray
    per_request: bool
    shape: AttentionShape
    batch: BatchShape
    work: AttentionWork
    first: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ExpertPart:
    """The matrices of experts: some columns of an operator table, `c` of them, on `r` ranks (1 where all are alike).

    - `columns`: which columns of the table, all grouped matrix products; `layer` ``[c]``: those of one layer have the
      same number;
    - `flops`, `mem_bytes` ``[c, r]``: of each rank. The table has the most of either that any rank has;
    - `copies` ``[c, r]``: copies of tokens that the rank's experts work on, `per_token` of them to a token;
    - `active` ``[c, r]``: experts of the rank whose weights are read, of those that know only the mean a fraction;
    - `tokens` ``[c, r, held]``: the tokens of each expert of each rank; None where only the mean is known;
    - `held`: experts whose weights each rank has, or a part of them.
    """

    columns: IntArray
    layer: IntArray
    flops: IntArray
    mem_bytes: IntArray
    copies: IntArray
    per_token: int
    active: NDArray[np.float64]
    tokens: IntArray | None
    held: int


@dataclass(frozen=True, slots=True, eq=False)
class OperatorTable:
    """The distinct operators of one iteration on one rank, as columns: `m` operators, `k` steps.

    A layer appears once for each kind of layer, however many layers the model has, but for what reaches experts in
    another way in each layer; per-request operators appear once a request; those of a wave once for each member.

    - `names`, `kinds` (`trace_gen.trace.OperatorClass`), `arithmetic` (`trace_gen.precision.Arithmetic`) ``[m]``;
    - `rows` ``[m]``: tokens or sequences that the operator works on; while only contexts change, the same array
      object, so that a model may keep what it worked out for all but attention;
    - `request` ``[m]``: position in `batch` of the request that a per-request operator works for, or `WHOLE_BATCH`;
    - `whole` ``[m]``: the rank does the request's work alone (attention placed by request), not a share of it;
    - `flops`, `mem_bytes` ``[k, m]``: per rank; attention's sum over its requests;
    - `attention`: the columns of attention, by kind and batch;
    - `experts`: the columns of experts' matrices; where ranks differ, the slowest decides;
    - `batch`: the batch, or those of a wave one after another;
    - `tensor`: ranks that share the operators that are not `whole`.
    """

    names: tuple[str, ...]
    kinds: NDArray[np.int8]
    arithmetic: NDArray[np.int8]
    rows: IntArray
    request: IntArray
    whole: NDArray[np.bool_]
    flops: IntArray
    mem_bytes: IntArray
    attention: tuple[AttentionPart, ...]
    experts: tuple[ExpertPart, ...]
    batch: BatchShape
    tensor: int


class PerfModel(Protocol):
    """Turns operators into nanoseconds."""

    vocabulary: Vocabulary
    """What it calls operators (see `trace_gen.vocabulary`)."""

    attention_granularity: AttentionGranularity
    """Whether attention is one row a request or one row a batch. A model of batch rows must also answer for
    the row of a single request: attention placed by request has no other."""

    latency_source: LatencySource
    """``"backend"``: the latencies are placeholders; the backend's own roofline turns FLOPs and bytes into time."""

    def latency_ns(self, operators: OperatorTable) -> IntArray:
        """Return the time of each operator at each step, at least 1 ns, shape ``[k, m]``."""


@runtime_checkable
class TimesAttention(Protocol):
    """A performance model that can be asked for attention alone."""

    def attention_ns(self, shape: AttentionShape, batch: BatchShape) -> IntArray:
        """Return what `latency_ns` gives a row of attention of `shape` for the whole `batch` at each step, ``[k]``."""


@runtime_checkable
class CompilesAttention(Protocol):
    """A performance model whose times of attention are also to be had as numbers for compiled functions."""

    def compiled_attention(self, shape: AttentionShape) -> CompiledAttention | None:
        """Return the numbers of attention of `shape`; None where they are not covered."""


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
