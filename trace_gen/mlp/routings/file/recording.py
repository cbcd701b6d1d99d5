"""Recorded tokens an expert: a CSV file, ``layer,expert,tokens`` or ``step,layer,expert,tokens`` -> columns.

Layers and experts are numbered from 0, layers through the whole model; every layer with experts is there, an expert
that is not has 0 tokens. Steps are numbered from 0 without gaps. Rows may come in any order.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.bounds import DATA_BYTES
from foundation.digits import whole_number
from foundation.errors import UserError
from foundation.files import read_text
from foundation.printable import brief
from foundation.records import dataclass
from trace_gen.architecture import ModelArchitecture
from trace_gen.mlp.experts import Experts

IntArray = NDArray[np.int64]
COLUMNS = ("layer", "expert", "tokens")
STEP = "step"
MOST_TOKENS, MOST_STEPS, MOST_COUNTS = 2**31, 10**6, 2**25
"""Of an expert in a row; of a file; steps x experts x layers held at once (256 MiB)."""
_WHAT = "recording of routed tokens"
_FORM = f"expected {','.join(COLUMNS)} or {','.join((STEP, *COLUMNS))}"


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """`tokens` of each layer with experts ``[steps, experts]``; `by_step`: the file told steps apart (else one)."""

    tokens: Mapping[int, IntArray]
    by_step: bool

    @property
    def steps(self) -> int:
        """How many steps were recorded."""
        return len(next(iter(self.tokens.values())))


def read_recording(path: Path | None, model: ModelArchitecture) -> Recording:
    """Read the recording of `model`'s routers.

    Raises `UserError` for a missing file, wrong columns or values (with the line), layers without experts or without
    rows, steps left out, rows that say the same again, and tokens that cannot have chosen different experts.
    """
    if path is None:
        raise UserError(f"a {_WHAT} is needed", fix="give its CSV file", field="--routing_file")
    experts = {index: layer.mlp for index, layer in enumerate(model.layers) if isinstance(layer.mlp, Experts)}
    rows = _Rows(path, experts)
    rows.read(read_text(path, _WHAT, DATA_BYTES))
    return rows.recording()


class _Rows:
    """The rows of a file, checked one by one."""

    def __init__(self, path: Path, experts: Mapping[int, Experts]) -> None:
        self._path, self._experts = path, experts
        self._by_step = False
        self._lines: dict[tuple[int, int, int], tuple[int, int]] = {}
        """Line and tokens of each step, layer and expert."""

    def read(self, text: str) -> None:
        """Take the file in."""
        reader = csv.reader(io.StringIO(text), skipinitialspace=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            names = (STEP, *COLUMNS) if STEP in header else COLUMNS
            if sorted(header) != sorted(names):
                raise self._wrong(f"the columns are {brief(','.join(header))}", _FORM, 1)
            self._by_step = STEP in header
            order = [header.index(name) for name in names]
            for row in reader:
                if row:
                    self._take(row, order, reader.line_num)
        except csv.Error as error:
            raise self._wrong(f"the {_WHAT} is no CSV file: {error}", "", reader.line_num) from None

    def recording(self) -> Recording:
        """Return what the rows hold together."""
        steps = 1 + max((step for step, _, _ in self._lines), default=0)
        if steps * sum(experts.count for experts in self._experts.values()) > MOST_COUNTS:
            fix = f"steps x experts of all layers are at most {MOST_COUNTS}"
            raise self._wrong(f"the {_WHAT} has {steps} steps of {len(self._experts)} layers", fix)
        tokens = {layer: np.zeros((steps, own.count), dtype=np.int64) for layer, own in self._experts.items()}
        for (step, layer, expert), (_, count) in self._lines.items():
            tokens[layer][step, expert] = count
        for layer, counts in tokens.items():
            self._check(layer, counts)
        return Recording(tokens, self._by_step)

    def _take(self, row: list[str], order: list[int], line: int) -> None:
        if len(row) != len(order):
            raise self._wrong(f"{len(row)} columns", _FORM, line)
        *step, layer, expert, tokens = (row[place].strip() for place in order)
        index = whole_number(layer, 0, max(self._experts))
        if index is None or index not in self._experts:
            known = f"expected one of {_ranges(self._experts)}"
            raise self._wrong(f"layer {brief(layer)} is no layer with experts", known, line)
        at = whole_number(step[0], 0, MOST_STEPS - 1) if step else 0
        number = whole_number(expert, 0, self._experts[index].count - 1)
        count = whole_number(tokens, 0, MOST_TOKENS)
        if at is None or number is None or count is None:
            bounds = f"expert from 0 to {self._experts[index].count - 1}, tokens from 0 to {MOST_TOKENS}"
            bounds = f"step from 0 to {MOST_STEPS - 1}, {bounds}" if step else bounds
            shown = ", ".join(map(brief, (*step, expert, tokens)))
            names = f"{'step, ' if step else ''}expert, tokens"
            raise self._wrong(f"{names} are {shown}", f"expected whole numbers: {bounds}", line)
        before = self._lines.setdefault((at, index, number), (line, count))
        if before[0] != line:
            raise self._wrong(f"says again what line {before[0]} says", "leave one out", line)

    def _check(self, layer: int, counts: IntArray) -> None:
        """Every step has tokens, each of which can have chosen different experts."""
        chosen, total = self._experts[layer].per_token, counts.sum(axis=1)
        for step in np.flatnonzero(total == 0).tolist():
            of_step = f" of step {step}" if self._by_step else ""
            raise self._wrong(
                f"no tokens for layer {layer}{of_step}", "every layer with experts has some at every step"
            )
        for step, expert in np.argwhere(counts * chosen > total[:, None]).tolist():
            line, count = self._lines[step, layer, expert]
            what = f"expert {expert} has {count} of {total[step]} choices, but a token chooses {chosen} different ones"
            raise self._wrong(what, f"expected at most {total[step] // chosen}", line)

    def _wrong(self, what: str, fix: str, line: int | None = None) -> UserError:
        return UserError(what, fix=fix, path=self._path, line=line)


def _ranges(layers: Mapping[int, Experts]) -> str:
    """Return layers as text, runs of them in short: ``1-3, 5``."""

    def runs() -> Iterator[str]:
        numbers = sorted(layers)
        first = numbers[0]
        for number, following in zip(numbers, [*numbers[1:], -1], strict=True):
            if following != number + 1:
                yield f"{first}-{number}" if number > first else str(number)
                first = following

    return ", ".join(runs())
