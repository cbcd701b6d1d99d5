"""When a request finds KV blocks, as vLLM's v0 block managers and those made after them decide it.

- A waiting request is admitted if the blocks of all its tokens leave a watermark of the blocks free, so that those who
  decode do not lose their place at once. Blocks that are found by their prefix count as if they were taken.
- A request that appends to its last block must find a block free, though there may be room in the one that it has.
- One that was swapped out comes back if its blocks, and the one that its next token may need, leave the watermark.

(vLLM 0.6, vllm/core/block_manager.py: `can_allocate`, `can_append_slots`, `can_swap_in`.)
"""

from __future__ import annotations

from orchestrator.kv_memory.holder import Holder
from orchestrator.kv_memory.store import KVStore
from orchestrator.requests.request import Request
from orchestrator.schedulers.phased import Phased


class Watermark:
    """See the module's docstring; `share` of the blocks, rounded down, are left free."""

    def __init__(self, kv: KVStore, share: float, longest: int) -> None:
        self._kv = kv
        self._longest = longest
        self.blocks = int(share * kv.total)
        self.spare = len(kv.groups)

    def admits(self, member: Phased) -> bool:
        """Whether a request that waits, or was swapped out, would find the blocks that it lacks now."""
        return self._kv.free - self._kv.need(member, member.tokens) >= self.blocks

    def may_append(self, member: Phased) -> bool:
        """Whether a running request finds the block that its next token, or chunk, may need.

        The slots of a prompt are taken; a chunk asks for a block only where the last one is not full.
        """
        if not member.decodes and member.prompt % self._kv.block_size == 0:
            return True
        return self._kv.need(member, member.room + 1) <= self._kv.free

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request`, grown to `tokens` tokens, can never run here, or None.

        It may lose its place, and is admitted again with all its tokens only above the watermark.
        """
        stored = min(tokens, self._longest - 1)
        blocks, kv = self._kv.need(Holder(request, 0), stored), self._kv
        if blocks <= kv.total - self.blocks:
            return None
        kept = f", {self.blocks} of which stay free at admission" if self.blocks else ""
        return f"it needs {blocks} KV blocks of {kv.block_size} tokens, the cache holds {kv.total}{kept}"
