"""Who is let in, and with how many tokens of the prompt (SGLang's PrefillAdder).

A request is let in where its prompt and the answer that it may get find room beside what those that run are expected to
ask for: a share of what they may (`estimate`). Promises may turn out too many; then requests are retracted.

What a step may hold is counted down: tokens of prompts (`max_prefill_tokens`), tokens of a chunk, and the KV cache. A
prompt that is longer than what is left of the chunk is cut, one at a time, and goes on in the next step before all
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from foundation.records import dataclass
from orchestrator.kv_memory.radix import RadixKV
from orchestrator.schedulers.sglang.config import SglangConfig
from orchestrator.schedulers.sglang.entry import CLIPPED, Entry

_SPARE = 1
"""Tokens of every request that stay free where answers are known to be as long as they may get."""


class Verdict(Enum):
    """What became of a request that was looked at."""

    GO_ON = auto()
    """It is let in, and there may be room for more."""
    NO_MEMORY = auto()
    """The KV cache has no room, for it or for more."""
    NO_TOKENS = auto()
    """The step has no tokens left, for it or for more."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """`tokens` of the prompt of `entry` are computed; `begins`: the first of it, `whole`: nothing of it is left."""

    entry: Entry
    tokens: int
    begins: bool
    whole: bool


class PrefillAdder:
    """See the module's docstring. `rows` are the prompts of the step, `joined` those that have theirs computed.

    `cut` is the request whose prompt goes on in the next step; `mixed`: decodes that share the step.
    """

    def __init__(
        self, config: SglangConfig, kv: RadixKV, running: Sequence[Entry], ratio: float, mixed: int = 0
    ) -> None:
        self.rows: list[Row] = []
        self.joined: list[Entry] = []
        self.cut: Entry | None = None
        self._kv = kv
        self._running = running
        self._input = config.max_prefill_tokens - mixed
        self._chunk = None if config.chunk is None else config.chunk - mixed
        self._knows_lengths = config.ignore_eos and not config.radix_cache
        self._promised = mixed + sum(entry.expected * ratio for entry in running)
        self._taken = mixed
        self._needs: list[tuple[float, int]] | None = None

    def go_on(self, entry: Entry) -> None:
        """Take the next part of a prompt that was cut; it waits where there is no room for any of it."""
        assert self._chunk is not None  # else no prompt is cut
        left = entry.tokens - entry.computed
        tokens = min(left, self._chunk, int(self._room))
        self.cut = entry if tokens < left else None
        if tokens > 0:
            self._compute(entry, tokens, begins=False, whole=tokens == left)

    def look_at(self, entry: Entry) -> Verdict:
        """Let a waiting request in, or say why not."""
        prefix = self._kv.match(entry, entry.tokens - 1)
        known = max(prefix.tokens, entry.landed)
        tokens = 0 if entry.joins else entry.tokens - known
        if self._knows_lengths:
            if not self._fits_by_length(entry, tokens):
                return Verdict.NO_MEMORY
        elif known - prefix.tokens + tokens + max(entry.expected, 0) >= self._room:
            return Verdict.NO_MEMORY
        elif self._pages(tokens) >= self._input and self.rows:
            return Verdict.NO_TOKENS
        self._kv.hold(entry, prefix)
        if not self._knows_lengths and known - prefix.tokens + tokens + max(entry.expected, 0) >= self._room:
            self._kv.let_go(entry)  # what it found can no longer be evicted for it
            return Verdict.NO_MEMORY
        if not self._begin(entry, known, tokens):
            self._kv.let_go(entry)
            entry.computed = 0
            return Verdict.NO_TOKENS
        return self._verdict()

    @property
    def _room(self) -> float:
        """Tokens of KV cache that are neither taken nor promised."""
        return self._kv.reachable - self._promised

    def _begin(self, entry: Entry, known: int, tokens: int) -> bool:
        """Take the first part of a prompt after its `known` tokens, or return False."""
        self._promise(known - entry.shared)
        entry.computed = known
        if entry.joins:
            self.joined.append(entry)
            self._promised += min(entry.limit, CLIPPED)
            return True
        chunk, page = self._chunk, self._kv.block_size
        if chunk is None or (tokens if self._knows_lengths else self._pages(tokens)) <= chunk:
            self._compute(entry, tokens, begins=True, whole=True)
            return True
        part = chunk // page * page
        if part <= 0:
            self._promise(entry.shared - known)
            return False
        self.cut = entry
        self._compute(entry, part, begins=True, whole=False)
        return True

    def _promise(self, tokens: int) -> None:
        """Count KV cache that comes from elsewhere and has yet to get slots."""
        self._promised += tokens
        self._taken += tokens

    def _compute(self, entry: Entry, tokens: int, *, begins: bool, whole: bool) -> None:
        self.rows.append(Row(entry, tokens, begins, whole))
        pages = self._pages(tokens)
        self._promised += pages + (min(entry.limit, CLIPPED) if whole else 0)
        self._taken += pages
        self._input -= pages
        if self._chunk is not None:
            self._chunk -= pages

    def _verdict(self) -> Verdict:
        if self._room <= 0 or self._kv.reachable - self._taken <= 0:
            return Verdict.NO_MEMORY
        if self._input <= 0 or (self._chunk is not None and self._chunk <= 0):
            return Verdict.NO_TOKENS
        return Verdict.GO_ON

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self._kv.block_size) * self._kv.block_size

    # -- where answers are as long as they may get, and nothing stays in the cache: who ends when is known

    def _fits_by_length(self, entry: Entry, tokens: int) -> bool:
        """Whether there is room for everybody to the end, those that end first giving theirs back."""
        pages = self._pages(tokens)
        if pages > min(self._kv.reachable - self._taken, self._room):
            return False
        needs = self._with(entry)
        free, given_back = self._kv.reachable - self._taken - pages, 0
        for place, (left, occupied) in enumerate(needs):
            others = len(needs) - place
            if free + given_back - left * others <= _SPARE * others:
                return False
            given_back += occupied
        return True

    def _with(self, entry: Entry) -> list[tuple[float, int]]:
        """Return how many tokens each lacks and has, those of `entry` among them, the first to end first."""
        need = (float(entry.limit - entry.output), entry.tokens)
        if self._needs is None:
            everybody = [entry, *self._running, *(row.entry for row in self.rows)]
            self._needs = [(float(one.limit - one.output), one.tokens) for one in everybody if not one.is_last]
            self._needs.sort(key=lambda pair: pair[0])
        elif need[0] > 0:
            # SGLang puts whoever is last before the one that was last.
            places = (at for at, (left, _) in enumerate(self._needs) if need[0] <= left)
            self._needs.insert(next(places, max(0, len(self._needs) - 1)), need)
        return self._needs
