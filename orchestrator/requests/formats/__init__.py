"""Files of requests: our own TSV, and those of other tools, recognised by their first line; one module a format.

To add a format, write a module here that registers one; every module of this package is imported when a file is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import UserError
from foundation.files import open_input, reason
from foundation.registry import Registry
from orchestrator.workload import ReadWorkload, read_workload

WHAT = "workload file"
_LONGEST_HEADER = 4096
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RequestFormat:
    """How one tool writes requests: its first line (without a byte-order mark), and who reads the file.

    `read` takes the file and how many requests to take at most (None: all); see `orchestrator.workload.read_workload`,
    which reads what no format recognises.
    """

    recognises: Callable[[bytes], bool]
    read: Callable[[Path, int | None], ReadWorkload]


request_formats: Registry[RequestFormat] = Registry("workload format", package="orchestrator.requests.formats")


def read_requests(path: str | Path, limit: int | None = None) -> ReadWorkload:
    """Read the first `limit` requests (None: all) of a file in any format. Raises `UserError`."""
    first = _first_line(path)
    for one in map(request_formats.get, request_formats):
        if one.recognises(first):
            return one.read(Path(path), limit)
    return read_workload(path, limit)


def _first_line(path: str | Path) -> bytes:
    with open_input(path, WHAT) as stream:
        try:
            line = stream.readline(_LONGEST_HEADER)
        except OSError as error:
            raise UserError(f"the {WHAT} cannot be read: {reason(error)}", path=path) from error
    return line.removeprefix(_MARK)
