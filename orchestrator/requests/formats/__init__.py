"""Files of requests: our own TSV, and those of other tools, recognised by their content; one module a format.

To add a format, write a module here that registers one; every module of this package is imported when a file is read,
and when help lists the names. So what is heavy is imported in the functions that use it.
`orchestrator.requests.importing` has what readers share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UserError
from foundation.records import dataclass
from foundation.registry import Registry
from orchestrator.requests.importing.beginning import WHAT, Beginning, beginning_of

if TYPE_CHECKING:
    from orchestrator.requests.importing.reading import Reading
    from orchestrator.workload import ReadWorkload

FLAG = "--dataset_format"
OWN = "tsv"
_FROM_FILE = "token counts from the file"


@dataclass(frozen=True, slots=True)
class RequestFormat:
    """How one tool writes requests: what files of it begin with, and who reads them.

    `recognises` None: a file is never taken for one, only named as one. `read` takes the file and how it is read.
    """

    recognises: Callable[[Beginning], bool] | None
    read: Callable[[Path, Reading], ReadWorkload]


request_formats: Registry[RequestFormat] = Registry("workload format", package="orchestrator.requests.formats")


def read_requests(
    path: str | Path, limit: int | None = None, *, named: str | None = None, reading: Reading | None = None
) -> ReadWorkload:
    """Read the first `limit` requests (None: all) of a file in any format, or in the one that is `named`.

    `reading` has what becomes of malformed records, and how texts count as tokens. Raises `UserError`.
    """
    from orchestrator.requests.importing.reading import Reading

    reading = replace(reading or Reading(), limit=limit)
    beginning = beginning_of(path)
    name = named or recognised(path, beginning)
    try:
        read = request_formats.get(name, field=FLAG).read(Path(path), reading)
    except UserError as error:
        first = reading.bad.first
        if first is None or error.line is not None:
            raise
        raise UserError(f"{error.what}: {reading.bad.count} are malformed; the first: {first}", path=path) from None
    counted = reading.texts.described if reading.texts.used else _FROM_FILE
    described = "" if name == OWN else f"{name}; {counted}"
    return replace(read, notes=(*read.notes, *reading.bad.notes()), described=described)


def recognised(path: str | Path, beginning: Beginning) -> str:
    """Return the name of the one format that a file's beginning is of; what is no JSON and unknown is our own TSV."""
    found = []
    for name in request_formats:
        recognises = request_formats.get(name).recognises
        if recognises is not None and recognises(beginning):
            found.append(name)
    if len(found) > 1:
        what = f"the {WHAT} may be {' or '.join(found)}"
        raise UserError(what, path=path, fix=f"say which with {FLAG}")
    if found or not beginning.is_json:
        return found[0] if found else OWN
    what = f"the {WHAT} is JSON in no format that is known"
    raise UserError(what, path=path, fix=f"known: {', '.join(request_formats)}; name it with {FLAG}")
