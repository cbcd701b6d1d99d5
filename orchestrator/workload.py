"""Reads workload files: one request a row, `input_toks  output_toks  arrival_time_ns`, separated by tabs (or blanks).

Every row may have a fourth number, `lora_adapter`: that of the adapter which serves the request, 0 for none.
The header row is optional, and rows need not be in order of arrival. A file is read once, in blocks, into columns: a
block of plain rows at once, any other line by line, so that what is wrong is told with its line.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from foundation.digits import whole_number
from foundation.errors import UserError
from foundation.files import open_input, reason
from foundation.printable import printable
from foundation.records import dataclass
from orchestrator.request_table import RequestTable
from orchestrator.requests.importing.reading import BadRecords
from orchestrator.settings.run import MOST_ADAPTERS

IntArray = NDArray[np.int64]
COLUMNS = ("input_toks", "output_toks", "arrival_time_ns")
ADAPTER_COLUMN = "lora_adapter"
LATEST_ARRIVAL_NS = 2**62
"""Some 146 years; what follows it must still fit into 64 bits."""
MOST_TOKENS = 10**9
_BOUNDS = ((1, MOST_TOKENS), (1, MOST_TOKENS), (0, LATEST_ARRIVAL_NS), (0, MOST_ADAPTERS))
_EXPECTED = f"expected three whole numbers separated by tabs: {' '.join(COLUMNS)}"
_EXPECTED_FOUR = f"expected four whole numbers separated by tabs: {' '.join(COLUMNS)} {ADAPTER_COLUMN}"
_BLOCK = 1 << 20
_LONGEST_LINE = 1 << 16
_SHOWN = 60
_PLAIN = {
    width: re.compile(rb"(?:[0-9]{1,18}(?:[\t ]+[0-9]{1,18}){%d}\r?\n)++" % (width - 1))
    for width in (len(COLUMNS), len(COLUMNS) + 1)
}
"""Rows whose numbers surely fit into 64 bits."""


@dataclass(frozen=True, slots=True)
class ReadWorkload:
    """What a file holds: the requests taken, and how many rows there are.

    `timed` False: it has no arrival times, and all requests are put at 0. `notes` are what a user should know of it;
    `described` says in a few words which format it has, and where its token counts are from.
    """

    requests: RequestTable
    rows: int
    timed: bool = True
    notes: tuple[str, ...] = ()
    described: str = ""


def read_workload(path: str | Path, limit: int | None = None, bad: BadRecords | None = None) -> ReadWorkload:
    """Read the first `limit` requests (None: all) of a TSV file, in the file's order, ids from 0.

    A missing file, an empty one, one that changes meanwhile, or a malformed row (not three whole numbers, or four where
    the first row has four; tokens below 1 or above `MOST_TOKENS`, an arrival below 0 or above `LATEST_ARRIVAL_NS`) is a
    `UserError`, with the row's line; a malformed row is not, where `bad` takes it.
    Rows after the first `limit` are counted but not looked at. A byte-order mark is skipped.
    """
    reader = _Reader(Path(path), limit, bad or BadRecords())
    with open_input(path, "workload file") as stream:
        try:
            before = os.fstat(stream.fileno())
            reader.read(stream, before.st_size)
            after = os.fstat(stream.fileno())
        except OSError as error:
            raise UserError(f"the workload file cannot be read: {reason(error)}", path=path, fix=_EXPECTED) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError("the workload file changed while it was read", path=path, fix="give it when it is whole")
    return reader.result()


class _Reader:
    """Collects the rows of one file."""

    def __init__(self, path: Path, limit: int | None, bad: BadRecords) -> None:
        self._path = path
        self._limit = limit
        self._bad = bad
        self._rows: list[IntArray] = []
        self._lines: list[IntArray] = []
        self._taken = 0
        self._counted = 0
        self._line = 1
        self._columns: tuple[str, ...] = ()

    def read(self, stream: BinaryIO, size: int) -> None:
        """Read the first `size` bytes, in blocks of whole lines."""
        rest, first = b"", True
        while block := stream.read(min(_BLOCK, size)):
            size -= len(block)
            if first:
                self._check_encoding(block)
                block = block.removeprefix(b"\xef\xbb\xbf")
            first = False
            lines, newline, rest = (rest + block).rpartition(b"\n")
            self._take(lines + newline)
            if len(rest) > _LONGEST_LINE:
                raise self._malformed(self._line, rest)
        self._take(rest + b"\n" if rest else b"")

    def result(self) -> ReadWorkload:
        """Return what was read."""
        if not self._taken:
            raise UserError("the workload file holds no requests", path=self._path, fix=_EXPECTED)
        rows, lines = np.concatenate(self._rows), np.concatenate(self._lines)
        columns = np.ascontiguousarray(rows.T)
        adapter = columns[3] if len(columns) > len(COLUMNS) else None
        table = RequestTable(np.arange(self._taken), columns[0], columns[1], columns[2], lines, adapter)
        return ReadWorkload(table, self._taken + self._counted)

    def _take(self, block: bytes) -> None:
        """Take a block of whole lines."""
        if self._limit is not None and self._taken >= self._limit:
            self._counted += sum(1 for line in block.split(b"\n") if line.strip())
        elif _PLAIN[len(self._width(block))].fullmatch(block):
            self._take_plain(block)
        else:
            self._take_lines(block)

    def _width(self, block: bytes) -> tuple[str, ...]:
        """Return the columns, which the first row of all decides."""
        if not self._columns:
            first = next((fields for line in block.split(b"\n", 64) if (fields := line.split())), [])
            adapted = len(first) == len(COLUMNS) + 1
            self._columns = (*COLUMNS, ADAPTER_COLUMN) if adapted else COLUMNS
        return self._columns

    def _take_plain(self, block: bytes) -> None:
        rows = np.fromstring(block.decode("ascii"), dtype=np.int64, sep=" ").reshape(-1, len(self._columns))
        wanted = len(rows) if self._limit is None else min(len(rows), self._limit - self._taken)
        lows, highs = np.array(_BOUNDS[: len(self._columns)], dtype=np.int64).T
        wrong = ((rows[:wanted] < lows) | (rows[:wanted] > highs)).any(axis=1)
        if wrong.any():
            self._take_lines(block)
            return
        self._keep(rows[:wanted], np.arange(self._line, self._line + wanted))
        self._line += len(rows)
        self._counted += len(rows) - wanted

    def _take_lines(self, block: bytes) -> None:
        rows: list[list[int]] = []
        lines: list[int] = []
        for line in block.split(b"\n")[:-1]:
            fields = line.split()
            full = self._limit is not None and self._taken + len(rows) >= self._limit
            if full:
                self._counted += bool(fields)
            elif fields and not (not rows and not self._taken and self._is_header(fields)):
                try:
                    rows.append(self._parse(line, fields))
                except UserError as error:
                    self._bad.take(error)
                else:
                    lines.append(self._line)
            self._line += 1
        if rows:
            self._keep(np.array(rows, dtype=np.int64), np.array(lines, dtype=np.int64))

    def _keep(self, rows: IntArray, lines: IntArray) -> None:
        self._rows.append(rows)
        self._lines.append(lines)
        self._taken += len(rows)

    def _check_encoding(self, block: bytes) -> None:
        if block.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UserError("the workload file is UTF-16 text", path=self._path, fix="save it as UTF-8")
        if block.startswith(b"\x1f\x8b"):
            raise UserError("the workload file is a gzip file", path=self._path, fix="unpack it")

    def _is_header(self, fields: list[bytes]) -> bool:
        return [field.decode("ascii", "replace") for field in fields] == list(self._columns)

    def _parse(self, line: bytes, fields: list[bytes]) -> list[int]:
        values = [whole_number(field.decode("ascii", "replace")) for field in fields]
        if len(values) != len(self._columns) or None in values:
            raise self._malformed(self._line, line)
        return self._check([value for value in values if value is not None], self._line)

    def _check(self, values: list[int], line: int) -> list[int]:
        for value, column, (low, high) in zip(values, self._columns, _BOUNDS, strict=False):
            if low <= value <= high:
                continue
            what, fix = ("too small", f"at least {low}") if value < low else ("too large", f"at most {high}")
            raise UserError(f"{value} is {what}", path=self._path, line=line, field=column, fix=fix)
        return values

    def _malformed(self, line: int, text: bytes) -> UserError:
        shown = printable(" ".join(text[: 4 * _SHOWN].decode("utf-8", "backslashreplace").split()))
        shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
        expected = _EXPECTED_FOUR if ADAPTER_COLUMN in self._columns else _EXPECTED
        return UserError(f"malformed row {shown!r}", path=self._path, line=line, fix=expected)
