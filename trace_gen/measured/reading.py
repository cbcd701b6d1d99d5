"""Reads tables of measured times: CSV files with a header, sizes that grow from row to row, times in microseconds.

What is wrong is told with the file and the row: a missing column, a cell that is no number, a time that is none or not
above 0, a size that comes twice or out of order, a table without rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.digits import decimal_number, whole_number
from foundation.errors import UserError
from foundation.files import read_text
from foundation.printable import brief

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
WHAT = "table of measured times"
MOST = 2**31
"""Of a size: far more than any table has."""
MOST_US = 1e12
TIME = "time_us"


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredTable:
    """Rows of one file: `sizes` ``[n, axes]`` and `times` ``[n]`` (ns), in order of the sizes."""

    path: Path
    sizes: IntArray
    times: FloatArray


def read_measured(path: Path, axes: Sequence[str]) -> MeasuredTable:
    """Return the table of a file whose columns `axes` are whole numbers that grow, the first the slowest."""
    header, rows = _rows(path, (*axes, TIME))
    places = [header.index(name) for name in (*axes, TIME)]
    return _table(path, [([cells[place] for place in places], line) for cells, line in rows], axes)


def read_layers(path: Path, axes: Sequence[str], layer: str = "layer") -> dict[str, MeasuredTable]:
    """Return a table for each name in the column `layer`, of a file whose other columns are as in `read_measured`."""
    header, rows = _rows(path, (layer, *axes, TIME))
    named, places = header.index(layer), [header.index(name) for name in (*axes, TIME)]
    found: dict[str, list[tuple[list[str], int]]] = {}
    for cells, line in rows:
        found.setdefault(cells[named].strip(), []).append(([cells[place] for place in places], line))
    return {name: _table(path, own, axes, f" of {name}") for name, own in found.items()}


def _rows(path: Path, wanted: Sequence[str]) -> tuple[list[str], list[tuple[list[str], int]]]:
    """Return the header and the cells of each row with its line."""
    reader = csv.reader(io.StringIO(read_text(path, WHAT)), skipinitialspace=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in wanted if name not in header]
        if missing:
            what = f"the {WHAT} lacks the column {', '.join(missing)}"
            raise UserError(what, fix=f"expected {','.join(wanted)}", path=path, line=1)
        rows = [(cells, reader.line_num) for cells in reader if cells]
    except csv.Error as error:
        raise UserError(f"the {WHAT} is no CSV file: {error}", path=path, line=reader.line_num) from None
    if not rows:
        raise UserError(f"the {WHAT} has no rows", path=path, fix="measure it, or leave the file out")
    width = len(header)
    for cells, line in rows:
        if len(cells) < width:
            raise UserError(f"{len(cells)} columns", fix=f"expected {','.join(header)}", path=path, line=line)
    return header, rows


def _table(path: Path, rows: list[tuple[list[str], int]], axes: Sequence[str], of: str = "") -> MeasuredTable:
    try:
        numbers = np.array([cells for cells, _ in rows], dtype=np.float64)
    except ValueError:
        numbers = np.full((len(rows), len(axes) + 1), np.nan)
    sizes, times = numbers[:, :-1], numbers[:, -1]
    sound = (sizes >= 0) & (sizes <= MOST) & (sizes == np.floor(sizes))
    if not sound.all() or not ((times > 0) & (times <= MOST_US)).all():
        _explain(path, rows, axes)
    whole = sizes.astype(np.int64)
    _check_order(path, whole, rows, axes, of)
    return MeasuredTable(path, whole, times * 1e3)


def _explain(path: Path, rows: list[tuple[list[str], int]], axes: Sequence[str]) -> None:
    """Raise the error of the first row that has a wrong cell."""
    for cells, line in rows:
        for name, cell in zip(axes, cells, strict=False):
            if _size(cell) is None:
                fix = f"expected a whole number from 0 to {MOST}"
                raise UserError(f"{brief(cell.strip())}", path=path, line=line, field=name, fix=fix)
        time = decimal_number(cells[-1].strip())
        if time is None or not 0 < time <= MOST_US:
            fix = f"expected microseconds above 0, at most {MOST_US:g}"
            raise UserError(f"{brief(cells[-1].strip())}", path=path, line=line, field=TIME, fix=fix)


def _size(cell: str) -> int | None:
    """Return the whole number that a cell has, be it written ``16`` or ``16.0``."""
    number = decimal_number(cell.strip())
    if number is None or number != int(number):
        return None
    return whole_number(str(int(number)), 0, MOST)


def _check_order(path: Path, sizes: IntArray, rows: list[tuple[list[str], int]], axes: Sequence[str], of: str) -> None:
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
    raise UserError(what, path=path, line=rows[place][1], fix=fix)
