"""A folder of tables laid out as aiconfigurator's systems are, small enough to check by hand.

Times are ours: sums of products of the sizes. Files are CSV, so that nothing needs to be installed to read them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

from helpers.small_profile import table

MODEL = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "intermediate_size": 1024,
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
"""Its matrices are [512 + 2 x 256, 256], [256, 512], [2048, 256], [256, 1024], [4096, 256]."""
MIXTURE = {
    **MODEL,
    "model_type": "mixtral",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
LATENT = {
    "model_type": "deepseek_v2",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "intermediate_size": 1024,
    "first_k_dense_replace": 2,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "vocab_size": 4096,
    "max_position_embeddings": 8192,
}
"""Heads as in DeepSeek-V2 and V3, of which there are 8."""
ROWS, SIDES = (1, 8, 16, 32, 64, 128, 256, 512, 1024), (256, 512, 1024, 2048, 4096)
BATCHES, LENGTHS = (1, 4, 16), (1, 16, 128, 1024, 4096)
HEADS = ((8, 4), (4, 2), (8, 8))
EXPERT_TOKENS = (1, 16, 128, 1024)
SYSTEM = "small_gpu"


def matrix_ms(m: int, n: int, k: int) -> float:
    """Return the time of a product."""
    return 0.004 + 1e-9 * n * k + 1e-11 * m * n * k


def prompts_ms(requests: int, length: int, heads: int) -> float:
    """Return the time of attention over prompts."""
    return 0.008 + 1e-9 * requests * heads * length * length + 1e-7 * requests * length


def decodes_ms(requests: int, context: int, kv_heads: int) -> float:
    """Return the time of attention over decodes."""
    return 0.007 + 2e-7 * requests * kv_heads * context


def latent_ms(requests: int, tokens: int, *, decodes: bool) -> float:
    """Return the time of latent attention: of decodes on so many tokens, or of prompts of as many."""
    return 0.011 + (3e-7 if decodes else 1e-8 * tokens) * requests * tokens


def up_projection_ms(tokens: int) -> float:
    """Return the time of half of latent attention's up-projection."""
    return 0.005 + 2e-6 * tokens


def experts_ms(tokens: int, ranks: int, parts: int) -> float:
    """Return the time of experts."""
    return 0.02 + 1e-4 * tokens / ranks / parts


def system(
    folder: Path,
    *,
    matrix: Callable[[int, int, int], float] = matrix_ms,
    version: str = "1.2.0",
    without: Sequence[str] = (),
) -> Path:
    """Write the tables of one system; `without` are families that are left out. Return the folder of systems."""
    data = folder / "data" / SYSTEM
    if "gemm" not in without:
        rows = [
            (kind, *size, time)
            for kind, by in (("bfloat16", 1.0), ("fp8", 0.6), ("fp8_block", 0.6))
            for size in product(ROWS, SIDES, SIDES)
            for time in [matrix(*size) * by + (0.1 if kind == "fp8_block" else 0.0)]
        ]
        table(data / "gemm/vllm" / version / "gemm_perf.csv", "gemm_dtype,m,n,k,latency", rows)
    if "attention" not in without:
        _attention(data / "attention/vllm" / version)
    if "mla" not in without:
        _latent(data, version)
    if "moe" not in without:
        ways = [(1, 1), (1, 2), (2, 1)]
        rows = [
            ("bfloat16", tokens, 256, 1024, 2, 8, parts, ranks, how, experts_ms(tokens, ranks, parts) * slower)
            for tokens, (parts, ranks), (how, slower) in product(
                EXPERT_TOKENS, ways, (("balanced", 1), ("power_law_1.2", 3))
            )
        ]
        columns = "moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,distribution"
        table(data / "moe/vllm" / version / "moe_perf.csv", f"{columns},latency", rows)
    return folder


def _attention(folder: Path) -> None:
    columns = "attn_dtype,kv_cache_dtype,num_heads,num_key_value_heads,head_dim,window_size,batch_size,isl,step,latency"
    kinds = [("bfloat16", "bfloat16", heads, kv, 64, 0) for heads, kv in HEADS]
    prompts = [
        (*kind, requests, length, 0, prompts_ms(requests, length, kind[2]))
        for kind, requests, length in product(kinds, BATCHES, LENGTHS)
    ]
    decodes = [
        (*kind, requests, 1, context, decodes_ms(requests, context, kind[3]))
        for kind, requests, context in product(kinds, BATCHES, LENGTHS)
    ]
    table(folder / "context_attention_perf.csv", columns, prompts)
    table(folder / "generation_attention_perf.csv", columns, decodes)


def _latent(data: Path, version: str) -> None:
    """Of another framework, as the package has them."""
    columns = "mla_dtype,kv_cache_dtype,num_heads,batch_size,isl,step,latency"
    for name, decodes in (("context", False), ("generation", True)):
        rows = [
            ("bfloat16", "bfloat16", heads, requests, *((1, tokens) if decodes else (tokens, 0)), time * heads / 8)
            for heads, requests, tokens in product((4, 8), BATCHES, LENGTHS)
            for time in [latent_ms(requests, tokens, decodes=decodes)]
        ]
        table(data / "mla/sglang" / version / f"{name}_mla_perf.csv", columns, rows)
    halves = [
        ("bfloat16", name, 8, tokens, up_projection_ms(tokens) * by)
        for name, by in (("mla_gen_pre", 1), ("mla_gen_post", 2))
        for tokens in ROWS
    ]
    table(
        data / "mla_bmm/sglang" / version / "mla_bmm_perf.csv", "bmm_dtype,op_name,num_heads,num_tokens,latency", halves
    )
