"""Settings that several policies have in common, as records to derive a policy's own from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from foundation.records import dataclass
from foundation.settings import choice, setting
from orchestrator.kv_memory.managers import KVManager, kv_managers
from orchestrator.schedulers.orders import ORDERS, Order
from orchestrator.schedulers.settings import Place, Policy

if TYPE_CHECKING:
    from orchestrator.schedulers.ledger import Ledger
    from orchestrator.schedulers.tracked import Tracked


@dataclass(frozen=True)
class Queueing(Policy):
    """A policy whose requests wait in one queue."""

    queue_order: str = setting(
        "fcfs",
        "which waiting request is taken first: sjf and ljf go by prompt + output",
        choices=tuple(ORDERS),
        like=("policy",),
    )

    @property
    def order(self) -> Order:
        """The key by which requests wait."""
        return ORDERS[self.queue_order]


@dataclass(frozen=True)
class Seating(Policy):
    """A policy that forms batches of so many requests."""

    default_block_size: ClassVar[int] = 8

    max_batch: int = setting(0, "requests in a batch at most; 0: no limit", least=0, like=("max_num_seqs",))
    gen: bool = setting(False, "skip the initiation phase: prompts count as computed already")

    def step_limits(self) -> Mapping[str, int]:
        """See `Policy.step_limits`."""
        return {"requests": self.max_batch} if self.max_batch else {}


@dataclass(frozen=True)
class Batching(Seating):
    """A policy that forms batches of so many requests, over KV memory of a manager's."""

    kv_manage: KVManager = choice(kv_managers, "vllm", "KV memory of a request")

    @property
    def ends_at_longest(self) -> bool:
        """Whether the longest sequence is reserved."""
        return self.kv_manage.reserves_longest

    @property
    def swaps(self) -> bool:
        """See `Policy.swaps`; who reserves never grows."""
        return self.kv_manage.evicts

    def ledger(self, place: Place) -> Ledger[Tracked]:
        """Return a new ledger over the memory that the manager makes of the place."""
        from orchestrator.schedulers.ledger import Ledger

        return Ledger(self.kv_manage.memory(place.space, place.groups, place.model_len))
