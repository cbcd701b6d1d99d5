"""Lines and numbers of a text trace, checked: whatever a file holds becomes a value or a `UserError` with its line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from foundation.errors import UserError
from foundation.files import open_input, reason
from foundation.printable import printable

MAX_LINE_BYTES = 1 << 24
MAX_DIGITS = 18
MAX_NS = 9_000_000_000_000_000
"""104 days: 1000 * ns + 500 must fit 63 bits."""


class Lines:
    """The lines of one file, streamed, with the number (from 1) of the last one given, for errors."""

    def __init__(self, path: str | Path) -> None:
        self.path, self.number = path, 0
        self._lines = self._read()

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def next(self, what: str) -> str:
        """Return the next line, or fail because the file ends before its `what`."""
        line = next(self._lines, None)
        if line is None:
            self.number += 1
            raise self.error(f"the file ends before {what}", "the file is truncated or not a trace")
        return line

    def error(self, what: str, fix: str = "") -> UserError:
        """Return the error for the last line given."""
        return UserError(what, path=self.path, line=self.number, fix=fix)

    def integer(self, text: str, what: str, *, minimum: int = 0, maximum: int = 10**MAX_DIGITS - 1) -> int:
        """Return `text` as a decimal integer within the limits."""
        digits = text[1:] if text[:1] == "-" else text
        if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS):
            raise self.error(f"{what} is {shorten(text)}, not an integer", "write decimal digits")
        value = int(text)
        if not minimum <= value <= maximum:
            raise self.error(f"{what} is {value}, outside {minimum} .. {maximum}")
        return value

    def _read(self) -> Iterator[str]:
        with open_input(self.path, "trace") as stream:
            while line := self._line(stream):
                self.number += 1
                if not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
                    raise self.error(f"the line is longer than {MAX_LINE_BYTES} bytes", "is this a text trace?")
                try:
                    yield line.decode("utf-8-sig" if self.number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    raise self.error("the line is not UTF-8 text", "is this a text trace?") from None

    def _line(self, stream: BinaryIO) -> bytes:
        try:
            return stream.readline(MAX_LINE_BYTES)
        except OSError as error:
            raise UserError(f"the trace cannot be read: {reason(error)}", path=self.path) from error


def shorten(text: str) -> str:
    """Quote `text`, cut to what fits a message."""
    return f"'{printable(text if len(text) <= 40 else text[:40] + '...')}'"
