"""Norms, activations, rotary embedding, and other work on each number of a batch's tokens."""

from __future__ import annotations

from typing import Any

from profiler.bench import Bench, Launch, kernels


@kernels.register("rms_norm")
def rms_norm(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """Add the residual stream and norm. `shape`: width; `sizes`: tokens."""
    rows, residual, weight = bench.random(sizes[0], *shape), bench.random(sizes[0], *shape), bench.weight(*shape)
    norm = bench.torch.nn.functional.rms_norm
    return lambda: norm(residual.add_(rows), shape, weight)


@kernels.register("layer_norm")
def layer_norm(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """Add the residual stream and norm. `shape`: width; `sizes`: tokens."""
    rows, residual, weight = bench.random(sizes[0], *shape), bench.random(sizes[0], *shape), bench.weight(*shape)
    bias, norm = bench.weight(*shape, name="bias"), bench.torch.nn.functional.layer_norm
    return lambda: norm(residual.add_(rows), shape, weight, bias)


@kernels.register("head_norm")
def head_norm(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """Norm each head of queries and keys. `shape`: query heads, KV heads, their size; `sizes`: tokens."""
    query, key = _query_and_key(bench, shape, sizes[0])
    weights = [bench.weight(shape[2], name=name) for name in ("query", "key")]
    norm = bench.torch.nn.functional.rms_norm
    return lambda: (norm(query, shape[2:], weights[0]), norm(key, shape[2:], weights[1]))


@kernels.register("gated_activation")
def gated_activation(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """SiLU of one half of the numbers, times the other. `shape`: width after it; `sizes`: tokens."""
    gate, up = bench.random(sizes[0], 2 * shape[0]).chunk(2, dim=-1)
    silu = bench.torch.nn.functional.silu
    return lambda: silu(gate).mul_(up)


@kernels.register("activation")
def activation(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """GELU. `shape`: width; `sizes`: tokens."""
    rows, gelu = bench.random(sizes[0], *shape), bench.torch.nn.functional.gelu
    return lambda: gelu(rows)


@kernels.register("rotary")
def rotary(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """Rotate pairs of queries and keys by their position. `shape`: heads, KV heads, size, rotated; `sizes`: tokens."""
    query, key = _query_and_key(bench, shape, sizes[0])
    half = shape[3] // 2
    cosine, sine = bench.random(sizes[0], 1, half), bench.random(sizes[0], 1, half)

    def turn(rows: Any) -> Any:
        first, second = rows[..., :half], rows[..., half : 2 * half]
        turned = first * cosine - second * sine
        second.mul_(cosine).addcmul_(first, sine)
        return first.copy_(turned)

    return lambda: (turn(query), turn(key))


@kernels.register("scale")
def scale(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """Multiply by a number. `shape`: width; `sizes`: tokens."""
    rows = bench.random(sizes[0], *shape)
    return lambda: rows * 0.5


@kernels.register("softcap")
def softcap(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """Squeeze logits into a range. `shape`: logits; `sizes`: sequences."""
    rows = bench.random(sizes[0], *shape)
    return lambda: bench.torch.tanh(rows / 30.0).mul_(30.0)


@kernels.register("add_positions")
def add_positions(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """Add the rows of positions. `shape`: width; `sizes`: tokens."""
    rows, places = bench.random(sizes[0], *shape), bench.random(sizes[0], *shape)
    return lambda: rows + places


def _query_and_key(bench: Bench, shape: tuple[int, ...], tokens: int) -> tuple[Any, Any]:
    return bench.random(tokens, shape[0], shape[2]), bench.random(tokens, shape[1], shape[2])
