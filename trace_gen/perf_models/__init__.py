"""The performance models (`--perf_model`): what each is called, its settings, and how it is built; and their registry.

To add one: put a module into this package that registers a record of its settings under a name, with a method that
builds the model. The model may stand in the same module; where it loads something heavy, beside it, and `model` imports
it. `trace_gen.perf_model` has the contract of the model itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from foundation.registry import Registry

if TYPE_CHECKING:
    from trace_gen.perf_model import PerfModel, PerfModelOptions


class PerfModelSettings(Protocol):
    """The settings of a performance model: a frozen record, for engines with equal ones share the model."""

    def __hash__(self) -> int:
        """Return the same for equal settings."""

    def model(self, options: PerfModelOptions) -> PerfModel:
        """Return the model; raises `foundation.errors.UserError` when a file is missing or wrong."""


@runtime_checkable
class NamesDevice(Protocol):
    """Settings of a performance model that was measured on a device."""

    def device(self) -> str | None:
        """Return what `--hardware` takes for that device; None where it is not known. Raises `UserError`."""


perf_models: Registry[type[PerfModelSettings]] = Registry("performance model", package="trace_gen.perf_models")
