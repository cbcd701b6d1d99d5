"""Embeddings, and the choice of a token."""

from __future__ import annotations

from profiler.bench import Bench, Launch, kernels


@kernels.register("embedding")
def embedding(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """`shape`: rows of the table, their width, and rows of a table of positions (0: none); `sizes`: tokens."""
    rows, width, positions = shape
    table = bench.weight(rows, width)
    # Far apart, as tokens of a text are: a large prime's multiples.
    ids = bench.whole([token * 7919 % rows for token in range(sizes[0])])
    look_up = bench.torch.nn.functional.embedding
    if not positions:
        return lambda: look_up(ids, table)
    places = bench.weight(positions, width, name="positions")
    at = bench.whole([token % positions for token in range(sizes[0])])
    return lambda: look_up(ids, table) + look_up(at, places)


@kernels.register("sampler")
def sampler(bench: Bench, shape: tuple[int, ...], sizes: tuple[int, ...]) -> Launch:
    """Draw a token of a softmax, in 32 bits, by the race of exponentials. `shape`: logits; `sizes`: sequences."""
    logits = bench.random(sizes[0], shape[0])

    def draw() -> object:
        shares = logits.float().softmax(dim=-1)
        return shares.div_(bench.torch.empty_like(shares).exponential_()).argmax(dim=-1)

    return draw
