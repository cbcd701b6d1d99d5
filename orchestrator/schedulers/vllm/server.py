"""What `vllm serve` decides by itself: how much a step may hold, by device, and the memory that it leaves to KV blocks.

Defaults are those of the server (usage context OPENAI_API_SERVER), read in vLLM 0.19.0 and 0.33.0:
`EngineArgs.get_batch_defaults` and `_set_default_max_num_seqs_and_batched_tokens_args` (vllm/engine/arg_utils.py),
`CacheConfig.gpu_memory_utilization` (vllm/config/cache.py).

The KV cache gets what is left of a share of the device's memory beside weights and the most that vLLM's profiling run
needs. That most is an estimate here, its terms being: the sampler's logits in two widths with sort order, indices and
probabilities (26 bytes an entry of the vocabulary and sequence), the activations of a full step (three copies of the
hidden state and of the inner state of the feed-forward network, in two bytes), and what lies outside of PyTorch's
allocator (CUDA context and graphs, and NCCL's buffers where there are several ranks).
"""

from __future__ import annotations

from foundation.records import dataclass

GIB = 2**30
_LARGE, _LARGEST = 70 * GIB, 160 * GIB
_TPU_TOKENS = {"v6e": 1024, "v5e": 512, "v5p": 256}
_UTILIZATION = {"0.19": 0.9, "0.33": 0.92}
_LOGIT_BYTES = 26
_ACTIVATION_BYTES = 6
_OUTSIDE_ALONE, _OUTSIDE_SHARED = round(0.146 * GIB), round(0.6 * GIB)
"""Estimates; with the first the one count of blocks that was recorded comes out (docs/vllm_scheduler.md)."""


@dataclass(frozen=True, slots=True)
class StepLimits:
    """Sequences and tokens of a step."""

    max_num_seqs: int
    max_num_batched_tokens: int


def step_limits(
    version: str,
    device: str,
    memory_bytes: int,
    max_model_len: int,
    *,
    chunked_prefill: bool,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
) -> StepLimits:
    """Return what a step may hold: what was asked for, and vLLM's defaults for the device for the rest."""
    seqs, tokens = _defaults(version, device.lower(), memory_bytes)
    seqs = seqs if max_num_seqs is None else max_num_seqs
    if max_num_batched_tokens is None:
        if not chunked_prefill:
            tokens = max(tokens, max_model_len)
        tokens = min(tokens, seqs * max_model_len)
    else:
        tokens = max_num_batched_tokens
    return StepLimits(seqs if max_num_seqs is not None else min(seqs, tokens), tokens)


def utilization(version: str) -> float:
    """Return the default of gpu_memory_utilization."""
    return _UTILIZATION[version]


def profiled_bytes(limits: StepLimits, *, vocabulary: int, hidden: int, inner: int, ranks: int) -> int:
    """Return the estimate of what vLLM's profiling run needs on a rank beside the weights.

    `inner`: elements of the feed-forward network's inner state of a token, over all tensor-parallel ranks; `ranks`:
    tensor-parallel ranks.
    """
    sampler = limits.max_num_seqs * vocabulary * _LOGIT_BYTES
    activations = limits.max_num_batched_tokens * _ACTIVATION_BYTES * (hidden + -(-inner // ranks))
    return sampler + activations + (_OUTSIDE_ALONE if ranks == 1 else _OUTSIDE_SHARED)


def _defaults(version: str, device: str, memory_bytes: int) -> tuple[int, int]:
    """Return sequences and tokens of a step for a device whose name is in small letters."""
    if "tpu" in device:
        return 256, next((tokens for name, tokens in _TPU_TOKENS.items() if name in device), 2048)
    if version != "0.19" and memory_bytes >= _LARGEST:
        return 1024, 16384
    if memory_bytes >= _LARGE and "a100" not in device:
        return 1024, 8192
    return 256, 2048
