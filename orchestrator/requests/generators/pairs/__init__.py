"""How the lengths of a prompt and of its answer go together; one module each, which registers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from foundation.records import dataclass
from foundation.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.requests.generators.streams import Stream

    Sampler = Callable[[int], tuple[NDArray[np.int64], NDArray[np.int64]]]
    """Returns the prompt and output tokens of so many further requests."""

TITLE = "Workload"


@dataclass(frozen=True, slots=True)
class PairPlace:
    """What a sampler draws from: streams by their purpose."""

    stream: Callable[[str], Stream]


class LengthPairs(Protocol):
    """Settings of the lengths of requests."""

    def sampler(self, place: PairPlace) -> Sampler:
        """Return a new sampler."""


length_pairs: Registry[type[Any]] = Registry("kind of lengths", package="orchestrator.requests.generators.pairs")
