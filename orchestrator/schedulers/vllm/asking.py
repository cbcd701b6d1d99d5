"""What admission asks of a request at the head of the waiting queue, before it gets anything."""

from __future__ import annotations

from collections.abc import Sequence, Set

from foundation.records import dataclass
from orchestrator.kv_memory.store import NO_HIT, Hit, KVStore
from orchestrator.schedulers.vllm.config import VllmSchedulerConfig
from orchestrator.schedulers.vllm.connector import NO_MATCH, Match
from orchestrator.schedulers.vllm.draft import Draft
from orchestrator.schedulers.vllm.entry import Entry, Status
from orchestrator.schedulers.vllm.guesses import Guesses
from orchestrator.schedulers.vllm.remote import RemoteKV


@dataclass(frozen=True, slots=True, eq=False)
class Asking:
    """See the module's docstring. `guesses` and `remote`: None where nothing is guessed, or fetched."""

    config: VllmSchedulerConfig
    kv: KVStore
    guesses: Guesses | None
    remote: RemoteKV | None

    def is_held_up(self, entry: Entry, adapters: Set[str | None]) -> bool:
        """Whether `entry` cannot be admitted whatever there is: KV cache or tokens of its own have yet to come, or the
        step has as many adapters as it may.
        """
        if entry.status is Status.FETCHING and not (self.remote is not None and self.remote.arrives(entry)):
            return True
        return entry.stale > 0 or self._lacks_adapter_slot(entry, adapters)

    def adapters(self, draft: Draft, running: Sequence[Entry]) -> set[str | None]:
        """Return the adapters that count against `max_loras` before anybody is admitted."""
        if not self.config.max_loras:
            return set()
        served = draft.entries if draft.cohort is None else draft.cohort.members
        return {entry.request.adapter for entry in (running if self.config.rules.counts_all_adapters else served)}

    def _lacks_adapter_slot(self, entry: Entry, adapters: Set[str | None]) -> bool:
        """Whether `entry` needs an adapter beside as many others as a step may have."""
        adapter, most = entry.request.adapter, self.config.max_loras
        if not most or adapter is None or adapter in adapters:
            return False
        return len(adapters - {None}) >= most

    def match(self, entry: Entry) -> tuple[Hit, Match] | None:
        """Return what `entry` finds here and elsewhere; None where the latter is not known yet."""
        if entry.computed:  # it has fetched it
            return NO_HIT, NO_MATCH
        hit = self.kv.lookup(entry, entry.tokens)
        if self.remote is None:
            return hit, NO_MATCH
        match = self.remote.connector.matched(entry, hit.tokens)
        return None if match is None else (hit, match)

    def may_find_otherwise(self, entry: Entry) -> bool:
        """Whether decodes of others change what `entry`, once refused, would get: more of its prefix found, or its own
        blocks lost, so that it would fetch what it was to compute the rest of.
        """
        return entry.known_blocks > 0 or (self.remote is not None and entry.preemptions > 0)

    def fits(self, entry: Entry, hit: Hit) -> bool:
        """Whether there is room for all known tokens of `entry`, and it may have fetched the first of them."""
        tokens = min(entry.tokens, self.config.max_model_len)
        if entry.room:
            return self.kv.need(entry, tokens) <= self.kv.free
        return self.kv.fits(entry, hit, tokens)

    def take_room(self, entry: Entry, hit: Hit, tokens: int) -> bool:
        """Give `entry`, which holds blocks if it has fetched, those for its first `tokens` tokens; or return False."""
        if not entry.room:
            return self.kv.admit(entry, hit, tokens)
        return self.kv.grow(entry, tokens if self.guesses is None else self.guesses.slots(tokens))
