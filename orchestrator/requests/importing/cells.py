"""What a cell of a CSV file may hold: converted by itself, with words for what is wrong, and many together, quickly.

`together` takes the cells of a column and returns what `convert` would for each, or None where it cannot say for all of
them: then each is converted by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from foundation.digits import decimal_number, whole_number
from foundation.printable import brief
from foundation.records import dataclass
from orchestrator.workload import LATEST_ARRIVAL_NS, MOST_TOKENS

IntArray = NDArray[np.int64]
_SECOND_NS = 10**9
_MOST_DIGITS = 18
"""As many surely fit into 64 bits."""
_FRACTION = 9
"""Digits of a second down to ns."""
_MINUTE = len("2023-11-16 18:15:")
_WHOLE_SECOND = len("2023-11-16 18:15:46")
_UTC = b"+00:00"
_FIRST_YEAR, _LAST_YEAR = 1970, 2200
"""What 64 bits hold as ns since 1970, and a little less."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a column, ``[n]``: of the bytes `text` those from `starts` to `ends`."""

    text: NDArray[np.uint8]
    starts: IntArray
    ends: IntArray

    def widths(self) -> IntArray:
        """Return the bytes of each."""
        return self.ends - self.starts


@dataclass(frozen=True, slots=True)
class Kind:
    """What a column holds. `convert` raises `ValueError` with what is wrong, `; ` and what would be right."""

    convert: Callable[[str], int]
    together: Callable[[Cells], IntArray | None]


def whole(low: int, high: int) -> Kind:
    """Return the kind of whole numbers from `low` to `high`."""

    def convert(text: str) -> int:
        value = whole_number(text)
        if value is None:
            raise ValueError(f"{brief(text)} is not a whole number; give one of at least {low}")
        if value < low:
            raise ValueError(f"{value} is too small; at least {low}")
        if value > high:
            raise ValueError(f"{brief(value)} is too large; at most {high}")
        return value

    def together(cells: Cells) -> IntArray | None:
        values = _digits(cells.text, cells.starts, cells.ends)
        return None if values is None or values.min() < low or values.max() > high else values

    return Kind(convert, together)


def only(wanted: int, meaning: str) -> Kind:
    """Return the kind of a column in which every row must say `wanted`, which has a `meaning`."""

    def convert(text: str) -> int:
        if whole_number(text) != wanted:
            raise ValueError(f"{brief(text)} is not {wanted}; {meaning}")
        return wanted

    return Kind(convert, whole(wanted, wanted).together)


def _second(text: str) -> int:
    value = decimal_number(text)
    if value is None or not 0 <= value <= LATEST_ARRIVAL_NS / 1e9:
        raise ValueError(f"{brief(text)} is not a time; give seconds from 0 on")
    return int((Decimal(text) * _SECOND_NS).quantize(Decimal(1), ROUND_HALF_UP))


def _seconds(cells: Cells) -> IntArray | None:
    text, starts, ends = cells.text, cells.starts, cells.ends
    dots = np.flatnonzero(text == ord("."))
    dots = np.append(dots, (len(text), len(text)))
    place = np.searchsorted(dots, starts)
    dot = np.minimum(dots[place], ends)
    wholes = _digits(text, starts, dot)
    fractions = _nanoseconds(text, np.minimum(dot + 1, ends), ends)
    if wholes is None or fractions is None or wholes.max() >= LATEST_ARRIVAL_NS // _SECOND_NS:
        return None
    return wholes * _SECOND_NS + fractions


def timestamp(text: str) -> int:
    """Return a point of time (``2023-11-16 18:15:46.6805900``, UTC where an offset of 0 is said or none) in ns."""
    begin, rest = text[:_MINUTE], text[_MINUTE:].removesuffix(_UTC.decode())
    second, dot, fraction = rest.partition(".")
    value = decimal_number(rest)
    if len(second) != 2 or value is None or not 0 <= value < 60 or (dot and not fraction.isdigit()):
        raise ValueError(_no_time(text))
    return _minute_ns(begin) + int(second) * _SECOND_NS + int(fraction[:_FRACTION].ljust(_FRACTION, "0"))


@lru_cache(maxsize=4096)
def _minute_ns(text: str) -> int:
    try:
        minute = datetime.strptime(text, "%Y-%m-%d %H:%M:").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(_no_time(text)) from None
    if not _FIRST_YEAR <= minute.year <= _LAST_YEAR:
        raise ValueError(_no_time(text))
    return round(minute.timestamp()) * _SECOND_NS


def _no_time(text: str) -> str:
    return f"{brief(text)} is not a point of time; write it as 2023-11-16 18:15:46.6805900"


def _timestamps(cells: Cells) -> IntArray | None:
    """Return points of time in ns: the date of each day is looked at once, the rest is digits."""
    text, starts, ends = cells.text, cells.starts, cells.ends
    if cells.widths().min() < _WHOLE_SECOND:
        return None
    ends = ends - len(_UTC) * _ends_with(text, starts, ends, _UTC)
    marks = {4: "-", 7: "-", 10: " ", 13: ":", 16: ":"}
    if any((text[starts + at] != ord(mark)).any() for at, mark in marks.items()):
        return None
    fractional = ends > starts + _WHOLE_SECOND
    if (fractional & (text[np.minimum(starts + _WHOLE_SECOND, ends)] != ord("."))).any():
        return None
    begins = starts + _WHOLE_SECOND + fractional
    if (fractional & (ends <= begins)).any() or (ends - begins).max() > _FRACTION:
        return None
    fields = [_digits(text, starts + at, starts + at + width) for at, width in _FIELDS]
    fractions = _nanoseconds(text, begins, ends)
    found = [field for field in (*fields, fractions) if field is not None]
    if len(found) < len(fields) + 1:
        return None
    year, month, day, hour, minute, second, nanosecond = found
    if hour.max() > 23 or minute.max() > 59 or second.max() > 59:
        return None
    days, which = np.unique((year * 100 + month) * 100 + day, return_inverse=True)
    try:
        midnights = [
            _minute_ns(f"{one // 10000:04}-{one // 100 % 100:02}-{one % 100:02} 00:00:") for one in days.tolist()
        ]
    except ValueError:
        return None
    seconds = (hour * 60 + minute) * 60 + second
    values: IntArray = np.array(midnights, dtype=np.int64)[which.reshape(-1)] + seconds * _SECOND_NS + nanosecond
    return values


_FIELDS = ((0, 4), (5, 2), (8, 2), (11, 2), (14, 2), (17, 2))
"""Where year, month, day, hour, minute and second stand, and their widths."""


def _ends_with(text: NDArray[np.uint8], starts: IntArray, ends: IntArray, suffix: bytes) -> NDArray[np.bool_]:
    found = ends - starts >= len(suffix)
    for back, byte in enumerate(reversed(suffix), 1):
        found &= text[ends - back] == byte
    return found


def _digits(text: NDArray[np.uint8], starts: IntArray, ends: IntArray) -> IntArray | None:
    """Return the numbers that cells write in digits alone; None where one is empty, too long, or something else."""
    widths = ends - starts
    if not len(widths) or widths.min() < 1 or widths.max() > _MOST_DIGITS:
        return None
    values = np.zeros(len(widths), dtype=np.int64)
    least, scale = int(widths.min()), 1
    for back in range(1, int(widths.max()) + 1):
        digits = text[np.maximum(ends - back, 0)] - np.uint8(ord("0"))
        if back > least:
            digits = np.where(back <= widths, digits, np.uint8(0))
        if digits.max() > 9:
            return None
        values += digits.astype(np.int64) * scale
        scale *= 10
    return values


def _nanoseconds(text: NDArray[np.uint8], starts: IntArray, ends: IntArray) -> IntArray | None:
    """Return fractions of a second, of which cells write the digits behind the dot, in ns; half a ns is rounded up."""
    widths = ends - starts
    if widths.max() > _MOST_DIGITS:
        return None
    values = np.zeros(len(widths), dtype=np.int64)
    for at in range(int(widths.max())):
        digits = text[np.minimum(starts + at, len(text) - 1)] - np.uint8(ord("0"))
        digits = np.where(at < widths, digits, np.uint8(0))
        if digits.max() > 9:
            return None
        if at < _FRACTION:
            values += digits.astype(np.int64) * 10 ** (_FRACTION - 1 - at)
        elif at == _FRACTION:
            values += digits >= 5
    return values


TOKENS = whole(1, MOST_TOKENS)
TOKENS_OR_NONE = whole(0, MOST_TOKENS)
ANY_WHOLE = whole(0, 2**62)
"""A number that is kept for nothing."""
SECONDS = Kind(_second, _seconds)
"""A time in seconds, as ns."""
TIMESTAMP = Kind(timestamp, _timestamps)
"""A point of time, as ns since 1970."""
