"""Files of recordings, recognised by how they begin; one module a format.

To add a format, write a module here that registers one; every module of this package is imported when a file is read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from foundation.errors import UserError
from foundation.files import open_input, reason
from foundation.records import dataclass
from foundation.registry import Registry
from orchestrator.validation.recording import Recording

WHAT = "recording"
_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class RecordingFormat:
    """How one tool writes what it measured: whether a file's first 4096 bytes are of it, and who reads the file.

    `meaning` names it in an error. `read` raises `UserError`.
    """

    meaning: str
    recognises: Callable[[bytes], bool]
    read: Callable[[Path], Recording]


recording_formats: Registry[RecordingFormat] = Registry("recording format", package="orchestrator.validation.formats")


def read_recording(path: Path) -> Recording:
    """Read a file in any format; `UserError` where none knows it."""
    head = _head(path)
    formats = [recording_formats.get(name) for name in recording_formats]
    for one in formats:
        if one.recognises(head):
            return one.read(path)
    known = "; ".join(one.meaning for one in formats)
    raise UserError(f"the {WHAT} is in no format that is known", path=path, fix=f"give one of: {known}")


def _head(path: Path) -> bytes:
    with open_input(path, WHAT) as stream:
        try:
            return stream.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
        except OSError as error:
            raise UserError(f"the {WHAT} cannot be read: {reason(error)}", path=path) from error
