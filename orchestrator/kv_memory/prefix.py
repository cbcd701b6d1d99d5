"""KV memory with prefix caching, as vLLM's: full blocks are found by what they hold, while free ones last.

Blocks have numbers here, since which one is taken next decides whose contents are lost. Every group of layers has a
table for each request. Groups are searched in turn until all find a prefix of the same length: from its beginning where
the layers attend to everything, and from its end where they have a window, of which as many full blocks in a row are
needed as cover it (or a run from the very beginning).

Contents whose token ids are not known are those of nobody else: they can be found again only by the request itself,
after it lost its place. So such blocks are entered into the pool's index only when they are given back before its end,
and cost nothing until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from foundation.errors import InternalError
from orchestrator.kv_memory.block_pool import SharedBlockPool
from orchestrator.kv_memory.blocks import KVBlocks
from orchestrator.kv_memory.groups import EAGER, FULL, LayerGroup, WindowRules
from orchestrator.kv_memory.holder import Holder
from orchestrator.kv_memory.numbered_cohort import NumberedCohort
from orchestrator.kv_memory.private_cohort import PrivateCohort
from orchestrator.kv_memory.store import NO_HIT, Hit, KVSpace, Later
from trace_gen.batch_shape import KVTransfer

Find = Callable[[object], int | None]
"""Returns a block that holds a content, or None."""
NULL = 0
"""The block that stands for those outside a window."""


class PrefixKV(KVBlocks):
    """See the module's docstring. `pool` has one block more than `space`: the null block.

    `drops_last`: the last block of a prefix that was found is computed anew, each time that a group is searched.
    """

    caches_prefixes = True

    def __init__(
        self,
        space: KVSpace,
        pool: SharedBlockPool,
        groups: Sequence[LayerGroup] = (FULL,),
        rules: WindowRules = EAGER,
        *,
        drops_last: bool = False,
    ) -> None:
        super().__init__(space, groups, rules)
        self.pool = pool
        self._drops_last = drops_last
        specs = sorted(dict.fromkeys(self.groups), key=lambda group: group.window is not None)
        full_and_window = [spec.window is None for spec in specs] == [True, False]
        self._one_pass = full_and_window or len(self.groups) == 1
        self._specs = [(spec, [at for at, group in enumerate(self.groups) if group == spec]) for spec in specs]

    @property
    def free(self) -> int:
        """Blocks that can be taken now, those with findable contents included."""
        return self.pool.free

    def lookup(self, holder: Holder, tokens: int) -> Hit:
        """Return the longest prefix found of the first `tokens` tokens; the last of them is computed anew."""
        holder.junction = 0
        if not holder.known_blocks and not holder.preemptions:
            return NO_HIT
        tables = self._common_prefix(holder, (tokens - 1) // self.block_size, self.pool.find)
        if not tables[0]:
            return NO_HIT
        return Hit(tuple(tables), len(tables[0]) * self.block_size)

    def cached_tokens(self, holder: Holder, tokens: int, later: Later) -> int:
        """See `KVStore.cached_tokens`. Blocks that are lost meanwhile are the next ones of the free list."""
        pool, coming = self.pool, later.coming
        lost = pool.lost_by_taking(later.taken)

        def find(content: object) -> int | None:
            block = pool.find(content, lost)
            return NULL if block is None and content in coming else block

        return len(self._common_prefix(holder, (tokens - 1) // self.block_size, find)[0]) * self.block_size

    def fits(self, holder: Holder, hit: Hit, tokens: int) -> bool:
        """Whether `tokens` tokens, `hit` included, would find room now."""
        return self._missing(hit, self.admission_columns(tokens)) <= self.pool.free

    def admit(self, holder: Holder, hit: Hit, tokens: int) -> bool:
        """Take over the blocks of `hit` before new ones are taken, so that these cannot evict those."""
        if self._missing(hit, [self.columns(tokens)] * len(self.groups)) > self.pool.free:
            return False
        holder.tables = [self._adopted(group, table) for group, table in self._pairs(hit)]
        holder.room, holder.registered = hit.tokens, hit.tokens // self.block_size
        holder.dropped = [group.dropped_blocks(hit.tokens, self.block_size) for group in self.windowed]
        return self._extend(holder, tokens)

    def need(self, holder: Holder, tokens: int) -> int:
        """Return how many free blocks it takes to have `tokens` tokens of the request on the device."""
        more = self.columns(self.reserved(holder.request, tokens)) - holder.room // self.block_size
        return len(self.groups) * max(0, more) + holder.away

    def grow(self, holder: Holder, tokens: int) -> bool:
        """Give the request room for `tokens` tokens, what left its windows given back first; or return False."""
        if self.windowed:
            self._drop(holder)
        return self._extend(holder, tokens)

    def register(self, holder: Holder, tokens: int) -> None:
        """Register the blocks that became full since the last call, in block order."""
        full = tokens // self.block_size
        if full > holder.registered:
            last = min(full, holder.known_blocks)
            for group in range(len(holder.tables)) if last > holder.registered else ():
                self._index(holder, group, holder.registered, last)
            holder.registered = full

    def release(self, holder: Holder, *, resumes: bool = False) -> None:
        """Drop the request's blocks, the last of a table first; what it registered stays findable if it `resumes`."""
        for group, table in enumerate(holder.tables):
            if resumes:
                self._index(holder, group, holder.known_blocks, holder.registered)
            self._give_back(holder, group, range(len(table)))
        holder.tables, holder.dropped = [], []
        holder.room = holder.registered = holder.away = 0

    def held(self, holder: Holder) -> int:
        """Return the blocks that the request holds."""
        return sum(block != NULL for table in holder.tables for block in table)

    def swap_out(self, holder: Holder) -> KVTransfer:
        """Move all blocks of the request to host memory; while free ones last they can be found, too."""
        blocks, kept = self.held(holder), (holder.room, holder.registered, holder.dropped)
        self.release(holder, resumes=True)
        holder.room, holder.registered, holder.dropped = kept
        holder.away = blocks
        return self._transfer(holder, blocks)

    def swap_in(self, holder: Holder) -> KVTransfer:
        """Move the request's blocks back to the device; there must be room for them."""
        blocks, holder.away = holder.away, 0
        if blocks > self.pool.free:
            raise InternalError(f"request {holder.request.id} reloads {blocks} blocks into {self.pool.free} free ones")
        dropped = iter(holder.dropped)
        for group in self.groups:
            skipped = next(dropped) if group.window is not None else 0
            own = self.pool.take(holder.room // self.block_size - skipped)
            holder.tables.append([NULL] * skipped + own)
        return self._transfer(holder, blocks)

    def cohort(self, holders: Sequence[Holder]) -> NumberedCohort | PrivateCohort | None:
        """Return the blocks of requests that decode together from now on; None where steps are not alike.

        What leaves a window is not always free: others may hold it.
        """
        shared = [holder for holder in holders if holder.chain is not None and holder.registered < holder.chain.blocks]
        if not (self.windowed or shared):
            return PrivateCohort(self, holders)
        alike = not self.windowed or (self.rules.eager and not any(holder.known_blocks for holder in holders))
        return NumberedCohort(self, holders) if alike else None

    def contents(self, holder: Holder, columns: range) -> Iterable[object]:
        """Yield what stands for the contents of blocks of a request in `columns`, group by group of layers."""
        return (self._content(holder, group, at) for group in range(len(self.groups)) for at in columns)

    def _common_prefix(self, holder: Holder, columns: int, find: Find) -> list[list[int]]:
        """Return the blocks found in each group, all tables of one length: at most `columns`.

        Where one group finds more than all, the request notes how far (`junction`): others may have that much as well.
        """
        tables: list[list[int]] = [[] for _ in self.groups]
        known, longest = False, 0
        while True:
            found = columns
            for spec, members in self._specs:
                if spec.window is None and known:
                    continue
                for at, table in zip(members, self._search(holder, spec, members, found, find), strict=True):
                    tables[at] = table
                found = len(tables[members[0]])
                longest = max(longest, found)
            shorter, columns, known = found < columns, found, True
            if not shorter or self._one_pass:
                holder.junction = longest * self.block_size if longest > columns else 0
                return [table[:columns] for table in tables]

    def _search(
        self, holder: Holder, spec: LayerGroup, members: Sequence[int], columns: int, find: Find
    ) -> list[list[int]]:
        """Return the blocks of groups of one kind within the first `columns`, found together."""
        if not self._drops_last:
            return self._longest(holder, spec, members, columns, find)
        return [table[:-1] for table in self._longest(holder, spec, members, columns, find, more=1)]

    def _longest(
        self, holder: Holder, spec: LayerGroup, members: Sequence[int], columns: int, find: Find, more: int = 0
    ) -> list[list[int]]:
        """Return the longest run; a window is covered by so many blocks `more`."""
        if spec.window is None:
            return self._from_the_left(holder, members, columns, find)
        wanted = spec.covering_blocks(self.block_size) + more
        tables = [[NULL] * columns for _ in members]
        run = 0
        for column in range(columns - 1, -1, -1):
            blocks = self._find(holder, members, column, find)
            run = run + 1 if blocks is not None else 0
            for table, block in zip(tables, blocks or (), strict=False):
                table[column] = block
            if blocks is not None and run >= wanted:
                return [table[: column + run] for table in tables]
        return [table[:run] for table in tables]

    def _from_the_left(self, holder: Holder, members: Sequence[int], columns: int, find: Find) -> list[list[int]]:
        tables: list[list[int]] = [[] for _ in members]
        for column in range(columns):
            blocks = self._find(holder, members, column, find)
            if blocks is None:
                break
            for table, block in zip(tables, blocks, strict=True):
                table.append(block)
        return tables

    def _find(self, holder: Holder, members: Sequence[int], column: int, find: Find) -> list[int] | None:
        """Return the block of each of `members` that holds what the request has in `column`; None if one is missing."""
        blocks = []
        for group in members:
            block = find(self._content(holder, group, column))
            if block is None:
                return None
            blocks.append(block)
        return blocks

    def _content(self, holder: Holder, group: int, column: int) -> object:
        """Return what stands for the contents of a request's block; groups of layers never share one."""
        chain = holder.chain
        content = (holder.serial, column) if chain is None or column >= chain.blocks else chain.hash(column)
        return (group, content) if group else content

    def _index(self, holder: Holder, group: int, first: int, last: int) -> None:
        """Make the blocks of a group in columns `first` to `last` - 1 findable, but for those that are."""
        table = holder.tables[group]
        for column in self._findable(holder, group, range(first, last)):
            block = table[column]
            if block != NULL and self.pool.content_of(block) is None:
                self.pool.register(block, self._content(holder, group, column))

    def _findable(self, holder: Holder, group: int, columns: range) -> Iterable[int]:
        """Return those of the request's full blocks that can be found again."""
        boundaries = (holder.request.prompt_tokens - 1, holder.junction)
        return self.rules.findable(self.groups[group], columns, self.block_size, boundaries)

    def _pairs(self, hit: Hit) -> list[tuple[int, list[int]]]:
        """Return for each group how many columns of the hit are outside its window, and its table."""
        tables = hit.tables or ([],) * len(self.groups)
        return [
            (group.dropped_blocks(hit.tokens, self.block_size), table)
            for group, table in zip(self.groups, tables, strict=True)
        ]

    def _adopted(self, outside: int, table: list[int]) -> list[int]:
        """Return a request's own table with what it found, within the window."""
        within = table[outside:]
        self.pool.adopt(block for block in within if block != NULL)
        return [NULL] * outside + within

    def _missing(self, hit: Hit, columns: Sequence[int]) -> int:
        """Free blocks that `columns` of each group take up; an idle hit leaves the free list, so it counts as well."""
        references = self.pool.references
        return sum(
            max(wanted - max(outside, len(table)), 0)
            + sum(references[block] == 0 for block in table[outside:] if block != NULL)
            for wanted, (outside, table) in zip(columns, self._pairs(hit), strict=True)
        )

    def _extend(self, holder: Holder, tokens: int) -> bool:
        columns = -((holder.room - tokens) // self.block_size)
        if columns <= 0:
            return True
        if columns * len(self.groups) > self.pool.free:
            return False
        for table in holder.tables:
            table += self.pool.take(columns)
        holder.room += columns * self.block_size
        return True

    def _drop(self, holder: Holder) -> None:
        """Give back what left the windows of the request's layers, the last block first."""
        outside = self.outside(holder)
        if outside == holder.dropped:
            return
        ranges = zip(holder.dropped, outside, strict=True)
        holder.dropped = outside
        for group, table in enumerate(holder.tables):
            if self.groups[group].window is not None:
                first, last = next(ranges)
                self._index(holder, group, max(first, holder.known_blocks), min(last, holder.registered))
                self._give_back(holder, group, range(first, last))
                table[first:last] = [NULL] * (last - first)

    def _give_back(self, holder: Holder, group: int, columns: range) -> None:
        table = holder.tables[group]
        if not self.windowed:
            self.pool.give_back(table, table[: holder.registered])
            return
        full = range(columns.start, min(columns.stop, holder.registered))
        findable = [table[column] for column in self._findable(holder, group, full)]
        self.pool.give_back([block for block in table[columns.start : columns.stop] if block != NULL], findable)
