"""Device files of other tools, recognised by their content: one module a format, beside the files of our own.

To add a format, write a module here that registers one; every module of this package is imported when a device file is
read that is not of our own fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from foundation.fields import Fields
from foundation.records import dataclass
from foundation.registry import Registry

if TYPE_CHECKING:
    from trace_gen.hardware import Hardware


@dataclass(frozen=True, slots=True)
class HardwareFormat:
    """How one tool describes a device: whether a file's top-level object is of it, and what the file says.

    `read` takes the file's `Fields` and the device's name where the file gives none; it notes problems in the `Fields`,
    whose owner raises them together.
    """

    recognises: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Fields, str], Hardware]


hardware_formats: Registry[HardwareFormat] = Registry("hardware format", package="trace_gen.hardware_formats")
