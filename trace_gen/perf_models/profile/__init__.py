"""`--perf_model profile`: tables measured on a device, operator by operator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UserError
from foundation.settings import setting
from foundation.settings.reading import Problem
from trace_gen.perf_models import perf_models

if TYPE_CHECKING:
    from trace_gen.perf_model import PerfModelOptions
    from trace_gen.perf_models.profile.model import ProfileModel


@perf_models.register("profile")
@dataclass(frozen=True)
class ProfileSettings:
    """Tables that were measured on a device. See `trace_gen.perf_models.profile.bundle`."""

    profile_dir: Path | None = setting(
        None, "folder of measured tables, such as meta.yaml and tp1/attention.csv", implies=True
    )

    def problems(self) -> Iterator[Problem]:
        """A folder must be given."""
        if self.profile_dir is None:
            yield Problem("perf_model", "profile needs measured tables", "give their folder: --profile_dir DIR")

    def model(self, options: PerfModelOptions) -> ProfileModel:
        """Return the model of the tables; what is wrong with them, or does not fit, is a `UserError`."""
        from trace_gen.perf_models.profile.loading import load_profile

        if self.profile_dir is None:
            raise UserError("profile needs measured tables", fix="give their folder", field="--profile_dir")
        return load_profile(options, self.profile_dir)
