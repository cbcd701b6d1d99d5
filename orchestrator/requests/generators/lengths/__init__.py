"""Distributions of numbers of tokens; one module each. To add one, write a module here that registers it.

A distribution is declared once, with short names, and then serves in several roles (`roles`): ``mean`` of the prompts
is the setting ``input_mean``, that of the answers ``output_mean``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from foundation.records import dataclass
from foundation.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_TOKENS = 10**6
"""In a draw; a million tokens are more than any model takes."""


@dataclass(frozen=True, slots=True)
class Published:
    """A log-normal distribution of tokens: its mean, its coefficient of variation, and the limits of a draw."""

    mean: float
    variation: float
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Role:
    """What a distribution is asked for: what it is of, vLLM's default for that, and a published one."""

    name: str
    benchmark: int
    published: Published


class LengthDistribution(Protocol):
    """Settings of a distribution of whole numbers."""

    def tokens(self, uniforms: NDArray[np.float64], role: Role) -> NDArray[np.int64]:
        """Return the numbers at quantiles between 0 and 1, both excluded; each of its own quantile alone."""


distributions: Registry[type[Any]] = Registry("length distribution", package="orchestrator.requests.generators.lengths")
