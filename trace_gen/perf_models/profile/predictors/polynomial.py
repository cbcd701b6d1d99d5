"""`--profile_predictor polynomial`: a polynomial through the measured rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from foundation.records import dataclass
from foundation.settings import setting
from trace_gen.perf_models.profile.predictors import predictors

if TYPE_CHECKING:
    from trace_gen.perf_models.profile.learning.interface import Predictor


@predictors.register("polynomial")
@dataclass(frozen=True)
class PolynomialSettings:
    """Least squares of relative errors. See `trace_gen.perf_models.profile.learning.polynomial`."""

    polynomial_degree: int = setting(
        5, "highest degree that is tried; the one with the least cross-validated error is taken", least=1, most=8
    )

    def predictor(self) -> Predictor:
        """Return the polynomial."""
        from trace_gen.perf_models.profile.learning.polynomial import Polynomial

        return Polynomial(self.polynomial_degree)
