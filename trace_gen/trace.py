"""The operator trace of one iteration (or of `steps` like iterations) as columns, one row an operator.

    row      0          1          2 ...                 n-1
    op       embedding  norm       qkv_proj ...          sampler
    layer    -1         0          0 ...                 -1
    rank_set 0          0          0 ...                 1          -> Trace.rank_sets[i]: its ranks
    latency  [steps, n] ns on each of those ranks

A row stands for the same work on every rank of its rank set; sizes and latencies are **per rank**, as they
stand (nothing is divided later). Rows run in order: on each of its ranks, a row without explicit dependencies waits
for the previous row of the same sub-batch that the rank runs. Explicit dependencies (`dep_offsets`,
`dep_rows`) replace that rule for the row that has them; they are what lets sub-batches, PIM pools and layer-wise KV
transfers overlap.

Communication belongs to the row that produces the data: a row's collective starts when the row's computation is
done, and rows that depend on the row wait for its collective. Between pipeline stages the activations are sent
from the last row of a stage to the first row of the next (see `converters.lowering`).
"""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from foundation.records import dataclass

IntArray = NDArray[np.int64]
NO_LAYER = -1
NO_REQUEST = -1
NPU = "npu"
"""The kind of device that computes unless a pass maps an operator to another: a GPU, a TPU or any accelerator."""


class RowKind(IntEnum):
    """What a row does on its ranks."""

    COMPUTE = 0
    MEM_LOAD = 1
    """Bytes (`input_bytes`) move from `input_loc` to device memory; no computation."""
    MEM_STORE = 2
    """Bytes (`output_bytes`) move from device memory to `output_loc`; no computation."""
    COMM = 3
    """Only the row's collective; no computation."""


class OperatorClass(IntEnum):
    """What limits an operator: performance models go by it, and simulated time is accounted by it."""

    GEMM = 0
    ATTENTION = 1
    ELEMENTWISE = 2
    EMBEDDING = 3
    SAMPLER = 4
    COMMUNICATION = 5
    """No computation: only its collective."""
    GROUPED_GEMM = 6
    """Matrices of several experts at once; only the weights of experts that have tokens are read."""
    MEMORY = 7
    """No computation: KV blocks moved between memories."""
    OTHER = 8
    """An operator of a text trace whose name says nothing to us."""


class CommType(IntEnum):
    """The collective that follows a row's computation."""

    NONE = 0
    ALLREDUCE = 1
    ALLGATHER = 2
    REDUCESCATTER = 3
    ALLTOALL = 4
    BROADCAST = 5
    PERMUTE = 6
    """No collective: each rank sends to the next of its group, the last to the first (SEND and RECV)."""


class Location(IntEnum):
    """The memory in which an operand lives. Device ids of REMOTE, CXL and STORAGE are in the `*_node` columns."""

    LOCAL = 0
    REMOTE = 1
    CXL = 2
    STORAGE = 3


@dataclass(frozen=True, slots=True, eq=False)
class RowWork:
    """What rows compute at each step. Rows alike in it, such as those of like layers, share one of `m` columns.

    `column` ``[n]``: the column of each row; `latency_ns`, `flops`, `mem_bytes` ``[steps, m]``: see `Trace`.
    """

    column: IntArray
    latency_ns: IntArray
    flops: IntArray
    mem_bytes: IntArray

    @classmethod
    def by_row(cls, latency_ns: IntArray, flops: IntArray, mem_bytes: IntArray) -> RowWork:
        """Return the work of rows that share nothing, each ``[steps, n]``."""
        return cls(np.arange(latency_ns.shape[1]), latency_ns, flops, mem_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """See the module's docstring for what a row means. `n` rows; times in ns, sizes in bytes, both per rank.

    - `rank_sets[i]`: the ranks of rank set i, ascending; `groups[i]`: the ranks of communication group i, in
      ring order (usually the tensor-parallel ranks of one stage). Several groups of equal size that run the same
      collectives side by side are one entry, one after another: `group_parts[i]` of them (default 1 each).
    - `op_names[op[r]]`: the operator's name without layer or request; `operator_class`: its `OperatorClass`.
    - `devices[device[r]]`: the kind of device that runs the row. Ranks of different kinds are different ranks.
    - `request[r]`: the request id the row works for, or `NO_REQUEST` for the whole batch; `batch_requests` lists
      the ids of the batch, in order, so that a batch row lists its requests (of a wave: of all its batches).
    - `work`: what rows compute, whose columns are laid out row by row by
      - `latency_ns`: ``[steps, n]``, at least 1 for COMPUTE rows, 0 for others;
      - `flops`, `mem_bytes`: ``[steps, n]`` floating-point operations and bytes of device memory traffic, for
        backends that turn them into time themselves.
    - `comm_type`, `comm_bytes` (in the meaning of ASTRA-sim's comm_size),
      `comm_group` (index into `groups`, -1: none).
    - `dep_offsets` ``[n + 1]``, `dep_rows`: rows that row r waits for are
      ``dep_rows[dep_offsets[r]:dep_offsets[r + 1]]``; an empty slice means, on each rank, the previous
      row of the same sub-batch that the rank runs.
    """

    op_names: tuple[str, ...]
    devices: tuple[str, ...]
    rank_sets: tuple[tuple[int, ...], ...]
    groups: tuple[tuple[int, ...], ...]
    batch_requests: IntArray
    op: NDArray[np.int32]
    operator_class: NDArray[np.int8]
    kind: NDArray[np.int8]
    device: NDArray[np.int8]
    layer: NDArray[np.int32]
    stage: NDArray[np.int32]
    rank_set: NDArray[np.int32]
    request: IntArray
    sub_batch: NDArray[np.int32]
    work: RowWork
    input_loc: NDArray[np.int8]
    input_node: NDArray[np.int32]
    input_bytes: IntArray
    weight_loc: NDArray[np.int8]
    weight_node: NDArray[np.int32]
    weight_bytes: IntArray
    output_loc: NDArray[np.int8]
    output_node: NDArray[np.int32]
    output_bytes: IntArray
    comm_type: NDArray[np.int8]
    comm_bytes: IntArray
    comm_group: NDArray[np.int32]
    dep_offsets: IntArray
    dep_rows: IntArray
    group_parts: tuple[int, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    """Facts about the whole trace that a text header carries (format of origin, model, hardware)."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.op.shape[0])

    @property
    def steps(self) -> int:
        """Number of like iterations the trace stands for."""
        return int(self.work.latency_ns.shape[0])

    @property
    def latency_ns(self) -> IntArray:
        """Time of every row, ``[steps, n]``; laid out anew at every call, as the next two."""
        return self.work.latency_ns[:, self.work.column]

    @property
    def flops(self) -> IntArray:
        """Floating-point operations of every row, ``[steps, n]``."""
        return self.work.flops[:, self.work.column]

    @property
    def mem_bytes(self) -> IntArray:
        """Bytes of device memory traffic of every row, ``[steps, n]``."""
        return self.work.mem_bytes[:, self.work.column]

    @property
    def stages(self) -> int:
        """Number of pipeline stages."""
        return int(self.stage.max(initial=0)) + 1

    def group_size(self, group: int) -> int:
        """Return how many ranks meet in a collective of `group`."""
        return len(self.groups[group]) // parts_of(self.group_parts, group)

    def name(self, row: int) -> str:
        """Return the operator name of `row`."""
        return self.op_names[int(self.op[row])]

    def dependencies(self, row: int) -> IntArray:
        """Return the explicit dependencies of `row` (empty: the default rule)."""
        return self.dep_rows[self.dep_offsets[row] : self.dep_offsets[row + 1]]


def parts_of(group_parts: tuple[int, ...], group: int) -> int:
    """Return into how many groups side by side the ranks of `group` are divided (see `Trace`)."""
    return group_parts[group] if group_parts else 1
