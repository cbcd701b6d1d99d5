"""What measures: the contract between the profiler's loop and a device, with the facts that `meta.yaml` tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from foundation.records import dataclass
from profiler.work import Work

Facts = Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Timing:
    """What one launch takes (ns, a fraction where many were timed together), and the names of its kernels, if asked."""

    ns: float
    kernels: tuple[str, ...] = ()


class Device(Protocol):
    """A device that operators are timed on."""

    def identity(self) -> Facts:
        """Return what must be the same when a profile is gone on with: device, driver, versions, numbers."""

    def clocks(self) -> Facts:
        """Return the clocks, power and temperature as they are now; nothing where none can be read."""

    def busy(self) -> str:
        """Return what others are doing on the device, in words; empty where it is idle."""

    def memory_bytes(self) -> int:
        """Return the bytes of memory that operators may use."""

    def warm_up(self) -> float:
        """Compute until times no longer change, so that clocks are those of long work; return the seconds it took."""

    def time(self, work: Work, *, names: bool) -> Timing:
        """Return the time of `work`; `names`: and of which kernels it consists.

        Raises `UserError` for what does not fit into memory.
        """
