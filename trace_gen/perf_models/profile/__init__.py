"""`--perf_model profile`: tables measured on a device, operator by operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UserError
from foundation.records import dataclass
from foundation.settings import choice, setting
from foundation.settings.reading import Problem
from trace_gen.perf_models import perf_models
from trace_gen.perf_models.profile.predictors import PredictorSettings, predictors

if TYPE_CHECKING:
    from trace_gen.perf_model import PerfModel, PerfModelOptions


@perf_models.register("profile")
@dataclass(frozen=True)
class ProfileSettings:
    """Tables that were measured on a device. See `trace_gen.perf_models.profile.formats`."""

    profile_dir: Path | None = setting(
        None,
        "what was measured on a device: a folder of LLMServingSim's profiler or Vidur's, or a CSV; or a kernel table",
        implies=True,
    )
    profile_predictor: PredictorSettings = choice(
        predictors, "lookup", "what tells the times between those that were measured", title="Model and hardware"
    )

    def problems(self) -> Iterator[Problem]:
        """A folder must be given."""
        if self.profile_dir is None:
            yield Problem("perf_model", "profile needs measured tables", "give their folder: --profile_dir DIR")

    def device(self) -> str | None:
        """Return what `--hardware` takes for the device that was measured; None where the files do not say."""
        from trace_gen.perf_models.profile.formats import format_of

        return format_of(self._path()).device(self._path())

    def model(self, options: PerfModelOptions) -> PerfModel:
        """Return the model of the tables; what is wrong with them, or does not fit, is a `UserError`."""
        from trace_gen.perf_models.profile.formats import format_of

        looked_up = format_of(self._path()).model(options, self._path())
        predictor = self.profile_predictor.predictor()
        if predictor is None:
            return looked_up
        from trace_gen.perf_models.profile.learning.learned import predicted

        return predicted(looked_up, predictor)

    def _path(self) -> Path:
        if self.profile_dir is None:
            raise UserError("profile needs measured tables", fix="give their folder", field="--profile_dir")
        return self.profile_dir
