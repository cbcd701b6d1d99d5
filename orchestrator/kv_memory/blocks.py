"""What every KV store that deals in blocks of tokens has in common: sizes, windows, and what can never fit."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.kv_memory.groups import EAGER, FULL, LayerGroup, WindowRules
from orchestrator.kv_memory.holder import Holder
from orchestrator.kv_memory.store import KVSpace, Later
from orchestrator.requests.request import Request
from trace_gen.batch_shape import KVTransfer


class KVBlocks:
    """Blocks of `space`, in a table for each request and each of `groups` of layers, whose windows follow `rules`."""

    def __init__(self, space: KVSpace, groups: Sequence[LayerGroup] = (FULL,), rules: WindowRules = EAGER) -> None:
        self.space = space
        self.groups = tuple(groups)
        self.block_size = space.block_size
        self.total = space.total_blocks
        self.windowed = tuple(group for group in groups if group.window is not None)
        self.rules = rules

    def reserved(self, request: Request, tokens: int) -> int:
        """Return the tokens for which `request` holds room while `tokens` are in its cache: just those."""
        return tokens

    def cached_tokens(self, holder: Holder, tokens: int, later: Later) -> int:
        """Return 0: contents are not remembered."""
        return 0

    def columns(self, tokens: int) -> int:
        """Return the blocks that `tokens` tokens fill in each group of layers, windows aside."""
        return -(-tokens // self.block_size)

    def admission_columns(self, tokens: int) -> list[int]:
        """Return the blocks of each group of layers with which a prompt of `tokens` is counted that must fit whole."""
        longest = self.space.max_model_len or tokens
        return [self.rules.admission_blocks(group, tokens, longest, self.block_size) for group in self.groups]

    def outside(self, holder: Holder) -> list[int]:
        """Return how many leading blocks of each windowed group the request needs no more."""
        computed = holder.computed if self.rules.eager else holder.computed - holder.in_flight
        outside = [group.dropped_blocks(computed, self.block_size) for group in self.windowed]
        # Drafts that were wrong take `computed` back; what was given back then stays gone.
        return [max(pair) for pair in zip(outside, holder.dropped, strict=True)] if holder.dropped else outside

    def peak_blocks(self, request: Request, tokens: int) -> int:
        """Return the most blocks that `request` holds on its way to `tokens` tokens, its prompt computed whole."""
        size, tokens = self.block_size, self.reserved(request, tokens)
        prompt = min(request.prompt_tokens, tokens)
        most = 0
        for group in self.groups:
            decoding = range(max(prompt, tokens - size - 1), tokens)
            held = [self.columns(computed + 1) - group.dropped_blocks(computed, size) for computed in decoding]
            most += max([self.columns(prompt), *held])
        return most

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request`, which grows to `tokens` tokens, can never run (one clause, both sizes), or None."""
        longest = self.space.max_model_len
        if longest is not None and tokens > longest:
            return f"the request grows to {tokens} tokens, the limit (max_model_len) is {longest}"
        blocks = self.peak_blocks(request, tokens)
        if blocks > self.total:
            size = self.space.block_bytes
            return (
                f"the request needs {blocks} KV blocks ({blocks * size / 1e9:.2f} GB), "
                f"the memory left beside the weights holds {self.total} ({self.total * size / 1e9:.2f} GB)"
            )
        return None

    def _transfer(self, holder: Holder, blocks: int) -> KVTransfer:
        return KVTransfer(holder.request.id, blocks, blocks * self.block_size, blocks * self.space.block_bytes)
