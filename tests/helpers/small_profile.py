"""Bundles in the form of LLMServingSim's profiler, and tables in Vidur's, small enough to check by hand.

Times are sums of products that are straight along every axis, so that what is interpolated is known exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

MODEL = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 512,
    "vocab_size": 1024,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
DENSE = {
    "embedding": 2.0, "layernorm": 3.0, "qkv_proj": 20.0, "rotary_emb": 4.0, "o_proj": 10.0, "gate_up_proj": 40.0,
    "act_fn": 5.0, "down_proj": 30.0, "final_layernorm": 3.5,
}  # fmt: skip
"""Microseconds of no token; each takes 0.01 of it more."""
PER_SEQUENCE = {"lm_head": 50.0, "sampler": 12.0}
TOKENS, SEQUENCES = (1, 8, 64, 512), (1, 4, 16)
CHUNKS, CONTEXTS, COUNTS, DECODES = (16, 64, 256), (0, 64, 512), (1, 4, 16), (16, 256, 1024)
EXPERT_TOKENS, EXPERTS = (1, 4, 16, 64), (1, 2, 4, 8)
META = {
    "hardware": "RTX4090",
    "model": "small",
    "architecture": "llama",
    "variant": "bf16",
    "tp_degrees": [1],
    "skew_fit": {"enabled": False},
}


def operator_us(name: str, size: float) -> float:
    """Return the time of an operator over tokens or sequences."""
    return {**DENSE, **PER_SEQUENCE}[name] * (1 + 0.01 * size)


def attention_us(chunk: float, context: float, count: float, decode: float) -> float:
    """Return the time of an attention kernel: of one prompt beside `count` decodes."""
    return 10 + 0.02 * chunk + 1e-5 * chunk * context + 0.5 * count + 5e-4 * count * decode


def experts_us(tokens: float, active: float) -> float:
    """Return the time of router and experts."""
    return 8 + 0.1 * tokens + 2 * active


def attention_rows() -> list[Sequence[float]]:
    """Return the rows of ``attention.csv``."""
    prompts = [(0, 0), *((chunk, context) for chunk in CHUNKS for context in CONTEXTS)]
    decodes = [(0, 0), *((count, decode) for count in COUNTS for decode in DECODES)]
    sizes = sorted((chunk, context, count, decode) for chunk, context in prompts for count, decode in decodes)
    return [(*one, attention_us(*one)) for one in sizes if one[0] or one[2]]


def table(path: Path, columns: str, rows: Iterable[Sequence[object]]) -> Path:
    """Write a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def bundle(
    folder: Path,
    *,
    meta: Mapping[str, object] | None = None,
    degrees: Sequence[int] = (1,),
    dense: Callable[[str, float], float] = operator_us,
    without: Sequence[str] = (),
    experts: bool = False,
) -> Path:
    """Write a bundle, each tensor-parallel degree `d` a `d`-th of the time; `without`: layers to leave out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.yaml").write_text(json.dumps({**META, "tp_degrees": list(degrees), **(meta or {})}))
    names = [name for name in (*DENSE, *(("qk_norm",) if experts else ())) if name not in without]
    for degree in degrees:
        rank = folder / f"tp{degree}"
        times = [(name, size, _dense(dense, name, size) / degree) for name in names for size in TOKENS]
        table(rank / "dense.csv", "layer,tokens,time_us", times)
        heads = [name for name in PER_SEQUENCE if name not in without]
        times = [(name, size, dense(name, size) / degree) for name in heads for size in SEQUENCES]
        table(rank / "per_sequence.csv", "layer,sequences,time_us", times)
        kernels = [(*sizes, time / degree) for *sizes, time in attention_rows()]
        table(rank / "attention.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us", kernels)
    if experts:
        rows = [(t, e, experts_us(t, e)) for t in EXPERT_TOKENS for e in EXPERTS if e <= 2 * t]
        table(folder / "tp1" / "moe.csv", "tokens,activated_experts,time_us", rows)
    return folder


def _dense(dense: Callable[[str, float], float], name: str, size: float) -> float:
    return dense("layernorm" if name == "qk_norm" else name, size)


def skew_rows(tau_us: float, beside_us: float, iterations: int = 3) -> list[Sequence[float]]:
    """Return the rows of a ``skew.csv`` in which the longest context costs so many us a token, alone and beside."""
    rows: list[Sequence[float]] = []
    for chunk, tau in ((0, tau_us), (256, beside_us)):
        for count in COUNTS[1:]:
            for shortest, longest in ((64, 256), (128, 1024)):
                mean = (shortest * (count - 1) + longest) / count
                equal = attention_us(chunk, 0, count, mean)
                unequal = equal + tau * (longest - mean)
                rows.append((count, chunk, longest, mean, iterations * equal, iterations * unequal))
    return rows


def add_skew(folder: Path, tau_us: float, beside_us: float, iterations: int = 3) -> None:
    """Write a ``skew.csv`` into a bundle of one degree."""
    rows = skew_rows(tau_us, beside_us, iterations)
    table(folder / "tp1" / "skew.csv", "n,pc,kv_big,kv_mean,t_mean_us,t_skew_us", rows)


def small_model(folder: Path) -> str:
    """Write the model's ``config.json``, called ``small.json``; return its path."""
    path = folder / "small.json"
    path.write_text(json.dumps(MODEL))
    return str(path)


VIDUR_OPS = {
    "emb": 0.002, "input_layernorm": 0.003, "attn_pre_proj": 0.02, "attn_rope": 0.004, "attn_post_proj": 0.01,
    "post_attention_layernorm": 0.005, "mlp_up_proj": 0.04, "mlp_act": 0.006, "mlp_down_proj": 0.03, "add": 0.001,
}  # fmt: skip
"""Milliseconds of no token; each takes 0.01 of it more."""
VIDUR_SIZES = "n_head,n_kv_head,n_embd,n_expanded_embd,vocab_size,use_gated_mlp,num_tokens,num_tensor_parallel_workers"
VIDUR_KERNELS = "attn_prefill", "attn_decode", "attn_kv_cache_save"


def vidur_us(op: str, tokens: float) -> float:
    """Return the time of one of Vidur's operators."""
    return VIDUR_OPS[op] * 1e3 * (1 + 0.01 * tokens)


def vidur_prefill_us(chunk: float, context: float) -> float:
    """Return the time of a prompt's attention."""
    return 10 + 0.02 * chunk + 1e-5 * chunk * context


def vidur_decode_us(count: float, context: float) -> float:
    """Return the time of decodes' attention."""
    return 8 + 0.5 * count + 5e-4 * count * context


def vidur_save_us(tokens: float) -> float:
    """Return the time of putting keys and values of `tokens` into the cache."""
    return 2 + 0.01 * tokens


def vidur(folder: Path, *, without: Sequence[str] = (), save: bool = True) -> Path:
    """Write tables of `MODEL` as Vidur does: largest sizes first, one of them measured twice, other models beside."""
    ops = [op for op in VIDUR_OPS if op not in without]
    sizes = "8,4,256,512,1024,True", "8,8,256,512,1024,True"
    rows = []
    for number, model in enumerate(sizes):
        for tokens in (512, *reversed(TOKENS)):
            times = [vidur_us(op, tokens) / 1e3 * (1 + number) for op in ops]
            rows.append([*times, model, tokens, 1])
    columns = ",".join(f"time_stats.{op}.median" for op in ops)
    table(folder / "mlp.csv", f"{columns},{VIDUR_SIZES}", rows)
    kernels = VIDUR_KERNELS if save else VIDUR_KERNELS[:2]
    rows = []
    for chunk in CHUNKS:
        for context in (0, chunk, 2 * chunk):
            times = [vidur_prefill_us(chunk, context) / 1e3, 0, vidur_save_us(chunk) / 1e3][: len(kernels)]
            rows.append([*times, 256, 8, 4, 16, 1, 1, chunk, context, "FLASHINFER"])
    for count in COUNTS:
        for context in DECODES:
            times = [0, vidur_decode_us(count, context) / 1e3, vidur_save_us(count) / 1e3][: len(kernels)]
            rows.append([*times, 256, 8, 4, 16, 1, count, 0, context, "FLASHINFER"])
    columns = ",".join(f"time_stats.{kernel}.median" for kernel in kernels)
    sizes_of = "n_embd,n_q_head,n_kv_head,block_size,num_tensor_parallel_workers,batch_size,prefill_chunk_size"
    table(folder / "attention.csv", f"{columns},{sizes_of},kv_cache_size,attention_backend", rows)
    return folder
