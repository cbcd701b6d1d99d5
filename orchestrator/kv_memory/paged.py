"""KV memory in blocks, taken on demand as a request's tokens grow; every block has one owner, so counting is enough.

    tokens   0 1 2 3 | 4 5 6 7 | 8            block_size 4, 9 tokens: 3 blocks held, 3 slots free in the last
    block    first     second    third

A block stands for `block_size` tokens of one group of layers on every rank of the instance. Host memory is unlimited.
Nothing here decides who goes: that is the scheduler's job.
"""

from __future__ import annotations

from collections.abc import Sequence

from foundation.errors import InternalError
from orchestrator.kv_memory.blocks import KVBlocks
from orchestrator.kv_memory.counted_cohort import CountedCohort
from orchestrator.kv_memory.groups import EAGER, FULL, LayerGroup, WindowRules
from orchestrator.kv_memory.holder import Holder
from orchestrator.kv_memory.store import NO_HIT, Hit, KVSpace
from trace_gen.batch_shape import KVTransfer


class PagedKV(KVBlocks):
    """Demand paging (``--kv_manage vllm``): a request holds the blocks that its tokens fill, no more."""

    caches_prefixes = False

    def __init__(self, space: KVSpace, groups: Sequence[LayerGroup] = (FULL,), rules: WindowRules = EAGER) -> None:
        super().__init__(space, groups, rules)
        self._free = space.total_blocks

    @property
    def free(self) -> int:
        """Blocks that can be taken now."""
        return self._free

    def lookup(self, holder: Holder, tokens: int) -> Hit:
        """Return no hit: contents are not remembered."""
        return NO_HIT

    def fits(self, holder: Holder, hit: Hit, tokens: int) -> bool:
        """Whether `tokens` tokens would find room now."""
        return sum(self.admission_columns(self.reserved(holder.request, tokens))) <= self._free

    def admit(self, holder: Holder, hit: Hit, tokens: int) -> bool:
        """Give the request its first blocks, or return False."""
        return self.grow(holder, tokens)

    def need(self, holder: Holder, tokens: int) -> int:
        """Return how many free blocks it takes to have `tokens` tokens of the request on the device."""
        more = self.columns(self.reserved(holder.request, tokens)) - holder.room // self.block_size
        back = holder.away
        if self.windowed and not back:
            back = sum(holder.dropped) - sum(self.outside(holder))
        return len(self.groups) * max(0, more) + back

    def grow(self, holder: Holder, tokens: int) -> bool:
        """Give the request room for `tokens` tokens, what left its windows given back first; or return False."""
        if holder.away:
            raise InternalError(f"request {holder.request.id} grows while its blocks are in host memory")
        if self.windowed:
            self._drop(holder)
        if tokens <= holder.room:
            return True
        columns = -((holder.room - self.reserved(holder.request, tokens)) // self.block_size)
        if not self.take(columns * len(self.groups)):
            return False
        holder.room += columns * self.block_size
        return True

    def register(self, holder: Holder, tokens: int) -> None:
        """Do nothing: contents are not remembered."""

    def release(self, holder: Holder, *, resumes: bool = False) -> None:
        """Free the blocks of the request, wherever they are."""
        self._free += self.held(holder)
        holder.room = holder.away = 0
        holder.dropped = []

    def held(self, holder: Holder) -> int:
        """Return the blocks that the request holds on the device."""
        if holder.away:
            return 0
        return holder.room // self.block_size * len(self.groups) - sum(holder.dropped)

    def swap_out(self, holder: Holder) -> KVTransfer:
        """Move all blocks of the request to host memory."""
        blocks = self.held(holder)
        self._free += blocks
        holder.away = blocks
        return self._transfer(holder, blocks)

    def swap_in(self, holder: Holder) -> KVTransfer:
        """Move the request's blocks back to the device; there must be room for them."""
        blocks, holder.away = holder.away, 0
        if not self.take(blocks):
            raise InternalError(f"request {holder.request.id} reloads {blocks} blocks into {self._free} free ones")
        return self._transfer(holder, blocks)

    def cohort(self, holders: Sequence[Holder]) -> CountedCohort | None:
        """Return the blocks of requests that decode together from now on; None where steps are not alike."""
        return CountedCohort(self, holders) if self.rules.eager or not self.windowed else None

    def take(self, blocks: int) -> bool:
        """Take `blocks` (give them back where negative), whose owners are noted elsewhere; False: there are too few."""
        if blocks > self._free:
            return False
        self._free -= blocks
        return True

    def _drop(self, holder: Holder) -> None:
        """Give back what left the windows of the request's layers."""
        outside = self.outside(holder)
        self._free += sum(outside) - sum(holder.dropped)
        holder.dropped = outside
