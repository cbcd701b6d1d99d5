"""What a policy is before it runs: its settings, and how a scheduler is built from them; the registry (`--scheduling`).

To add one: put a module into `orchestrator.schedulers.policies` that registers a record of its settings under a name.
The scheduler may stand in the same module; where it loads something heavy, beside it, and `scheduler` imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from foundation.registry import Registry

if TYPE_CHECKING:
    from orchestrator.kv_memory.groups import LayerGroup
    from orchestrator.kv_memory.store import KVSpace
    from orchestrator.schedulers.interface import Scheduler


@dataclass(frozen=True, slots=True)
class Place:
    """What a policy serves: the memory that is there, the model's layers and longest sequence (tokens), the stages.

    `groups` are the layers by what they keep of the KV cache; `model_len` is the model's own, whatever
    `space.max_model_len` says.
    """

    space: KVSpace
    groups: tuple[LayerGroup, ...]
    model_len: int
    pipeline: int = 1


class Policy(Protocol):
    """The settings of a policy."""

    default_block_size: ClassVar[int]
    """Tokens in a KV block where the user says nothing."""

    @property
    def ends_at_longest(self) -> bool:
        """Whether a sequence ends at the longest that the model takes."""

    def scheduler(self, place: Place) -> Scheduler:
        """Return a new scheduler; settings that do not suit the place are a `foundation.errors.UserError`."""


policies: Registry[type[Policy]] = Registry("scheduling policy", package="orchestrator.schedulers.policies")
