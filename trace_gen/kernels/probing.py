"""Sizes between those of a table, and how far the table is off there from what it was filled from.

Operators and experts are probed in the middle between neighbouring sizes, where straight lines are farthest off;
attention at batches drawn at random within the limits, as runs have them: decodes of unequal contexts, prompts on a
context or none, several beside each other, and both together. Draws depend on the kernel and the probe's number alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from foundation.draws import uniform
from trace_gen.batch_shape import BatchShape
from trace_gen.kernels.grid import Sizes, most_experts
from trace_gen.kernels.layout import Error
from trace_gen.kernels.pricing import attention_ns, made_of, price
from trace_gen.kernels.shapes import DECODES, PROMPTS, AttentionKernel, ExpertKernel, Kernel, Limits
from trace_gen.perf_model import PerfModel
from trace_gen.trace import OperatorClass

BATCHES = 64
"""Probes of each kind of batch for each kernel of attention."""
_SEED = 17
_KINDS = (DECODES, PROMPTS, "mixed")


def probes_of(kernel: Kernel, sizes: Sequence[Sizes]) -> list[Sizes]:
    """Return the sizes at which `kernel` is probed; of attention the numbers of probes, which `batch_at` draws."""
    if isinstance(kernel, AttentionKernel):
        kinds = [kind for kind in range(len(_KINDS)) if _has(kernel, _KINDS[kind])]
        return [(kind, number) for kind in kinds for number in range(BATCHES)]
    rows = sorted({one[0] for one in sizes})
    middles = [(low + high) // 2 for low, high in pairwise(rows) if high > low + 1]
    if not isinstance(kernel, ExpertKernel):
        return [(size,) for size in middles]
    ends = ((size, most_experts(kernel, size)) for size in middles)
    return [(size, active) for size, most in ends for active in sorted({1, 1 + most // 3, most})]


def _has(kernel: AttentionKernel, kind: str) -> bool:
    return len(kernel.works_for) == 2 if kind == "mixed" else kind in kernel.works_for


def class_of(kernel: Kernel, sizes: Sizes) -> str:
    """Return what errors call what was probed."""
    if isinstance(kernel, AttentionKernel):
        return f"attention_{_KINDS[sizes[0]]}"
    if isinstance(kernel, ExpertKernel):
        return "experts"
    return OperatorClass(kernel.kind).name.lower()


def batch_at(probe: Sizes, limits: Limits) -> BatchShape:
    """Return the batch of a probe of attention: (kind, number)."""
    kind, number = probe

    def between(what: str, least: int, most: int, of: int = 0) -> int:
        share = uniform(_SEED, f"{_KINDS[kind]} {what}", number, of)
        return min(most, int(least * (max(least, most) / least) ** share + 0.5))

    prompts, decodes = list[tuple[int, int]](), list[int]()
    if _KINDS[kind] != DECODES:
        for place in range(between("prompts", 1, 4)):
            chunk = between("chunk", 2, min(limits.tokens, limits.context), place)
            before = between("context", 1, limits.context, place) if number % 2 else 0
            prompts.append((chunk, before))
    if _KINDS[kind] != PROMPTS:
        count, middle = between("decodes", 1, limits.requests), between("contexts", 1, limits.context)
        decodes = [
            between("own", max(1, middle // 2), min(limits.context, 2 * middle), place) for place in range(count)
        ]
    return made_of(prompts, decodes)


def probe(model: PerfModel, tensor: int, kernel: Kernel, sizes: Sequence[Sizes], limits: Limits) -> list[int]:
    """Return the time (ns) that `model` gives `kernel` at each of the probes `sizes`."""
    if isinstance(kernel, AttentionKernel):
        return [attention_ns(model, tensor, kernel, batch_at(one, limits)) for one in sizes]
    return price(model, tensor, kernel, sizes)


def errors_of(found: Iterable[tuple[str, int, int]]) -> dict[str, Error]:
    """Return the errors of each class, in order; `found`: class, the table's time and the true one."""
    by_class: dict[str, list[float]] = {}
    for name, own, true in found:
        by_class.setdefault(name, []).append(100 * abs(own / true - 1))
    return {
        name: Error(round(sum(values) / len(values), 4), round(max(values), 4), len(values))
        for name, values in sorted(by_class.items())
    }
