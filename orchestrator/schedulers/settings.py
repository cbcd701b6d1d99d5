"""What a policy is before it runs: its settings, and how a scheduler is built from them; the registry (`--scheduling`).

To add one: put a module into `orchestrator.schedulers.policies` that registers a record of its settings, a `Policy`,
under a name. The scheduler may stand in the same module; where it loads something heavy, beside it, and `scheduler`
imports it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from foundation.records import dataclass
from foundation.registry import Registry

if TYPE_CHECKING:
    from orchestrator.kv_memory.groups import LayerGroup
    from orchestrator.kv_memory.store import KVSpace
    from orchestrator.schedulers.interface import Scheduler
    from orchestrator.schedulers.speculation import Speculation
    from orchestrator.schedulers.vllm.connector import KVConnector
    from trace_gen.architecture import ModelArchitecture


@dataclass(frozen=True, slots=True)
class Machine:
    """An NPU and the model on it, as far as a policy decides by them.

    `device` is the product's name, `memory_bytes` the NPU's memory, `tensor` the NPUs that share a stage, `stages` the
    pipeline stages, `max_model_len` (tokens) the longest sequence that is served.
    """

    device: str
    memory_bytes: int
    tensor: int
    model: ModelArchitecture
    max_model_len: int
    stages: int = 1


@dataclass(frozen=True, slots=True)
class MemoryShare:
    """The bytes of an NPU's memory for weights and KV cache, and what part of it they are (empty: all).

    `field` is the flag that decides the part, `fix` what else than more of it would help.
    """

    bytes: int
    part: str = ""
    field: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class AdapterSlots:
    """Room for LoRA adapters: `count` of them at once, each of at most `rank`."""

    count: int
    rank: int


@dataclass(frozen=True, slots=True)
class ServerHost:
    """What the host of a policy's server does for a step, times in microseconds.

    `step_us` for any step, `request_us` more for each request in it, `launch_us` for every operator of a step that is
    no captured graph, `eager_us` where nothing was compiled either; `hidden`: steps of decodes are prepared while the
    device runs the step before. `largest_graph`: the tokens of the largest step that is captured as a graph, 0 where
    none is.
    """

    step_us: float
    request_us: float
    launch_us: float
    eager_us: float
    hidden: bool
    largest_graph: int


@dataclass(frozen=True, slots=True)
class Place:
    """What a policy serves: the memory that is there, the model's layers and longest sequence (tokens), the stages.

    `groups` are the layers by what they keep of the KV cache; `model_len` is the model's own, whatever
    `space.max_model_len` says. `connector`: where KV cache may be had from, and is kept for, that the engine does not
    use alone; only policies without a reason against it (`Policy.unconnected`) are given one.
    """

    space: KVSpace
    groups: tuple[LayerGroup, ...]
    model_len: int
    pipeline: int = 1
    connector: KVConnector | None = None


class Policy(ABC):
    """The settings of a policy: a frozen dataclass that derives from this."""

    default_block_size: ClassVar[int]
    """Tokens in a KV block where the user says nothing."""

    sees_driver_memory: ClassVar[bool] = False
    """Whether an NPU's memory is what its driver shows to programs; else it is what the datasheet says."""

    lock_step: ClassVar[bool] = False
    """Whether it decides by `EngineLoop.QUEUE`, one pass at a time, so that engines can advance in lock step."""

    needs_longest: ClassVar[bool] = True
    """Whether a server only starts if its KV cache holds one sequence of the longest."""

    num_gpu_blocks_override: int | None = None
    """KV blocks whatever memory there is, one of which stays empty; None: as many as fit."""

    max_total_tokens: int | None = None
    """Tokens that the KV cache holds at most; None: as many as fit."""

    @property
    def block_size(self) -> int:
        """Tokens in a KV block that these settings ask for."""
        return self.default_block_size

    @property
    def reuses_prefixes(self) -> bool:
        """Whether KV blocks of equal prompts are shared."""
        return False

    @property
    def speculation(self) -> Speculation | None:
        """How answers are guessed ahead; None: they are not."""
        return None

    @property
    def adapter_slots(self) -> AdapterSlots | None:
        """The room for LoRA adapters; None: requests are served with none."""
        return None

    @property
    def host(self) -> ServerHost | None:
        """What the host does for a step, once the settings are decided; None: it takes no time."""
        return None

    @property
    def unconnected(self) -> str | None:
        """Why its engines take over no KV cache from elsewhere, one clause; None: they do."""
        return "its engines take over no KV cache from elsewhere"

    @property
    def swaps(self) -> bool:
        """Whether it evicts the KV cache of whole requests from the device, and loads it again."""
        return False

    @property
    @abstractmethod
    def ends_at_longest(self) -> bool:
        """Whether a sequence ends at the longest that the model takes."""

    @abstractmethod
    def scheduler(self, place: Place) -> Scheduler:
        """Return a new scheduler; settings that do not suit the place are a `foundation.errors.UserError`."""

    def decided(self, machine: Machine) -> Self:
        """Return the same settings with what device and model decide; deciding again changes nothing."""
        return self

    def memory_share(self, machine: Machine) -> MemoryShare:
        """Return how much of an NPU's memory weights and KV cache may take."""
        return MemoryShare(machine.memory_bytes)

    def step_limits(self) -> Mapping[str, int]:
        """Return what a step holds at most, by what is counted; what has no limit is left out."""
        return {}


policies: Registry[type[Policy]] = Registry("scheduling policy", package="orchestrator.schedulers.policies")
"""The policies, a file each: what it is called, its settings, how its scheduler is built. All load lightly."""
