"""A list of records in one JSON text, of any length: one element at a time is in memory.

Where an element is no JSON, nobody knows where the next one begins, so that is an error even where malformed records
are skipped.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from foundation.bounds import DATA_BYTES
from foundation.documents import parse_json
from foundation.errors import UserError
from foundation.files import open_input, reason
from orchestrator.requests.importing.beginning import WHAT
from orchestrator.requests.importing.record import Record
from orchestrator.requests.importing.rows import Rows

_AT_ONCE = 1 << 22
_BLANKS = " \t\r\n"
_FIX = "correct the syntax"


def read_elements(path: Path, rows: Rows, take: Callable[[Record], None]) -> None:
    """Let `take` put the record of every element into `rows`; when there are enough, elements are only counted."""
    with open_input(path, WHAT) as stream:
        try:
            _read(_Text(path, stream), path, rows, take)
        except OSError as error:
            raise UserError(f"the {WHAT} cannot be read: {reason(error)}", path=path) from error


def _read(text: _Text, path: Path, rows: Rows, take: Callable[[Record], None]) -> None:
    text.expect("[", f"the {WHAT} is no list of records")
    at = 0
    while element := text.next_element(first=at == 0):
        if rows.full:
            rows.pass_over()
        else:
            with rows.record():
                take(_record(element, path, at))
        at += 1
    text.expect_end()


class _Element(NamedTuple):
    """The text of an element and the line on which it begins."""

    text: str
    line: int


def _record(element: _Element, path: Path, at: int) -> Record:
    try:
        value: Any = parse_json(element.text, "record").value
    except UserError as error:
        line = element.line + (error.line or 1) - 1
        raise UserError(error.what, path=path, line=line, field=f"[{at}]", fix=error.fix) from None
    return Record.of(value, path, lambda place: element.line, (at,))


class _Text:
    """A JSON text that is read on as it is needed."""

    def __init__(self, path: Path, stream: BufferedReader) -> None:
        self._path, self._stream = path, stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._at, self._line = "", 0, 1
        self._whole = False

    def expect(self, mark: str, otherwise: str) -> None:
        """Pass over `mark`, which must come next; `otherwise` that is wrong."""
        if self._next() != mark:
            raise UserError(otherwise, path=self._path, line=self._line, fix=f"expected {mark}")
        self._at += 1

    def expect_end(self) -> None:
        """Nothing but blanks may follow."""
        if self._next():
            raise self._wrong("text after the list's end")

    def next_element(self, *, first: bool) -> _Element | None:
        """Return the next element of the list, None at its end."""
        mark = self._next()
        if mark == "]":
            self._at += 1
            return None
        if not first:
            self.expect(",", "not valid JSON: no comma after a record")
            self._next()
        end = self._end()
        element = _Element(self._text[self._at : end], self._line)
        self._line += element.text.count("\n")
        self._at = end
        return element

    def _next(self) -> str:
        """Return the next character that is no blank ("" at the end), and go there."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text) or not self._more(_AT_ONCE):
                return self._text[self._at : self._at + 1]

    def _end(self) -> int:
        """Return where the value ends that begins here."""
        wanted = _AT_ONCE
        while True:
            try:
                end = int(self._scan(self._text, self._at)[1])
            except RecursionError:
                raise self._wrong("nests too deep") from None
            except ValueError as error:
                if not self._more(wanted):
                    raise self._broken(error) from None
            else:
                # A number at the very end of what was read may go on.
                if end < len(self._text) or not self._more(wanted):
                    return end
            wanted *= 2
            if len(self._text) - self._at > DATA_BYTES:
                what = f"a record is longer than {DATA_BYTES} characters"
                raise UserError(what, path=self._path, line=self._line, fix="is this a workload file?")

    def _broken(self, error: ValueError) -> UserError:
        if isinstance(error, json.JSONDecodeError):
            line = self._line + self._text.count("\n", self._at, error.pos)
            return UserError(f"not valid JSON: {error.msg}", path=self._path, line=line, fix=_FIX)
        return self._wrong("a number has too many digits")

    def _more(self, wanted: int) -> bool:
        """Read on, forgetting what was passed; return False at the end."""
        if self._whole:
            return False
        block = self._stream.read(wanted)
        self._whole = not block
        try:
            more = self._decoder.decode(block, final=self._whole)
        except UnicodeDecodeError as error:
            line = self._line + self._text.count("\n", self._at) + error.object.count(b"\n", 0, error.start)
            what = f"the {WHAT} is not UTF-8 text"
            raise UserError(what, path=self._path, line=line, fix="save it as UTF-8") from None
        self._text, self._at = self._text[self._at :] + more, 0
        return not self._whole

    def _wrong(self, what: str) -> UserError:
        return UserError(f"not valid JSON: {what}", path=self._path, line=self._line, fix=_FIX)
