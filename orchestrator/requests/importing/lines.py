"""JSON Lines: a record a line. Memory goes with what is kept of the records that are taken."""

from __future__ import annotations

from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from foundation.bounds import DATA_BYTES
from foundation.documents import parse_json
from foundation.errors import UserError
from foundation.files import decode, open_input, reason
from orchestrator.requests.importing.beginning import WHAT
from orchestrator.requests.importing.record import Record
from orchestrator.requests.importing.rows import Rows

_MARK = b"\xef\xbb\xbf"


def one(line: bytes) -> int:
    """Return how many requests a line has where each has one."""
    return 1


def read_lines(path: Path, rows: Rows, take: Callable[[Record], None], requests: Callable[[bytes], int] = one) -> None:
    """Let `take` put every line's record into `rows`.

    When there are enough, lines are not looked at any more, and counted as having so many `requests`.
    """
    with open_input(path, WHAT) as stream:
        try:
            _read(path, stream, rows, take, requests)
        except OSError as error:
            raise UserError(f"the {WHAT} cannot be read: {reason(error)}", path=path) from error


def _read(
    path: Path,
    stream: BufferedReader,
    rows: Rows,
    take: Callable[[Record], None],
    requests: Callable[[bytes], int],
) -> None:
    number = 0
    while line := stream.readline(DATA_BYTES + 1):
        number += 1
        if len(line) > DATA_BYTES:
            what = f"the line is longer than {DATA_BYTES} bytes"
            raise UserError(what, path=path, line=number, fix="is this a workload file?")
        text = line.removeprefix(_MARK) if number == 1 else line
        if not text.strip():
            continue
        if rows.full:
            rows.pass_over(requests(text))
            continue
        with rows.record():
            take(_parsed(text, path, number))


def _parsed(text: bytes, path: Path, number: int) -> Record:
    """Return the object of a line."""
    try:
        value = parse_json(decode(text.strip(), path, WHAT), "line").value
    except UserError as error:
        raise UserError(error.what, path=path, line=number, fix=error.fix) from None
    return Record.of(value, path, lambda place: number)
