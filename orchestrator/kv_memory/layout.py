"""How a model's layers share KV blocks: which block tables a request has, and the bytes of a block.

All blocks are of one size, so layers that keep different things of a sequence are put into groups of equally many
layers, each with a block table of its own, as vLLM does (`vllm/v1/core/kv_cache_utils.py`, 0.19)::

    10 layers with full attention, 20 with a window      3 groups of 10 layers, windows in two of them
    24 layers that keep the same                         1 group
"""

from __future__ import annotations

from collections.abc import Sequence

from foundation.records import dataclass
from orchestrator.kv_memory.groups import FULL, LayerGroup
from trace_gen.memory import KVGroup, ModelMemory


@dataclass(frozen=True, slots=True)
class KVLayout:
    """`groups`: those with a block table of their own; `block_bytes`: of a block on each rank, stage by stage."""

    groups: tuple[LayerGroup, ...]
    block_bytes: tuple[int, ...]

    def beside(self, drafter: KVLayout) -> KVLayout:
        """Return the same with the layers of a drafter on the last stage, which keep their KV in the same blocks."""
        *others, last = self.block_bytes
        return KVLayout(self.groups, (*others, last + sum(drafter.block_bytes)))


def kv_layout(memory: ModelMemory, block_size: int, *, whole: bool = False) -> KVLayout:
    """Return how the layers of a model share blocks of `block_size` tokens.

    `whole`: layers with a window keep all tokens like the others, as vLLM lets them where KV cache goes to other
    engines (0.19, config/vllm.py: the hybrid KV cache manager is off).
    """
    kept = memory.kv_groups
    if whole:
        bytes_per_token = [sum(parts) for parts in zip(*(group.bytes_per_token for group in kept), strict=True)]
        return KVLayout((FULL,), tuple(block_size * size for size in bytes_per_token))
    size = _layers_a_group([sum(group.layers) for group in kept])
    tables = [-(-sum(group.layers) // size) for group in kept]
    groups = [LayerGroup(group.window) for group, count in zip(kept, tables, strict=True) for _ in range(count)]
    stages = range(len(kept[0].layers))
    return KVLayout(tuple(groups), tuple(block_size * _token_bytes(kept, tables, stage) for stage in stages))


def _layers_a_group(counts: Sequence[int]) -> int:
    """Return the size of groups: the fewest layers of a kind, unless no kind has half as many again."""
    return max(counts) if max(counts) < 1.5 * min(counts) else min(counts)


def _token_bytes(kept: Sequence[KVGroup], tables: Sequence[int], stage: int) -> int:
    """Return the bytes of a token in the largest group of a stage, on one rank."""
    return max(
        -(-group.layers[stage] // count) * (group.bytes_per_token[stage] // group.layers[stage])
        for group, count in zip(kept, tables, strict=True)
        if group.layers[stage]
    )
