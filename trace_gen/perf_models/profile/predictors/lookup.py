"""`--profile_predictor lookup`: the tables as they are, straight lines between their rows."""

from __future__ import annotations

from foundation.records import dataclass
from trace_gen.perf_models.profile.predictors import predictors


@predictors.register("lookup")
@dataclass(frozen=True)
class LookupSettings:
    """Straight lines between the rows."""

    def predictor(self) -> None:
        """Return None."""
