"""One kernel at some sizes -> ns, by any performance model: as columns of an operator table, without a trace.

Attention of a model that times it request by request (table_v0) is the sum over the requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trace_gen.batch_shape import BatchShape
from trace_gen.kernels.grid import Sizes
from trace_gen.kernels.shapes import AttentionKernel, ExpertKernel, Kernel, PlainKernel
from trace_gen.perf_model import WHOLE_BATCH, AttentionPart, ExpertPart, OperatorTable, PerfModel, TimesAttention
from trace_gen.precision import Arithmetic
from trace_gen.trace import OperatorClass

IntArray = NDArray[np.int64]


def price(model: PerfModel, tensor: int, kernel: Kernel, sizes: Sequence[Sizes]) -> list[int]:
    """Return the time (ns) of `kernel` on one of `tensor` ranks at each of `sizes`."""
    if isinstance(kernel, AttentionKernel):
        return [attention_ns(model, tensor, kernel, batch_of(one)) for one in sizes]
    array = np.array(sizes, dtype=np.int64)
    table = _expert_table(kernel, array, tensor) if isinstance(kernel, ExpertKernel) else _plain(kernel, array, tensor)
    return [int(time) for time in model.latency_ns(table)[0]]


def batch_of(sizes: Sizes) -> BatchShape:
    """Return the batch of a chunk of a prompt (0: none) on its context, and of decodes on theirs."""
    chunk, before, count, context = sizes
    return made_of([(chunk, before)] if chunk else [], [context] * count)


def made_of(prompts: Sequence[tuple[int, int]], decodes: Sequence[int]) -> BatchShape:
    """Return the batch of `prompts`, each so many tokens on so many, and of decodes on so many tokens each."""
    new = [chunk for chunk, _ in prompts] + [1] * len(decodes)
    context = [before for _, before in prompts] + [*decodes]
    samples = [0] * len(prompts) + [1] * len(decodes)
    columns = [np.array(values, dtype=np.int64) for values in (range(len(new)), new, context, samples)]
    return BatchShape(columns[0], columns[1], columns[2], columns[3])


def attention_ns(model: PerfModel, tensor: int, kernel: AttentionKernel, batch: BatchShape) -> int:
    """Return the time (ns) of attention over `batch`."""
    if isinstance(model, TimesAttention):
        return int(model.attention_ns(kernel.shape, batch)[0])
    work, by_request = kernel.shape.work(batch), model.attention_granularity == "request"
    columns = np.arange(len(batch.new_tokens) if by_request else 1, dtype=np.int64)
    part = AttentionPart(columns, by_request, kernel.shape, batch, work)
    kinds = np.full(len(columns), OperatorClass.ATTENTION, dtype=np.int8)
    flops, moved = work.flops, work.mem_bytes
    if not by_request:
        flops, moved = flops.sum(axis=1, keepdims=True), moved.sum(axis=1, keepdims=True)
    table = OperatorTable(
        names=(kernel.name,) * len(columns),
        kinds=kinds,
        arithmetic=np.full(len(columns), Arithmetic.HALF, dtype=np.int8),
        rows=batch.new_tokens if by_request else np.array([batch.total_tokens]),
        request=columns if by_request else np.array([WHOLE_BATCH]),
        whole=np.zeros(len(columns), dtype=np.bool_),
        flops=flops,
        mem_bytes=moved,
        attention=(part,),
        experts=(),
        batch=batch,
        tensor=tensor,
    )
    return int(model.latency_ns(table).sum())


def _plain(kernel: PlainKernel, sizes: IntArray, tensor: int) -> OperatorTable:
    rows = sizes[:, 0].copy()
    moved = rows * kernel.traffic + kernel.weights
    return _columns(kernel.name, kernel.kind, kernel.arithmetic, rows, rows * kernel.flops, moved, (), tensor)


def _expert_table(kernel: ExpertKernel, sizes: IntArray, tensor: int) -> OperatorTable:
    """Return a table of the matrix of a layer for each of `sizes`, on ranks that are alike."""
    rows, active = sizes[:, 0].copy(), sizes[:, 1].astype(np.float64)
    flops = rows * kernel.flops
    moved = rows * kernel.traffic + np.rint(active * kernel.weights).astype(np.int64)
    columns = np.arange(len(rows), dtype=np.int64)
    part = ExpertPart(
        columns,
        columns,
        flops[:, None],
        moved[:, None],
        rows[:, None] * kernel.copies,
        kernel.per_token,
        active[:, None],
        None,
        kernel.held,
    )
    kind = int(OperatorClass.GROUPED_GEMM)
    return _columns(kernel.name, kind, kernel.arithmetic, rows, flops, moved, (part,), tensor)


def _columns(
    name: str,
    kind: int,
    arithmetic: int,
    rows: IntArray,
    flops: IntArray,
    moved: IntArray,
    experts: tuple[ExpertPart, ...],
    tensor: int,
) -> OperatorTable:
    count = len(rows)
    return OperatorTable(
        names=(name,) * count,
        kinds=np.full(count, kind, dtype=np.int8),
        arithmetic=np.full(count, arithmetic, dtype=np.int8),
        rows=rows,
        request=np.full(count, WHOLE_BATCH, dtype=np.int64),
        whole=np.zeros(count, dtype=np.bool_),
        flops=flops[None, :],
        mem_bytes=moved[None, :],
        attention=(),
        experts=experts,
        batch=made_of([], [1]),
        tensor=tensor,
    )
