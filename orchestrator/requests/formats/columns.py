"""Requests in CSV files with a header: what formats made of lines and commas share.

A file is read line by line into columns of 64-bit integers, so memory goes with the requests that are taken. What is
wrong is told with its line and column.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np

from foundation.digits import decimal_number, whole_number
from foundation.errors import UserError
from foundation.files import open_input, reason
from foundation.printable import brief
from orchestrator.request_table import RequestTable
from orchestrator.requests.formats import WHAT
from orchestrator.workload import LATEST_ARRIVAL_NS, MOST_TOKENS, ReadWorkload

_LONGEST_LINE = 1 << 16
Convert = Callable[[str], int]
"""Takes the text of a cell; raises `ValueError` with what is wrong, `; ` and what would be right."""


@dataclass(frozen=True, slots=True)
class Columns:
    """How the rows of a file become requests: `header` names its columns, `converts` has one of them for each.

    `arrival`, `prompt` and `output` name the columns that are kept; the others are only checked. Arrivals are ns, from
    any beginning where `from_first` counts them from the earliest.
    """

    header: Sequence[str]
    converts: Sequence[Convert]
    arrival: str
    prompt: str
    output: str
    from_first: bool = False

    def recognises(self, first_line: bytes) -> bool:
        """Whether a file's first line is this header."""
        return [name.strip() for name in first_line.decode("ascii", "replace").split(",")] == list(self.header)

    def read(self, path: Path, limit: int | None) -> ReadWorkload:
        """Read the first `limit` requests (None: all) of a file with this header, ids from 0 in the file's order."""
        with open_input(path, WHAT) as stream:
            try:
                return self._read(path, stream, limit)
            except OSError as error:
                raise UserError(f"the {WHAT} cannot be read: {reason(error)}", path=path) from error

    def _read(self, path: Path, stream: BufferedReader, limit: int | None) -> ReadWorkload:
        stream.readline(_LONGEST_LINE)
        kept, rows = array("q"), 0
        places = [self.header.index(name) for name in (self.prompt, self.output, self.arrival)]
        number = 1
        while line := stream.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                what = f"the line is longer than {_LONGEST_LINE} bytes"
                raise UserError(what, path=path, line=number, fix="is this a workload file?")
            text = line.strip()
            if not text:
                continue
            rows += 1
            if limit is None or rows <= limit:
                cells = self._cells(path, number, text)
                kept.extend([cells[place] for place in places])
                kept.append(number)
        if not rows:
            raise UserError(f"the {WHAT} holds no requests", path=path, fix="give rows below the header")
        return ReadWorkload(self._table(path, kept), rows)

    def _cells(self, path: Path, number: int, line: bytes) -> list[int]:
        texts = line.decode("utf-8", "backslashreplace").split(",")
        if len(texts) != len(self.header):
            what = f"{len(texts)} columns, the header has {len(self.header)}"
            raise UserError(what, path=path, line=number, fix=f"write {','.join(self.header)}")
        found = []
        for name, convert, text in zip(self.header, self.converts, texts, strict=True):
            try:
                found.append(convert(text.strip()))
            except ValueError as error:
                what, _, fix = str(error).partition("; ")
                raise UserError(what, path=path, line=number, field=name, fix=fix) from None
        return found

    def _table(self, path: Path, kept: array[int]) -> RequestTable:
        prompts, outputs, arrivals, lines = np.array(kept, dtype=np.int64).reshape(-1, 4).T
        if self.from_first:
            arrivals = arrivals - arrivals.min()
        if arrivals.max() > LATEST_ARRIVAL_NS:
            line = int(lines[int(arrivals.argmax())])
            what = f"{arrivals.max() / 1e9:.0f} s after the first"
            raise UserError(what, path=path, line=line, field=self.arrival, fix="give times within 146 years")
        return RequestTable(np.arange(len(prompts)), prompts, outputs, arrivals, lines)


def tokens(text: str) -> int:
    """Return a number of tokens."""
    return _whole(text, 1, MOST_TOKENS)


def any_whole(text: str) -> int:
    """Return a whole number that is kept for nothing."""
    return _whole(text, 0, 2**62)


def only(wanted: int, meaning: str) -> Convert:
    """Return the conversion of a column in which every row must say `wanted`, which has a `meaning`."""

    def convert(text: str) -> int:
        if whole_number(text) != wanted:
            raise ValueError(f"{brief(text)} is not {wanted}; {meaning}")
        return wanted

    return convert


def seconds(text: str) -> int:
    """Return a time in seconds as ns."""
    value = decimal_number(text)
    if value is None or not 0 <= value <= LATEST_ARRIVAL_NS / 1e9:
        raise ValueError(f"{brief(text)} is not a time; give seconds from 0 on")
    return round(value * 1e9)


def _whole(text: str, low: int, high: int) -> int:
    value = whole_number(text)
    if value is None:
        raise ValueError(f"{brief(text)} is not a whole number; give one of at least {low}")
    if value < low:
        raise ValueError(f"{value} is too small; at least {low}")
    if value > high:
        raise ValueError(f"{brief(value)} is too large; at most {high}")
    return value
