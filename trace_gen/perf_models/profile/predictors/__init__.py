"""The predictors (`--profile_predictor`): what tells the times between those that were measured; and their registry.

To add one: put a module into this package that registers a record of its settings under a name, with a method that
returns the predictor (`trace_gen.perf_models.profile.learning.interface`), and imports what is heavy there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from foundation.registry import Registry

if TYPE_CHECKING:
    from trace_gen.perf_models.profile.learning.interface import Predictor


class PredictorSettings(Protocol):
    """The settings of a predictor: a frozen record, for engines with equal ones share the performance model."""

    def __hash__(self) -> int:
        """Return the same for equal settings."""

    def predictor(self) -> Predictor | None:
        """Return the predictor; None where tables are looked up as they are."""


predictors: Registry[type[PredictorSettings]] = Registry(
    "predictor", package="trace_gen.perf_models.profile.predictors"
)
