"""What tables of latent attention (MLA) say, brought into the form of grouped attention's.

Kernels alone were measured by SGLang and TensorRT-LLM; vLLM's tables have whole modules, projections included, so the
kernels of another framework stand in for its own. Absorbed decodes have one latent vector that all heads share;
expanded prompts have as many KV heads as query heads. A row says the heads of a rank.
"""

from __future__ import annotations

import numpy as np

from trace_gen.attention.work import AttentionShape
from trace_gen.perf_models.aiconfigurator.attention import HEAD_SIZE, HEADS, KV_HEADS, WINDOW, Heads
from trace_gen.perf_models.aiconfigurator.files import Kernels

SIZE = 1
"""The size of a head: all tables are of DeepSeek-V3's latent attention."""


def is_latent(shape: AttentionShape) -> bool:
    """Whether attention of `shape` is latent, be it absorbed or expanded."""
    return shape.tile_heads > 1 or shape.context_bytes > 0


def latent_heads(shape: AttentionShape) -> Heads:
    """Return the heads of latent attention."""
    heads = max(1, round(shape.query_heads))
    return Heads(heads, 1 if shape.tile_heads > 1 else heads, SIZE)


def as_grouped(kernels: Kernels, *, absorbed: bool) -> Kernels:
    """Return `kernels` with KV heads and sizes of heads, of which such tables have no columns."""
    heads = kernels.sizes[HEADS]
    ones = np.ones_like(heads)
    added = {KV_HEADS: ones if absorbed else heads, HEAD_SIZE: ones * SIZE, WINDOW: ones * 0}
    return Kernels(kernels.path, {**kernels.sizes, **added}, kernels.texts, kernels.times)
