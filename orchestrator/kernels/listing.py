"""The kernels of a table as rows: what each is, at which sizes it is priced, and which engines have it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.kernels.planning import TablePlan
from trace_gen.kernels.grid import Sizes
from trace_gen.kernels.layout import ATTENTION_AXES
from trace_gen.kernels.shapes import AttentionKernel, ExpertKernel, Kernel
from trace_gen.precision import Precision
from trace_gen.trace import OperatorClass

COLUMNS = ("model", "tp", "class", "kernel", "shape", "FLOP/row", "weight bytes", "sizes", "of", "engines")


def listed(plan: TablePlan) -> Iterator[tuple[str, ...]]:
    """Yield a row for each distinct kernel of `plan`, in the order of `COLUMNS`.

    `shape`: of a matrix ``M x K x N`` (M: the rows), of attention query heads, KV heads and the window; `of`: what the
    sizes are of, with their range.
    """
    precision = plan.deployment.generator.precision
    for (tensor, kernel), sizes in plan.sizes.items():
        about = (plan.model, str(tensor), _class(kernel), kernel.name, _shape(kernel, precision))
        work = ("", "") if isinstance(kernel, AttentionKernel) else (str(kernel.flops), f"{kernel.weights:.15g}")
        yield (*about, *work, str(len(sizes)), _range(kernel, sizes), " ".join(plan.users[tensor, kernel]))


def _class(kernel: Kernel) -> str:
    if isinstance(kernel, AttentionKernel):
        return "attention"
    return "experts" if isinstance(kernel, ExpertKernel) else OperatorClass(kernel.kind).name.lower()


def _shape(kernel: Kernel, precision: Precision) -> str:
    if isinstance(kernel, AttentionKernel):
        window = "" if kernel.shape.window is None else f", window {kernel.shape.window}"
        return f"{kernel.shape.query_heads:g} on {kernel.shape.kv_heads:g} heads{window}"
    into, out = (side * 8 // precision.activation_bits for side in (kernel.inputs, kernel.outputs))
    if isinstance(kernel, ExpertKernel):
        return f"M x {into} x {out}, {kernel.held} experts"
    return f"M x {into} x {out}" if kernel.kind == OperatorClass.GEMM else f"M x {into} -> {out}"


def _range(kernel: Kernel, sizes: Sequence[Sizes]) -> str:
    if isinstance(kernel, AttentionKernel):
        names: Sequence[str] = ATTENTION_AXES
    else:
        names = ("M", "experts") if isinstance(kernel, ExpertKernel) else ("M",)
    ends = ((min(values), max(values)) for values in zip(*sizes, strict=True))
    return ", ".join(f"{name} {low}-{high}" for name, (low, high) in zip(names, ends, strict=True))
