"""The contract of KV memory, for all policies: room for a request's tokens, or word that there is none.

A policy asks in tokens and never sees blocks. Running out is a return value, never an error. For requests that decode
together step after step (`KVCohort`) the store says beforehand what each step takes: so many can be counted at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from foundation.records import dataclass

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.kv_memory.groups import LayerGroup
    from orchestrator.kv_memory.holder import Holder
    from orchestrator.requests.request import Request
    from trace_gen.batch_shape import KVTransfer

    IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class KVSpace:
    """The device's room for KV blocks: how many, tokens a block, and bytes a block summed over all ranks.

    `max_model_len` (tokens; None: not limited) is the longest sequence that is accepted.
    """

    total_blocks: int
    block_size: int
    block_bytes: int
    max_model_len: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """Blocks found for a request's first `tokens` tokens, a table for each group of layers (0: outside its window)."""

    tables: tuple[list[int], ...]
    tokens: int


NO_HIT = Hit((), 0)


@dataclass(frozen=True, slots=True)
class Later:
    """What decisions that were foreseen, and are not booked yet, do to what can be found.

    They take `taken` blocks off the free list, whose contents are lost, and make `coming` contents findable.
    """

    taken: int
    coming: Collection[object]


NOW = Later(0, ())


class KVCohort(Protocol):
    """The blocks of requests that each compute one token a step, counted apart from the requests' own state."""

    def flow(self, most: int) -> tuple[IntArray, IntArray]:
        """Return how many blocks each of the next `most` steps takes, and how many it gives back, ``[most]`` each."""

    def step(self, arrived: int) -> bool:
        """Take what the next step needs, or return False and change nothing.

        `arrived`: tokens of each request that have arrived since the cohort was formed.
        """

    def settle(self) -> None:
        """Write the steps into the requests' own state; their `computed` still says where the cohort began."""

    def coming(self, arrived: int) -> Collection[object]:
        """Return the contents that others may look for and that a step at which `arrived` tokens are there adds."""


class KVStore(Protocol):
    """KV blocks of `block_size` tokens of which requests can hold `total`, on the device and on other tiers."""

    block_size: int
    total: int
    caches_prefixes: bool
    groups: tuple[LayerGroup, ...]
    """The groups of layers, each with a block table of its own for every request."""
    windowed: tuple[LayerGroup, ...]
    """The groups of layers that keep a sliding window only."""

    @property
    def free(self) -> int:
        """Blocks that can be taken now, those with findable contents included."""

    def lookup(self, holder: Holder, tokens: int) -> Hit:
        """Return the longest run of blocks that hold the first of the request's `tokens` tokens, the last excepted."""

    def cached_tokens(self, holder: Holder, tokens: int, later: Later) -> int:
        """Return how many tokens `lookup` would find after what is `later`; nothing is changed by asking."""

    def fits(self, holder: Holder, hit: Hit, tokens: int) -> bool:
        """Whether a request that holds nothing would find room for `tokens` tokens now. Nothing is reserved."""

    def admit(self, holder: Holder, hit: Hit, tokens: int) -> bool:
        """Give a request that holds nothing the blocks of `hit` and new ones up to `tokens`, or return False."""

    def need(self, holder: Holder, tokens: int) -> int:
        """Return how many free blocks it takes to have `tokens` tokens of the request on the device."""

    def grow(self, holder: Holder, tokens: int) -> bool:
        """Give the request room for `tokens` tokens, or return False."""

    def register(self, holder: Holder, tokens: int) -> None:
        """Make every full block within the first `tokens` tokens findable by requests with the same prefix."""

    def release(self, holder: Holder, *, resumes: bool = False) -> None:
        """Take all blocks from the request. `resumes`: it will come back and may find them again."""

    def held(self, holder: Holder) -> int:
        """Return the blocks that the request holds on the device."""

    def swap_out(self, holder: Holder) -> KVTransfer:
        """Move all blocks of the request to host memory."""

    def swap_in(self, holder: Holder) -> KVTransfer:
        """Move the request's blocks back to the device; there is room for them."""

    def peak_blocks(self, request: Request, tokens: int) -> int:
        """Return the most blocks that `request` holds on its way to `tokens` tokens, its prompt computed whole."""

    def unfit(self, request: Request, tokens: int) -> str | None:
        """Return why `request`, which grows to `tokens` tokens, can never run (one clause, both sizes), or None."""

    def cohort(self, holders: Sequence[Holder]) -> KVCohort | None:
        """Return the blocks of requests that decode together from now on; None where their steps are not alike."""
