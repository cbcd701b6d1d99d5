"""Attention of a batch: a chunk of one prompt beside requests that decode, and what they put into the KV cache.

PyTorch's `scaled_dot_product_attention`, a call for the chunk and one for the decodes: it has no call for both, as
engines' kernels have, and no paged cache, so that the cache of each request is contiguous.
"""

from __future__ import annotations

from typing import Any

from profiler.bench import Bench, Launch, kernels


@kernels.register("attention")
def attention(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """`shape`: query heads, KV heads, their size; `sizes`: chunk, tokens before it, decodes, their context."""
    chunk, past, decodes, context = sizes
    parts: list[Launch] = []
    if chunk:
        parts.append(_part(bench, shape, 1, chunk, past))
    if decodes:
        parts.append(_part(bench, shape, decodes, 1, context))
    return lambda: [part() for part in parts]


def _part(bench: Bench, shape: tuple[int, ...], requests: int, new: int, past: int) -> Launch:
    """Return what lets `new` tokens of each request attend to `past` ones and to each other."""
    heads, kv_heads, size = shape
    torch = bench.torch
    query = bench.random(requests, heads, new, size)
    made = bench.random(2, requests, kv_heads, new, size)
    kept = _cache(bench, 2 * requests * kv_heads * (past + new) * size)
    cache = kept.view(2, requests, kv_heads, past + new, size)
    keys, values = cache[0], cache[1]
    options: dict[str, Any] = {"enable_gqa": True} if heads != kv_heads else {}
    if new > 1 and past:
        from torch.nn.attention.bias import causal_lower_right

        options["attn_mask"] = causal_lower_right(new, past + new)
    elif new > 1:
        options["is_causal"] = True
    attend = torch.nn.functional.scaled_dot_product_attention

    def launch() -> Any:
        cache[:, :, :, past:] = made
        return attend(query, keys, values, **options)

    return launch


def _cache(bench: Bench, numbers: int) -> Any:
    """Return so many random numbers: the same memory for every batch, grown as needed, since it may be most of all."""
    known = bench.kept(("cache",), lambda: [bench.random(numbers)])
    if known[0].numel() < numbers:
        known.clear()
        known.append(bench.random(numbers))
    return known[0][:numbers]
