"""The ways to give requests KV memory (`--kv_manage`): what each is called, and how it is built."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from foundation.records import dataclass
from foundation.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.kv_memory.groups import LayerGroup
    from orchestrator.kv_memory.paged import PagedKV
    from orchestrator.kv_memory.store import KVSpace


class KVManager(Protocol):
    """The settings of a KV memory manager."""

    reserves_longest: ClassVar[bool]
    """Whether it asks for the longest sequence there can be."""

    evicts: ClassVar[bool]
    """Whether requests grow, so that some may have to go."""

    def memory(self, space: KVSpace, groups: Sequence[LayerGroup], model_len: int) -> PagedKV:
        """Return the memory for `groups` of layers; `model_len`: the model's longest sequence, tokens."""


kv_managers: Registry[type[KVManager]] = Registry("KV memory manager")


@kv_managers.register("vllm")
@dataclass(frozen=True)
class OnDemand:
    """In blocks, as a request's tokens grow."""

    reserves_longest: ClassVar[bool] = False
    evicts: ClassVar[bool] = True

    def memory(self, space: KVSpace, groups: Sequence[LayerGroup], model_len: int) -> PagedKV:
        """Return demand paging."""
        from orchestrator.kv_memory.paged import PagedKV

        return PagedKV(space, groups)


@kv_managers.register("max")
@dataclass(frozen=True)
class LongestReserved:
    """Room for the longest sequence from admission on."""

    reserves_longest: ClassVar[bool] = True
    evicts: ClassVar[bool] = False

    def memory(self, space: KVSpace, groups: Sequence[LayerGroup], model_len: int) -> PagedKV:
        """Return reservations of `space.max_model_len`, else of `model_len`."""
        from orchestrator.kv_memory.reserved import MaxKV

        return MaxKV(space if space.max_model_len else replace(space, max_model_len=model_len), groups)


@kv_managers.register("pow2")
@dataclass(frozen=True)
class PowerOfTwoReserved:
    """Room for the prompt and the output rounded up to a power of two."""

    reserves_longest: ClassVar[bool] = False
    evicts: ClassVar[bool] = False

    def memory(self, space: KVSpace, groups: Sequence[LayerGroup], model_len: int) -> PagedKV:
        """Return reservations by a power of two."""
        from orchestrator.kv_memory.reserved import Pow2KV

        return Pow2KV(space, groups)


@kv_managers.register("oracle")
@dataclass(frozen=True)
class LengthReserved:
    """Room for the length that is expected, by default the true one, as if it were known."""

    reserves_longest: ClassVar[bool] = False
    evicts: ClassVar[bool] = False

    def memory(self, space: KVSpace, groups: Sequence[LayerGroup], model_len: int) -> PagedKV:
        """Return reservations of the true length."""
        from orchestrator.kv_memory.reserved import OracleKV

        return OracleKV(space, groups)
