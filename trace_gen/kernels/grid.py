"""The sizes at which kernels are priced, and the jobs of a fill: some sizes of one kernel each.

Rows grow by a quarter or less (1 2 3 .. 8 10 12 14 16 20 ..), chunks, contexts and requests by a half or less, so that
straight lines between them are near, also where a cache is full or a matrix is no longer bound by memory. Experts, and
the sizes of prompts beside decodes, grow twofold, for their times are nearly straight. Chunks of prompts up to `TILED`
tokens stand at both sides of each multiple of 64, for attention kernels work through queries in tiles.
A file's own sizes (`Extra`) are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from foundation.records import dataclass
from trace_gen.kernels.shapes import DECODES, PROMPTS, AttentionKernel, ExpertKernel, Kernel, Limits

TILE, TILED = 64, 512
JOB_SIZES = 64
"""Sizes of a job: what a kill loses at most for each process."""
Sizes = tuple[int, ...]
"""Of one price: rows; rows and experts; or prompt_chunk, kv_prefill, n_decode, kv_decode."""


@dataclass(frozen=True, slots=True)
class Extra:
    """Sizes that are priced as well: chunks of prompts (rows, too), and contexts of decodes."""

    chunks: Sequence[int] = ()
    contexts: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """Some sizes of one kernel on one of `tensor` tensor-parallel ranks; `probe`: between those of the grid."""

    tensor: int
    kernel: Kernel
    sizes: tuple[Sizes, ...]
    probe: bool = False


def grown(most: int, parts: int = 2) -> list[int]:
    """Return 1, 2, 4, 8 and so on up to `most`, which is one of them, and what parts each doubling into so many."""
    found, power = {1, most}, 2
    while power <= most:
        found |= {power + power * part // parts for part in range(parts)}
        power *= 2
    return sorted(size for size in found if size <= most)


def sparse(least: int, most: int, factor: int = 4) -> list[int]:
    """Return `least`, and what is `factor` times as large each, up to `most`, which is one of them."""
    found, size = [], least
    while size < most:
        found.append(size)
        size *= factor
    return [*found, most]


def sizes_of(kernel: Kernel, most: int, limits: Limits, extra: Extra) -> list[Sizes]:
    """Return the sizes at which `kernel` is priced, in order; `most`: the rows it works on at most."""
    if isinstance(kernel, AttentionKernel):
        return sorted(set(_attention_sizes(kernel, limits, extra)))
    parts = 2 if isinstance(kernel, ExpertKernel) else 4
    rows = sorted({*grown(most, parts), *(size for size in extra.chunks if size <= most)})
    if isinstance(kernel, ExpertKernel):
        return [(size, active) for size in rows for active in sparse(1, most_experts(kernel, size), 2)]
    return [(size,) for size in rows]


def most_experts(kernel: ExpertKernel, rows: int) -> int:
    """Return the most experts of a rank that so many rows may need."""
    return min(rows * kernel.copies, kernel.held)


def chunks_alone(most: int, extra: Extra) -> list[int]:
    """Return the chunks of prompts that are priced alone, and without a context."""
    edges = {size + more for size in range(TILE, TILED + 1, TILE) for more in (0, 1)}
    larger = {size for size in grown(most) if size > TILED}
    found = {*grown(TILE), *edges, *larger, *(size + 1 for size in larger if size < 4 * TILED), *extra.chunks, most}
    return sorted(size for size in found if 2 <= size <= most)


def _attention_sizes(kernel: AttentionKernel, limits: Limits, extra: Extra) -> Iterator[Sizes]:
    window = kernel.shape.window
    longest = limits.context if window is None else min(limits.context, max(1, window - 1))
    own = sorted({*(size for size in extra.contexts if size <= longest)})
    chunk = min(limits.tokens, limits.context)
    prompts, decodes = PROMPTS in kernel.works_for, DECODES in kernel.works_for
    before = [0, *sparse(min(256, longest), longest)] if prompts else [0]
    yield from (
        (size, context, 0, 0) for size in (chunks_alone(chunk, extra) if prompts else [2]) for context in before
    )
    contexts = sorted({1, *grown(longest)[8::2], longest, *own}) if decodes else [1]
    counts = grown(limits.requests) if decodes else [1]
    yield from ((0, 0, count, context) for count in counts for context in contexts)
    # Of one kind alone the other must not lack in a table, and is never looked up.
    both = prompts and decodes
    beside = sorted({2, *(size for size in sparse(TILE, chunk, 2)), *_within(extra.chunks, chunk)}) if both else [2]
    few, far = (
        (sparse(1, limits.requests, 2), sorted({1, *sparse(min(256, longest), longest), *own})) if both else ([1], [1])
    )
    yield from product(beside, [0, *sparse(min(1024, longest), longest)] if both else [0], few, far)


def _within(sizes: Iterable[int], most: int) -> list[int]:
    return [size for size in sizes if 2 <= size <= most]


def jobs_of(kernels: Mapping[tuple[int, Kernel], Sequence[Sizes]], *, probe: bool = False) -> list[Job]:
    """Return the jobs that price `kernels`, each with its sizes, by the ranks that share it."""
    return [
        Job(tensor, kernel, tuple(sizes[first : first + JOB_SIZES]), probe)
        for (tensor, kernel), sizes in kernels.items()
        for first in range(0, len(sizes), JOB_SIZES)
    ]
