"""Requests in CSV files with a header: what formats made of lines and commas share.

A file is read in blocks of whole lines into columns of 64-bit integers, so memory goes with the requests that are
taken. The cells of a block are parsed together where all its lines are plain; where any is not (a blank line, a blank
beside a number, an exponent, something wrong) the block is read line by line, with the same result, and what is wrong
is told with its line and column. Cells in quotes are not taken apart: no format has commas in what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError
from foundation.files import open_input, reason
from foundation.printable import shorten
from foundation.records import dataclass
from orchestrator.request_table import RequestTable
from orchestrator.requests.importing.beginning import WHAT, Beginning
from orchestrator.requests.importing.cells import Cells, Kind
from orchestrator.requests.importing.reading import Reading
from orchestrator.requests.importing.rows import counted_from_first
from orchestrator.workload import ReadWorkload

IntArray = NDArray[np.int64]
_LONGEST_LINE = 1 << 16
_BLOCK = 1 << 22
_MARK = b"\xef\xbb\xbf"
_COMMA, _NEWLINE, _RETURN = b",\n\r"
_WITHOUT = 0
"""The arrival of a request in a file without arrivals."""


@dataclass(frozen=True, slots=True)
class Columns:
    """How the rows of a file become requests: `kinds` has the columns that its header must name, and what they hold.

    `arrival`, `prompt` and `output` name the columns that are kept; the others are only checked. `others`: there
    may be further columns, which hold anything; `untimed`: a file may be without arrivals. Arrivals are ns, from
    any beginning where `from_first` counts them from the earliest. Where the kind of `output` allows 0, a request
    without output tokens is one that failed; it is left out, and counted.
    """

    kinds: Mapping[str, Kind]
    arrival: str
    prompt: str
    output: str
    from_first: bool = False
    others: bool = False
    untimed: bool = False

    def recognises(self, beginning: Beginning) -> bool:
        """Whether a file's first line names these columns."""
        return not beginning.is_json and self._lacking(beginning.header()) is None

    def read(self, path: Path, reading: Reading) -> ReadWorkload:
        """Read the requests of a file with this header, ids from 0 in the file's order."""
        with open_input(path, WHAT) as stream:
            try:
                return _Reader(self, path, reading).read(stream)
            except OSError as error:
                raise UserError(f"the {WHAT} cannot be read: {reason(error)}", path=path) from error

    def in_order(self, path: Path, names: list[str]) -> list[Kind | None]:
        """Return what each of the columns called `names` holds (None: anything)."""
        lacking = self._lacking(names)
        if lacking is not None:
            raise UserError(lacking, path=path, line=1, fix=f"the header is {','.join(self.kinds)}")
        return [self.kinds.get(name) for name in names]

    def _lacking(self, names: list[str]) -> str | None:
        """Return what is wrong with a header, None where nothing is."""
        optional = {self.arrival} if self.untimed else set()
        missing = [name for name in self.kinds if name not in names and name not in optional]
        if missing:
            return f"the header lacks {', '.join(missing)}"
        if len(set(names)) != len(names):
            return "the header names a column twice"
        extra = [name for name in names if name not in self.kinds]
        return None if self.others or not extra else f"the header has {len(extra)} columns more"


class _Reader:
    """Collects the requests of one file."""

    def __init__(self, columns: Columns, path: Path, reading: Reading) -> None:
        self._columns, self._path, self._reading = columns, path, reading
        self._names: list[str] = []
        self._kinds: list[Kind | None] = []
        self._prompt = self._output = 0
        self._arrival: int | None = None
        self._kept: list[list[IntArray]] = [[], [], [], []]
        self._taken = self._beyond = self._failed = 0
        self._line = 2

    def read(self, stream: BufferedReader) -> ReadWorkload:
        """Read the whole file."""
        head = stream.readline(_LONGEST_LINE).removeprefix(_MARK)
        columns, names = self._columns, Beginning(head).header()
        self._names, self._kinds = names, columns.in_order(self._path, names)
        self._prompt, self._output = names.index(columns.prompt), names.index(columns.output)
        self._arrival = names.index(columns.arrival) if columns.arrival in names else None
        self._read_blocks(stream)
        if not self._taken:
            what = f"the {WHAT} holds no requests"
            fix = f"all {self._failed} of its rows failed" if self._failed else "give rows below the header"
            raise UserError(what, path=self._path, fix=fix)
        return self._result()

    def _read_blocks(self, stream: BufferedReader) -> None:
        rest = b""
        while block := stream.read(_BLOCK):
            lines, newline, rest = (rest + block).rpartition(b"\n")
            self._take(lines + newline)
            if len(rest) > _LONGEST_LINE:
                raise self._too_long(self._line)
        self._take(rest + b"\n" if rest else b"")

    def _take(self, block: bytes) -> None:
        """Take a block of whole lines."""
        if self._wanted() == 0:
            self._beyond += sum(1 for line in block.split(b"\n") if line.strip())
        elif block and not self._take_together(block):
            self._take_lines(block)

    def _take_together(self, block: bytes) -> bool:
        """Take a block of plain lines, or return False."""
        cells = _cells(block, len(self._names))
        if cells is None:
            return False
        values: list[IntArray] = []
        anything = np.zeros(len(cells[0].starts), dtype=np.int64)
        for kind, column in zip(self._kinds, cells, strict=True):
            found = anything if kind is None else kind.together(column)
            if found is None:
                return False
            values.append(found)
        prompts, outputs = values[self._prompt], values[self._output]
        if (prompts[outputs > 0] < 1).any():
            return False
        lines = np.arange(self._line, self._line + len(prompts))
        self._line += len(prompts)
        self._keep([prompts, outputs, anything if self._arrival is None else values[self._arrival], lines])
        return True

    def _take_lines(self, block: bytes) -> None:
        kept: list[list[int]] = []
        wanted = self._wanted()
        for line in block.split(b"\n")[:-1]:
            number = self._line
            self._line += 1
            if len(line) >= _LONGEST_LINE:
                raise self._too_long(number)
            text = line.strip()
            if not text:
                continue
            if wanted == 0:
                self._beyond += 1
                continue
            try:
                cells = self._checked(number, text)
            except UserError as error:
                self._reading.bad.take(error)
                continue
            arrival = _WITHOUT if self._arrival is None else cells[self._arrival]
            kept.append([cells[self._prompt], cells[self._output], arrival, number])
            if wanted is not None and cells[self._output]:
                wanted -= 1
        if kept:
            self._keep(list(np.array(kept, dtype=np.int64).T))

    def _wanted(self) -> int | None:
        """Return how many more requests are asked for, None for all."""
        return None if self._reading.limit is None else self._reading.limit - self._taken

    def _keep(self, columns: list[IntArray]) -> None:
        """Keep requests: prompt and output tokens, arrivals, lines. Rows after those asked for are only counted."""
        fine = columns[1] > 0
        wanted = self._wanted()
        if wanted is not None:
            seen = int(np.searchsorted(np.cumsum(fine), wanted)) + 1
            self._beyond += max(0, len(fine) - seen)
            fine, columns = fine[:seen], [column[:seen] for column in columns]
        self._failed += int(np.count_nonzero(~fine))
        for kept, column in zip(self._kept, columns, strict=True):
            kept.append(column if fine.all() else column[fine])
        self._taken += int(np.count_nonzero(fine))

    def _checked(self, number: int, line: bytes) -> list[int]:
        """Return the values of a line's cells, 0 for those that may hold anything."""
        texts = line.decode("utf-8", "backslashreplace").split(",")
        if len(texts) != len(self._names):
            what = f"{len(texts)} columns, the header has {len(self._names)}"
            raise UserError(what, path=self._path, line=number, fix=f"write {shorten(','.join(self._names))}")
        found = []
        for name, kind, text in zip(self._names, self._kinds, texts, strict=True):
            try:
                found.append(0 if kind is None else kind.convert(text.strip()))
            except ValueError as error:
                what, _, fix = str(error).partition("; ")
                raise UserError(what, path=self._path, line=number, field=name, fix=fix) from None
        if found[self._prompt] < 1 <= found[self._output]:
            what = f"{found[self._prompt]} is too small"
            raise UserError(what, path=self._path, line=number, field=self._columns.prompt, fix="at least 1")
        return found

    def _result(self) -> ReadWorkload:
        prompts, outputs, arrivals, lines = (_joined(kept) for kept in self._kept)
        if self._columns.from_first:
            arrivals = counted_from_first(arrivals, lines, self._path, self._columns.arrival)
        table = RequestTable(np.arange(self._taken), prompts, outputs, arrivals, lines)
        notes = (f"requests that failed (no output tokens), left out: {self._failed}",) if self._failed else ()
        return ReadWorkload(table, self._taken + self._beyond, timed=self._arrival is not None, notes=notes)

    def _too_long(self, number: int) -> UserError:
        what = f"the line is longer than {_LONGEST_LINE} bytes"
        return UserError(what, path=self._path, line=number, fix="is this a workload file?")


def _cells(block: bytes, width: int) -> list[Cells] | None:
    """Return the cells of a block by column, None where a line has not as many as others, or is blank or very long."""
    text = np.frombuffer(block, dtype=np.uint8)
    marks = np.flatnonzero((text == _COMMA) | (text == _NEWLINE))
    if len(marks) % width:
        return None
    ends = marks.reshape(-1, width)
    newlines = text[ends] == _NEWLINE
    if newlines[:, :-1].any() or not newlines[:, -1].all():
        return None
    begins = np.concatenate(([0], marks[:-1] + 1)).reshape(-1, width)
    last = ends[:, -1] - (text[ends[:, -1] - 1] == _RETURN)
    if (last - begins[:, 0]).max() >= _LONGEST_LINE or (width == 1 and (last <= begins[:, 0]).any()):
        return None
    return [Cells(text, begins[:, at], last if at == width - 1 else ends[:, at]) for at in range(width)]


def _joined(parts: list[IntArray]) -> IntArray:
    """Return the parts as one column, and forget them."""
    joined = np.concatenate(parts)
    parts.clear()
    return joined
