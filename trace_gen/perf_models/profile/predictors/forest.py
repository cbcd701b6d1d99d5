"""`--profile_predictor forest`: a random forest over the measured rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from trace_gen.perf_models.profile.predictors import predictors

if TYPE_CHECKING:
    from trace_gen.perf_models.profile.learning.interface import Predictor


@predictors.register("forest")
@dataclass(frozen=True)
class ForestSettings:
    """The mean of trees that cut sizes into boxes of one time. See `trace_gen.perf_models.profile.learning.forest`."""

    forest_trees: int = setting(24, "trees of the forest, whose mean is the time", least=1, most=1000)

    def predictor(self) -> Predictor:
        """Return the forest."""
        from trace_gen.perf_models.profile.learning.forest import Forest

        return Forest(self.forest_trees)
