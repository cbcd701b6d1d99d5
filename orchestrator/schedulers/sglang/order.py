"""In which order requests wait (SGLang's SchedulePolicy): as they came, by what the cache holds of them, by length.

- `fcfs`: as they came; those that lost their place come last;
- `lpm`: the longest prefix in the cache first; as they are where more than 128 wait;
- `dfs-weight`: as a depth-first search meets them in the radix tree, the branch that most of them wait for first;
- `lof`: who may get the longest answer first;
- `random`: drawn anew each time.

With `lpm`, of requests that share a prefix with each other and little with the cache only the first keeps its place;
the others wait until the cache has it. An order is kept, so that the next one begins with it. Without a radix cache,
`lpm` and `dfs-weight` are `fcfs`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from hashlib import blake2b

from orchestrator.kv_memory.radix import RadixKV
from orchestrator.kv_memory.radix_tree import Node, RadixTree
from orchestrator.schedulers.sglang.config import SglangConfig
from orchestrator.schedulers.sglang.entry import Entry

_MOST_SORTED = 128
"""Where more wait, `lpm` does not look at them (`_determine_active_policy`)."""
_LITTLE = 32
"""Tokens: who finds no more in the cache looks among those that wait (IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD)."""
_MUCH = 32
"""Tokens: who shares as many with one that waits steps back (IN_BATCH_PREFIX_CACHING_DEPRIORITIZE_THRESHOLD)."""


class WaitingOrder:
    """See the module's docstring."""

    def __init__(self, config: SglangConfig, kv: RadixKV) -> None:
        unaware = config.schedule_policy in ("lpm", "dfs-weight") and not config.aware_of_cache
        self._policy = "fcfs" if unaware else config.schedule_policy
        self._seed = config.random_seed
        self._kv = kv
        self._draws = 0

    def sort(self, waiting: list[Entry]) -> None:
        """Put those that wait in order."""
        if self._policy == "lof":
            waiting.sort(key=lambda entry: -entry.limit)
        elif self._policy == "random":
            self._draws += 1
            waiting.sort(key=self._drawn)
        elif self._policy == "dfs-weight":
            self._depth_first(waiting)
        elif self._policy == "lpm" and len(waiting) <= _MOST_SORTED:
            found = self._found(waiting)
            waiting.sort(key=found.__getitem__)

    def _drawn(self, entry: Entry) -> bytes:
        text = f"{self._seed} order {self._draws} {entry.request.id}"
        return blake2b(text.encode(), digest_size=8).digest()

    def _found(self, waiting: list[Entry]) -> dict[Entry, int]:
        """Return by how many tokens each is to be sorted, the least first; those that step back come last."""
        among = RadixTree()
        found: dict[Entry, int] = {}
        for entry in waiting:
            tokens = self._kv.match(entry, entry.tokens).tokens
            found[entry] = -tokens
            if tokens <= _LITTLE:
                ids, adapter = self._kv.ids(entry, entry.tokens), entry.request.adapter
                if among.match(ids, adapter)[1] >= _MUCH:
                    found[entry] = 1
                else:
                    among.insert(ids, adapter)
        return found

    def _depth_first(self, waiting: list[Entry]) -> None:
        at: defaultdict[Node, list[Entry]] = defaultdict(list)
        for entry in waiting:
            at[self._kv.match(entry, entry.tokens).leaf].append(entry)
        weights: Counter[Node] = Counter()
        for leaf, entries in at.items():
            above: Node | None = leaf
            while above is not None:
                weights[above] += len(entries)
                above = above.parent
        waiting.clear()
        # A node comes after all below it, its heaviest child first: the reverse of a walk that meets it first.
        stack, met = [self._kv.tree.root], []
        while stack:
            node = stack.pop()
            met.append(node)
            below = [child for child in node.children.values() if child in weights]
            stack += sorted(below, key=lambda child: -weights[child])
        for node in reversed(met):
            waiting += at[node]
