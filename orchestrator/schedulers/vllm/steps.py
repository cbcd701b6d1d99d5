"""Many decode steps of the same requests at once: how many there can be, and their KV blocks in the same order.

Between two changes of the batch, a step takes one token a request: a block each time `room` is used up, and a
registration each time a block is full. Done step by step these happen in the order (step, place in the batch), and
that order decides which block a request gets and which of two equal ones is found first, so it is kept here::

    step      1        2        3        4             needs of a request with 2 tokens of room left and blocks of 2
    room      .        .      take       .      take
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from orchestrator.schedulers.vllm.kv_cache import KVCache
from orchestrator.schedulers.vllm.tracked import Tracked


def further_steps(items: Sequence[Tracked], kv: KVCache) -> int:
    """Return how many more tokens each of `items` can compute: until one is done or the blocks run out."""
    most = min((item.limit - item.computed for item in items), default=0)
    size, free = kv.block_size, kv.free
    slack = [item.room - item.computed for item in items]

    def blocks(steps: int) -> int:
        return sum(-((left - steps) // size) for left in slack if steps > left)

    if blocks(most) <= free:
        return most
    return bisect_right(range(most + 1), free, key=blocks) - 1


def take_further_steps(items: Sequence[Tracked], kv: KVCache, steps: int, lag: int) -> None:
    """Count `steps` more tokens for each of `items`, with the blocks and registrations of as many decisions.

    `lag` is 1 when a decision does not yet know the token of the step before (asynchronous scheduling). Taking and
    registering do not affect each other: blocks taken are free ones, blocks registered are not.
    """
    size = kv.block_size
    takes: list[tuple[int, int]] = []
    fills: list[tuple[int, int]] = []
    for index, item in enumerate(items):
        takes += [(step, index) for step in range(item.room - item.computed + 1, steps + 1, size)]
        if kv.caches_prefixes:
            first = item.next_full - item.computed + lag
            fills += [(max(step, 1), index) for step in range(first, steps + 1, size)]
    for _, index in sorted(takes):
        kv.grow(items[index], items[index].room + 1)
    for item in items:
        item.computed += steps
    for _, index in sorted(fills):
        kv.register(items[index], items[index].next_full)
