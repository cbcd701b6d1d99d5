"""What of an NPU's memory an engine's weights take, and the KV blocks that fit beside them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import floordiv

from foundation.errors import UserError
from orchestrator.kv_memory.layout import KVLayout
from orchestrator.kv_memory.store import KVSpace
from orchestrator.schedulers.settings import MemoryShare
from orchestrator.settings.specification import EngineSpec
from trace_gen.adapters import AdapterWork
from trace_gen.drafters import drafter_weight_bytes
from trace_gen.generator import TraceGenerator
from trace_gen.memory import ModelMemory


def kv_space(
    memory: ModelMemory,
    layout: KVLayout,
    memory_bytes: int,
    share: MemoryShare,
    engine: EngineSpec,
    beside: Sequence[int],
) -> KVSpace:
    """Return the KV blocks that fit beside the weights on the tightest stage; none at all is a `UserError`.

    `beside`: bytes of weights that are there beside the model's own, on each rank of each stage (below 0: some of
    these are not). As in vLLM, a block of a sequence that context-parallel ranks share is a block of `block_size`
    tokens on each.
    """
    held = [memory.weight_bytes(stage) + more for stage, more in enumerate(beside)]
    weights = max(held)
    if weights > memory_bytes:
        quantized = memory.architecture.quantization is not None
        raise UserError(
            f"{memory.architecture.name} needs {weights / 1e9:.3f} GB an NPU for its weights, "
            f"an NPU has {memory_bytes / 1e9:.3f} GB",
            field="--npu_mem",
            fix="give more memory or more NPUs" + ("" if quantized else ", or fewer bits (--fp, --quantization fp8)"),
        )
    override = engine.scheduling.num_gpu_blocks_override
    left = [share.bytes - weights for weights in held]
    blocks = min(map(floordiv, left, layout.block_bytes)) if override is None else override - 1
    if (most := engine.scheduling.max_total_tokens) is not None:
        blocks = min(blocks, most // (engine.block_size * memory.mesh.context) * len(layout.groups))
    if blocks < 1:
        raise _nothing_left(memory, share, engine, weights)
    block_bytes = memory.mesh.member_size * sum(layout.block_bytes)
    block_size = engine.block_size * memory.mesh.context
    return KVSpace(blocks, block_size, block_bytes, engine.memory.max_model_len)


def _nothing_left(memory: ModelMemory, share: MemoryShare, engine: EngineSpec, weights: int) -> UserError:
    """Return the error of a device that holds the `weights` but no KV cache beside them."""
    name = memory.architecture.name
    if not share.part:
        return UserError(
            f"{(share.bytes - weights) / 1e9:.4f} GB an NPU are left beside the weights of {name}, less than one KV "
            f"block of {engine.block_size} tokens",
            field="--npu_mem",
            fix="give more memory or a smaller --block_size",
        )
    return UserError(
        f"{share.bytes / 1e9:.3f} GB an NPU ({share.part}) do not hold {weights / 1e9:.3f} GB of weights of {name} and "
        "a KV block",
        field=share.field,
        fix=f"give more of it, more memory or NPUs, or {share.fix}",
    )


def weights_beside(
    engine: EngineSpec, generator: TraceGenerator, drafter: TraceGenerator | None, adapters: AdapterWork | None
) -> tuple[int, ...]:
    """Return the bytes of weights on each rank of each stage beside the model's own, less those that are streamed."""
    beside = [-generator.streamed.bytes_of(stage) for stage in range(engine.parallelism.stages)]
    slots = engine.scheduling.adapter_slots
    if adapters is not None and slots is not None:
        beside = [held + slots.count * adapters.slot_bytes(stage) for stage, held in enumerate(beside)]
    if drafter is not None:
        beside[-1] += drafter_weight_bytes(drafter.memory)
    return tuple(beside)
