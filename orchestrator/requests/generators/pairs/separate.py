"""`--lengths separate`: prompts and answers are drawn apart, each from a distribution.

Unless another is given they are log-normal, with means that are published in tokens: Kwon et al., "Efficient Memory
Management for Large Language Model Serving with PagedAttention", SOSP 2023, figure 11: ShareGPT 161.31 in, 337.99 out,
Alpaca 19.31 in and 58.45 out. That figure shows long right tails, which a log-normal distribution has; its spread is
not published, so the coefficients of variation below are our choice, as are the limits to which draws are clipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import choice, setting
from foundation.settings.reading import Problem
from orchestrator.requests.generators.lengths import LengthDistribution, Published, Role
from orchestrator.requests.generators.lengths.lognormal import Lognormal
from orchestrator.requests.generators.lengths.random import Random
from orchestrator.requests.generators.pairs import TITLE, PairPlace, length_pairs
from orchestrator.requests.generators.roles import InRole, in_role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.requests.generators.pairs import Sampler

PROFILES: dict[str, tuple[Published, Published]] = {
    "sharegpt-like": (Published(161.31, 1.2, 4, 1024), Published(337.99, 0.9, 4, 1024)),
    "alpaca-like": (Published(19.31, 0.7, 4, 512), Published(58.45, 1.0, 2, 512)),
}
DEFAULT_PROFILE = "sharegpt-like"
_DEFAULT = "lognormal; random where the other is"


@length_pairs.register("separate")
@dataclass(frozen=True)
class Separate:
    """Prompts and answers drawn apart, each from its distribution."""

    profile: str | None = setting(
        None, "published means of log-normal lengths", choices=tuple(PROFILES), shown_default=DEFAULT_PROFILE
    )
    input_lengths: InRole | None = choice(
        in_role("input"), None, "distribution of the tokens of prompts", title=TITLE, shown_default=_DEFAULT
    )
    output_lengths: InRole | None = choice(
        in_role("output"), None, "distribution of the tokens of answers", title=TITLE, shown_default=_DEFAULT
    )

    def problems(self) -> Iterator[Problem]:
        """A profile has something to say."""
        if self.profile is not None and not any(isinstance(one, Lognormal) for one in self.distributions()):
            yield Problem("profile", "no lengths are log-normal", "leave it out")

    def distributions(self) -> tuple[LengthDistribution, LengthDistribution]:
        """Return the distributions of prompts and of answers."""
        given = [None if one is None else one.plain() for one in (self.input_lengths, self.output_lengths)]
        other: type[Lognormal | Random] = Random if any(isinstance(one, Random) for one in given) else Lognormal
        prompts, outputs = (other() if one is None else one for one in given)
        return prompts, outputs

    def sampler(self, place: PairPlace) -> Sampler:
        """See `LengthPairs`."""
        published = PROFILES[self.profile or DEFAULT_PROFILE]
        roles = (Role("input", 1024, published[0]), Role("output", 128, published[1]))
        distributions = self.distributions()
        streams = [place.stream(purpose) for purpose in ("prompt", "output")]

        def draw(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            prompts, outputs = (
                one.tokens(stream.uniforms(count), role)
                for one, stream, role in zip(distributions, streams, roles, strict=True)
            )
            return prompts, outputs

        return draw
