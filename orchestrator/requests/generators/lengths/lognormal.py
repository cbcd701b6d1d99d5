"""`lognormal`: a long right tail, as the lengths of recorded traffic have; draws beyond the limits are the limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from foundation.settings.reading import Problem
from orchestrator.requests.generators.lengths import MOST_TOKENS, Published, Role, distributions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PROFILES = "that of --profile"
_NO_LIMIT = f"that of --profile, or {MOST_TOKENS} where a mean is given"


@distributions.register("lognormal")
@dataclass(frozen=True)
class Lognormal:
    """Log-normal: a long right tail, cut at the limits."""

    mean: float | None = setting(
        None,
        "mean length of {them}, before limits",
        unit="tokens",
        above=0,
        most=MOST_TOKENS,
        implies=True,
        shown_default=_PROFILES,
    )
    cv: float | None = setting(
        None,
        "coefficient of variation of the lengths of {them}",
        least=0,
        most=100,
        implies=True,
        shown_default=_PROFILES,
    )
    least: int | None = setting(
        None,
        "least length of {them}",
        unit="tokens",
        least=1,
        most=MOST_TOKENS,
        shown_default="that of --profile, or 1 where a mean is given",
    )
    most: int | None = setting(
        None, "greatest length of {them}", unit="tokens", least=1, most=MOST_TOKENS, shown_default=_NO_LIMIT
    )

    def problems(self) -> Iterator[Problem]:
        """The limits are in order."""
        if self.least is not None and self.most is not None and self.least > self.most:
            yield Problem("least", f"{self.least} is above the greatest length {self.most}", "exchange them")

    def decided(self, role: Role) -> Published:
        """Return the distribution; a mean of its own has no other's limits."""
        shown = role.published
        if self.mean is not None:
            shown = Published(self.mean, shown.variation, 1, MOST_TOKENS)
        return Published(
            shown.mean,
            shown.variation if self.cv is None else self.cv,
            shown.least if self.least is None else self.least,
            shown.most if self.most is None else self.most,
        )

    def tokens(self, uniforms: NDArray[np.float64], role: Role) -> NDArray[np.int64]:
        """See `LengthDistribution`."""
        import numpy as np

        from orchestrator.requests.generators.elementary import exp, log, normal_quantile, one

        shown = self.decided(role)
        spread = one(log, 1.0 + shown.variation * shown.variation)
        middle = one(log, shown.mean) - spread / 2.0
        # Everything above e^60 is above every limit, and exp() need not hold it.
        drawn = np.rint(exp(np.minimum(middle + spread**0.5 * normal_quantile(uniforms), 60.0)))
        return np.clip(drawn, shown.least, shown.most).astype(np.int64)
