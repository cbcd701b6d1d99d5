"""The registry of KV memory managers (`--kv_manage`)."""

from __future__ import annotations

from foundation.registry import Registry
from orchestrator.kv_memory.paged import PagedKV

kv_managers: Registry[type[PagedKV]] = Registry("KV memory manager")
kv_managers.register_lazy("vllm", "orchestrator.kv_memory.paged", "PagedKV")
kv_managers.register_lazy("max", "orchestrator.kv_memory.reserved", "MaxKV")
kv_managers.register_lazy("pow2", "orchestrator.kv_memory.reserved", "Pow2KV")
kv_managers.register_lazy("oracle", "orchestrator.kv_memory.reserved", "OracleKV")
