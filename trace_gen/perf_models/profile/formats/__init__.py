"""How tools keep what they measured: one module a format, recognised by content.

To add a format, write a module here that registers one; every module of this package is imported when a profile is
read. What it reads becomes `trace_gen.perf_models.profile.tables.Measured`, and `profile.building.profile_model` makes
the model of that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UserError
from foundation.printable import brief
from foundation.records import dataclass
from foundation.registry import Registry

if TYPE_CHECKING:
    from trace_gen.perf_model import PerfModel, PerfModelOptions


@dataclass(frozen=True, slots=True)
class ProfileFormat:
    """What one tool writes.

    - `sign`: what it is recognised by, in words; `recognises`: whether a file or folder is of it;
    - `device`: what `--hardware` takes for the device that was measured; None where the files do not say;
    - `model`: the performance model; raises `UserError` for what is wrong in the files, or does not fit.
    """

    sign: str
    recognises: Callable[[Path], bool]
    device: Callable[[Path], str | None]
    model: Callable[[PerfModelOptions, Path], PerfModel]


profile_formats: Registry[ProfileFormat] = Registry("profile format", package="trace_gen.perf_models.profile.formats")


def format_of(path: Path) -> ProfileFormat:
    """Return the format of what is at `path`; a `UserError` where there is nothing, or nothing known."""
    if not path.exists():
        raise UserError(f"there is no folder {brief(str(path))}", field="--profile_dir", fix="give one with a profile")
    known = [profile_formats.get(name) for name in profile_formats]
    for one in known:
        if one.recognises(path):
            return one
    signs = ", or ".join(one.sign for one in known)
    raise UserError(f"{brief(str(path))} holds no profile", field="--profile_dir", fix=f"expected {signs}")
