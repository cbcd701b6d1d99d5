"""Reads tables of measured times: CSV files with a header, sizes that grow from row to row, times in microseconds.

What is wrong is told with the file and the row: a missing column, a cell that is no number, a time that is none or not
above 0, a size that comes twice or out of order, a table without rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from foundation.digits import decimal_number
from foundation.errors import UserError
from foundation.files import read_text
from foundation.printable import brief, shorten
from foundation.records import dataclass

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Key = TypeVar("Key", bound=Hashable)
WHAT = "table of measured times"
MOST = 2**31
"""Of a size: far more than any table has."""
MOST_TIME = 1e12
"""Of a time, be it in microseconds or milliseconds."""
TIME = "time_us"


@dataclass(frozen=True, slots=True)
class Rows:
    """Some `columns` of a file: `cells` ``[n][columns]`` as they are written, and the line of each row."""

    path: Path
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]
    lines: Sequence[int]

    def texts(self, column: str) -> list[str]:
        """Return the cells of a column."""
        place = self.columns.index(column)
        return [row[place] for row in self.cells]

    def sizes(self, columns: Sequence[str], least: int = 0) -> IntArray:
        """Return columns of whole numbers (written ``16`` or ``16.0``) from `least` on, ``[n, columns]``."""

        def fits(number: float) -> bool:
            return least <= number <= MOST and number == int(number)

        return self._numbers(columns, fits, f"a whole number from {least} to {MOST}").astype(np.int64)

    def times(self, columns: Sequence[str], unit: str) -> FloatArray:
        """Return columns of times above 0, ``[n, columns]``, as they are; `unit` is what an error calls them."""
        return self._numbers(columns, _is_time, f"{unit} above 0, at most {MOST_TIME:g}")

    def amounts(self, columns: Sequence[str]) -> FloatArray:
        """Return columns of numbers that are not negative, ``[n, columns]``."""
        return self._numbers(columns, _is_amount, f"a number from 0 to {MOST_TIME:g}")

    def only(self, chosen: Sequence[int]) -> Rows:
        """Return some of the rows."""
        return Rows(self.path, self.columns, [self.cells[row] for row in chosen], [self.lines[row] for row in chosen])

    def _numbers(self, columns: Sequence[str], fits: Callable[[float], bool], expected: str) -> FloatArray:
        result = np.empty((len(self.cells), len(columns)))
        for column, name in enumerate(columns):
            for row, cell in enumerate(self.texts(name)):
                number = decimal_number(cell)
                if number is None or not fits(number):
                    what, line = brief(cell), self.lines[row]
                    raise UserError(what, path=self.path, line=line, field=name, fix=f"expected {expected}")
                result[row, column] = number
        return result


def _is_time(number: float) -> bool:
    return 0 < number <= MOST_TIME


def _is_amount(number: float) -> bool:
    return 0 <= number <= MOST_TIME


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredTable:
    """Rows of one file: `sizes` ``[n, axes]`` and `times` ``[n]`` (ns), in order of the sizes."""

    path: Path
    sizes: IntArray
    times: FloatArray


def read_header(path: Path) -> list[str]:
    """Return the names of the columns of a CSV file."""
    _, header = next(_csv_rows(path), (1, []))
    return header


def read_rows(path: Path, columns: Sequence[str]) -> Rows:
    """Return `columns` of a CSV file; one that lacks, a short row, or no rows at all are a `UserError`."""
    rows = _csv_rows(path)
    _, header = next(rows, (1, []))
    if missing := [name for name in columns if name not in header]:
        what = f"the {WHAT} lacks the column {', '.join(missing)}"
        raise UserError(what, fix=f"expected {','.join(columns)}", path=path, line=1)
    places = [header.index(name) for name in columns]
    cells, lines = [], []
    for line, row in rows:
        if len(row) <= max(places):
            raise UserError(f"{len(row)} columns", fix=f"expected {len(header)}, as in line 1", path=path, line=line)
        cells.append([row[place] for place in places])
        lines.append(line)
    if not cells:
        raise UserError(f"the {WHAT} has no rows", path=path, fix="measure it, or leave the file out")
    return Rows(path, tuple(columns), cells, lines)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not empty, with its line."""
    reader = csv.reader(io.StringIO(read_text(path, WHAT)))
    try:
        for row in reader:
            if row:
                yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        what = f"the {WHAT} is no CSV file: {error}"
        raise UserError(what, path=path, line=reader.line_num) from None


def read_measured(path: Path, axes: Sequence[str]) -> MeasuredTable:
    """Return the table of a file whose columns `axes` are whole numbers that grow, the first the slowest."""
    return _table(read_rows(path, (*axes, TIME)), axes)


def read_layers(path: Path, axes: Sequence[str], layer: str = "layer") -> dict[str, MeasuredTable]:
    """Return a table for each name in the column `layer`, of a file whose other columns are as in `read_measured`."""
    rows = read_rows(path, (layer, *axes, TIME))
    names = rows.texts(layer)
    return tables_by(rows, names, names, axes)


def tables_by(rows: Rows, keys: Sequence[Key], names: Sequence[str], axes: Sequence[str]) -> dict[Key, MeasuredTable]:
    """Return a table for each of the `keys` that the rows have, ``[n]``; errors call them by `names`, ``[n]``."""
    found: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, []).append(row)
    return {key: _table(rows.only(own), axes, f" of {shorten(names[own[0]])}") for key, own in found.items()}


def _table(rows: Rows, axes: Sequence[str], of: str = "") -> MeasuredTable:
    sizes, times = rows.sizes(axes), rows.times((TIME,), "microseconds")
    _check_order(rows, sizes, axes, of)
    return MeasuredTable(rows.path, sizes, times[:, 0] * 1e3)


def _check_order(rows: Rows, sizes: IntArray, axes: Sequence[str], of: str) -> None:
    """Refuse sizes that come twice, or out of order."""
    steps = np.diff(sizes, axis=0)
    leading = np.array([next((step for step in row if step), 0) for row in steps.tolist()])
    wrong = np.flatnonzero(leading <= 0)
    if not wrong.size:
        return
    place = int(wrong[0]) + 1
    shown = ", ".join(f"{name} {size}" for name, size in zip(axes, sizes[place].tolist(), strict=True))
    twice = not leading[wrong[0]]
    what = f"{shown}{of} comes twice" if twice else f"{shown}{of} comes after larger sizes"
    fix = "leave one of the rows out" if twice else f"sort the rows by {', '.join(axes)}"
    raise UserError(what, path=rows.path, line=rows.lines[place], fix=fix)
