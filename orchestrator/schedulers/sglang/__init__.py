"""SGLang's scheduler, with the rules of version 0.5.5.

`config` has its settings and `server` what a server decides by itself; `scheduler` makes the decisions, for each
micro-batch (`lane`) with the order of `order`, admission by `prefill`, and `estimate` and `retraction` where memory
was promised twice. The KV memory is `orchestrator.kv_memory.radix`.
"""

from __future__ import annotations

from orchestrator.schedulers.sglang.config import SglangConfig
from orchestrator.schedulers.sglang.scheduler import SglangScheduler

__all__ = ["SglangConfig", "SglangScheduler"]
