"""The KV memory that vLLM's settings ask for."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.kv_memory.block_pool import LifoSharedBlockPool, SharedBlockPool
from orchestrator.kv_memory.groups import LayerGroup, WindowRules
from orchestrator.kv_memory.paged import PagedKV
from orchestrator.kv_memory.prefix import PrefixKV
from orchestrator.kv_memory.store import KVSpace, KVStore
from orchestrator.schedulers.vllm.config import VllmSchedulerConfig


def vllm_memory(config: VllmSchedulerConfig, groups: Sequence[LayerGroup]) -> KVStore:
    """Return an empty cache of `config`'s size, kind and version. vLLM counts its null block, which holds nothing."""
    rules = config.rules
    space = KVSpace(config.num_gpu_blocks - 1, config.block_size, 0, config.max_model_len)
    windows = WindowRules(
        eager=not rules.keeps_in_flight_windows,
        most_in_flight=config.places * config.max_num_batched_tokens if rules.caps_window_admission else None,
        sparse=rules.registers_window_ends,
        interval=config.prefix_cache_retention_interval,
    )
    if not config.enable_prefix_caching:
        return PagedKV(space, groups, windows)
    pool = (LifoSharedBlockPool if rules.reuses_partial_blocks_first else SharedBlockPool)(config.num_gpu_blocks)
    speculation = config.speculation
    drops_last = speculation is not None and speculation.drops_last_hit
    return PrefixKV(space, pool, groups, windows, drops_last=drops_last)
