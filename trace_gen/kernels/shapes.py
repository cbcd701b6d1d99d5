"""What tells one kernel from another: its shape, by which a table holds it however many parallelisms have it.

    operator     FLOPs and bytes a row, and weights: a matrix product, a norm, a lookup, over rows
    experts      the same of the matrices of a rank's experts, over rows and the experts whose weights are read
    attention    `AttentionShape`, over prompts' chunks and contexts, and decodes and theirs

Everything is of one rank. Operators that have a name, but not their shape, in common are different kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace

from foundation.errors import UserError
from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape
from trace_gen.generator import TraceGenerator
from trace_gen.mlp.experts import Experts
from trace_gen.mlp.routing import ExpertSpread
from trace_gen.operators import Operator, Portion, Rows
from trace_gen.precision import ceil_div
from trace_gen.trace import OperatorClass

PLAIN = (OperatorClass.GEMM, OperatorClass.ELEMENTWISE, OperatorClass.EMBEDDING, OperatorClass.SAMPLER)
DECODES, PROMPTS = "decodes", "prompts"
_LOGITS = (Rows.LOGITS,)
_DECODES = (Rows.DECODES, Rows.OWN_DECODES, Rows.ALL_PARTS)


@dataclass(frozen=True, slots=True)
class PlainKernel:
    """An operator whose time depends on its rows alone.

    `kind` (`OperatorClass`), `arithmetic` (`trace_gen.precision.Arithmetic`); `flops`, `traffic`: operations, and bytes
    moved beside weights, a row; `weights`: bytes of weights that are read. `inputs`, `outputs`: bytes of a row in and
    out, which are told and decide nothing.
    """

    name: str
    kind: int
    arithmetic: int
    flops: int
    traffic: int
    weights: int
    inputs: int = field(default=0, compare=False)
    outputs: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ExpertKernel:
    """A matrix of each of a rank's experts, as one operator: as `PlainKernel`, but `weights` (bytes) are of one expert.

    `held`: experts of the rank; `per_token`: those that a token chooses; `copies`: copies of tokens that a row stands
    for, `per_token` of them where rows are tokens. These three decide nothing but the grid.
    """

    name: str
    arithmetic: int
    flops: int
    traffic: int
    weights: float
    held: int = field(default=0, compare=False)
    per_token: int = field(default=1, compare=False)
    copies: int = field(default=1, compare=False)
    inputs: int = field(default=0, compare=False)
    outputs: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class AttentionKernel:
    """Attention of one shape; `works_for`: `DECODES`, `PROMPTS`, or both, which decides nothing but the grid."""

    name: str
    shape: AttentionShape
    works_for: tuple[str, ...] = field(default=(PROMPTS, DECODES), compare=False)


Kernel = PlainKernel | ExpertKernel | AttentionKernel


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest sizes that a table is for: tokens of a step, tokens of a request, and requests of a step."""

    tokens: int
    context: int
    requests: int


def kernels_of(generator: TraceGenerator, limits: Limits) -> dict[Kernel, int]:
    """Return the kernels of one rank of what `generator` generates, and the most rows that each works on.

    Of attention, the tokens of a step. Raises `UserError` for what a table of kernels cannot say: attention placed by
    request, and attention with a window where context-parallel ranks divide a sequence.
    """
    if generator.by_request:
        what = "attention is placed by request, which kernel tables do not know"
        raise UserError(what, field="--attention_placement", fix="place it by heads, or use the roofline")
    kinds, tensor = generator.architecture.layer_kinds, generator.mesh.tensor
    shapes = [shape for kind in kinds for shape in kind.attention.shapes(tensor, generator.precision).values()]
    if generator.mesh.context > 1 and any(shape.window is not None for shape in shapes):
        raise UserError(
            "context-parallel ranks divide attention with a window, which kernel tables do not know",
            field="--cp_size",
            fix="use --cp_size 1, or the roofline without a table",
        )
    found: list[tuple[Kernel, int]] = []
    for operator in (*generator.operators.head, *generator.operators.tail):
        found += _plain(operator, generator, limits)
    for kind, block in enumerate(generator.operators.blocks):
        found += _block(generator, kind, block, limits)
    return merged(found)


def merged(found: Iterable[tuple[Kernel, int]]) -> dict[Kernel, int]:
    """Return each kernel once with its most rows; attention of one shape for all that it works for anywhere."""
    result: dict[Kernel, tuple[Kernel, int]] = {}
    for kernel, rows in found:
        known, most = result.get(kernel, (kernel, rows))
        if isinstance(known, AttentionKernel) and isinstance(kernel, AttentionKernel):
            both = tuple(one for one in (PROMPTS, DECODES) if one in (*known.works_for, *kernel.works_for))
            known = replace(known, works_for=both)
        result[kernel] = known, max(rows, most)
    return dict(result.values())


def _block(
    generator: TraceGenerator, kind: int, block: tuple[Operator, ...], limits: Limits
) -> Iterator[tuple[Kernel, int]]:
    layer, mesh = generator.architecture.layer_kinds[kind], generator.mesh
    shapes = layer.attention.shapes(1 if generator.by_request else mesh.tensor, generator.precision)
    for operator in block:
        if operator.kind is OperatorClass.ATTENTION:
            yield _attention(operator, shapes), limits.tokens
        elif operator.kind is OperatorClass.GROUPED_GEMM:
            assert isinstance(layer.mlp, Experts), "only these have such operators"
            spread = ExpertSpread(layer.mlp, mesh.expert, mesh.tensor, mesh.redundant_experts)
            yield _experts(operator, spread), _expert_rows(operator, spread, limits.tokens)
        else:
            yield from _plain(operator, generator, limits)


def _plain(operator: Operator, generator: TraceGenerator, limits: Limits) -> Iterator[tuple[Kernel, int]]:
    if operator.kind in PLAIN:
        kernel = PlainKernel(
            operator.name,
            int(operator.kind),
            int(operator.arithmetic),
            operator.flops,
            operator.traffic_bytes,
            operator.weight_traffic_bytes,
            operator.input_bytes,
            operator.output_bytes,
        )
        yield kernel, _most_rows(operator, generator, limits)


def _most_rows(operator: Operator, generator: TraceGenerator, limits: Limits) -> int:
    """Return the most rows that an operator outside the experts' matrices works on."""
    rows = operator.work_rows
    if rows in _LOGITS or rows in _DECODES:
        return limits.requests
    if rows is Rows.PART:
        return ceil_div(limits.tokens, generator.mesh.tensor)
    if rows is Rows.ROUTED:
        most = [one.per_token for one in generator.architecture.mixtures]
        return limits.tokens * max(most, default=1)
    return limits.tokens


def _attention(operator: Operator, shapes: Mapping[Portion, AttentionShape]) -> AttentionKernel:
    portion = operator.portion
    shape = shapes[portion if portion in shapes else Portion.ALL]
    works_for = {Portion.DECODES: (DECODES,), Portion.PROMPTS: (PROMPTS,)}.get(portion, (PROMPTS, DECODES))
    return AttentionKernel(operator.name, shape, works_for)


def _experts(operator: Operator, spread: ExpertSpread) -> ExpertKernel:
    return ExpertKernel(
        operator.name,
        int(operator.arithmetic),
        operator.flops,
        operator.traffic_bytes,
        operator.weight_traffic_bytes / spread.held,
        spread.held,
        spread.experts.per_token,
        1 if operator.work_rows is Rows.ROUTED else spread.experts.per_token,
        operator.input_bytes,
        operator.output_bytes,
    )


def _expert_rows(operator: Operator, spread: ExpertSpread, tokens: int) -> int:
    """Return the rows of the experts of one rank where `tokens` choose experts evenly."""
    if operator.work_rows is not Rows.ROUTED:
        return tokens
    return max(1, ceil_div(tokens * spread.experts.per_token * spread.held, spread.experts.count))
