"""Latencies from a table in the form of LLMServingSim v0.2.1: ``hardware,model,layer_name,input,kv_cache,latency(ns)``.

The file is read as it is; where rows say the same operator twice, the first wins. The original stops at a size
that has no row. Here:

- what lies between rows and outside of them is `trace_gen.measured.curve`'s to say;
- a chunk of ``n`` prompt tokens on ``c`` tokens of context, which the original does not know, takes the attention
  time of ``n + c`` tokens less that of ``c``, and never less than that of ``n``;
- OPT's ``qk_matmul``, ``softmax`` and ``sv_matmul`` are summed: attention is one row a request.

The times are those of one device. As in the original's converter, they are divided (rounded down) by the ranks that
share an operator, except for attention placed by request, where a rank does the whole of it. Linear operators are
looked up at the batch's tokens, the LM head at the sequences whose logits are needed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import field
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foundation.digits import decimal_number, whole_number
from foundation.errors import UserError, near_names
from foundation.files import read_text
from foundation.printable import brief
from foundation.records import dataclass
from trace_gen.batch_shape import BatchShape
from trace_gen.hardware import plain_name
from trace_gen.measured.curve import Curve
from trace_gen.measured.lookups import LookupCounts, Lookups
from trace_gen.model_operators import ModelOperators, model_operators
from trace_gen.perf_model import (
    AttentionGranularity,
    IntArray,
    LatencySource,
    OperatorTable,
    PerfModelOptions,
)
from trace_gen.trace import OperatorClass
from trace_gen.vocabulary import SPLIT, Vocabulary

FloatArray = NDArray[np.float64]
COLUMNS = ("hardware", "model", "layer_name", "input", "kv_cache", "latency(ns)")
ATTENTION_PARTS = ("qk_matmul", "softmax", "sv_matmul")
_WHAT = "latency table"
MOST_TOKENS, MOST_NS = 2**31, 1e15
"""Far more than any table has: a slip of the keyboard is refused before times are summed."""
_Points = dict[tuple[int, int], float]


@dataclass
class LayerTable:
    """One operator's rows: `by_input` without context, `by_context` for one token on a context, and all as they are.

    `exact`: a size that has a row takes its time; else that of the curves.
    """

    points: _Points
    exact: bool = True
    by_input: Curve = field(init=False)
    by_context: Curve = field(init=False)

    def __post_init__(self) -> None:
        prompts = {size: value for (size, context), value in self.points.items() if context == 0}
        self.by_input = Curve(prompts)
        decodes = {context: value for (size, context), value in self.points.items() if size == 1}
        self.by_context = Curve(decodes or prompts)

    def chunk(self, tokens: int, context: int, *, attends: bool) -> float:
        """Return the latency of `tokens` new tokens on `context`; `attends`: it works on the context, too."""
        exact = self.points.get((tokens, context))
        if exact is not None and self.exact:
            return exact
        alone, through, before = self.by_input.at(np.array([tokens, tokens + context, context]))
        return float(max(alone, through - before)) if attends and context else float(alone)

    def lookups(self, tokens: int, context: int) -> LookupCounts:
        """Return what `chunk` looks up: a row, or the prompt whose last tokens these are."""
        if (tokens, context) in self.points:
            return LookupCounts(measured=1)
        found = self.by_input.lookups(np.array([tokens + context]))
        return LookupCounts(interpolated=1) if found.measured else found


class TableV0Model:
    """Looks operators up in a v0.2.1 table; see the module's docstring."""

    vocabulary: Vocabulary = SPLIT
    attention_granularity: AttentionGranularity = "request"
    latency_source: LatencySource = "model"

    def __init__(self, layers: dict[str, list[LayerTable]], source: str) -> None:
        self.layers = layers
        self.lookups = Lookups(source)
        self.notes: tuple[str, ...] = ()
        self._plain: dict[tuple[str, int], int] = {}

    def latency_ns(self, operators: OperatorTable) -> IntArray:
        """Return each operator's latency, shape ``[k, m]``."""
        result = np.ones(operators.flops.shape, dtype=np.int64)
        timed = (operators.request < 0) & (operators.kinds != OperatorClass.COMMUNICATION)
        for column in np.flatnonzero(timed).tolist():
            result[:, column] = self._plain_ns(operators.names[column], int(operators.rows[column]))
        attention = operators.kinds == OperatorClass.ATTENTION
        for attends in (True, False):
            columns = np.flatnonzero((operators.request >= 0) & (attention == attends))
            if len(columns):
                name = operators.names[int(columns[0])]
                times = self._requests_ns(name, operators.batch, attends)
                result[:, columns] = times[:, operators.request[columns]]
        shared = np.flatnonzero(~operators.whole)
        result[:, shared] //= operators.tensor
        return np.maximum(result, 1)

    def _plain_ns(self, name: str, rows: int) -> int:
        found = self._plain.get((name, rows))
        if found is None:
            found = round(sum(layer.chunk(rows, 0, attends=False) for layer in self.layers[name]))
            self.lookups.count(name, self.layers[name][0].lookups(rows, 0))
            self._plain[name, rows] = found
        return found

    def _requests_ns(self, name: str, batch: BatchShape, attends: bool) -> IntArray:
        """Return a per-request operator's latency for every request at every step, ``[k, n]``."""
        context = batch.context_by_step()
        times = np.zeros(context.shape)
        chunks = np.flatnonzero(batch.new_tokens > 1).tolist()
        decodes = batch.new_tokens <= 1
        self.lookups.count(name, self.layers[name][0].by_context.lookups(context[:, decodes]))
        for position in chunks:
            sizes = int(batch.new_tokens[position]), int(batch.context_tokens[position])
            self.lookups.count(name, self.layers[name][0].lookups(*sizes))
        for layer in self.layers[name]:
            part = layer.by_context.at(context)
            for position in chunks:
                tokens, before = int(batch.new_tokens[position]), int(batch.context_tokens[position])
                part[:, position] = layer.chunk(tokens, before, attends=attends)
            times += part
        return np.rint(times).astype(np.int64)


def load_table_v0(options: PerfModelOptions, table: Path | None) -> TableV0Model:
    """Return the model for the CSV file `table`, the rows of `options.hardware` and `options.architecture`.

    Raises `UserError` for a missing file, wrong columns or values (with the line), no rows for the hardware or
    the model (with the near names), layers without rows, and for mixtures of experts and latent attention, which
    the form does not know.
    """
    lacks = "latent attention" if options.architecture.absorption else ""
    lacks = lacks or ("a mixture of experts" if options.architecture.mixtures else "")
    if lacks:
        raise UserError(
            f"{options.architecture.name} has {lacks}, which a table of this form cannot time",
            fix="use --perf_model roofline",
            field="--perf_table",
        )
    if table is None:
        raise UserError("table_v0 needs a latency table", fix="give its CSV file", field="--perf_table")
    rows = _read_rows(table)
    devices = {row.hardware for row in rows}
    same = {device for device in devices if plain_name(device) == plain_name(options.hardware.name)}
    of_device = [row for row in rows if row.hardware in same]
    _require(of_device, "hardware", options.hardware.name, devices, table)
    name = options.architecture.name.casefold()
    of_model = [row for row in of_device if row.model.casefold() == name]
    _require(of_model, "model", options.architecture.name, {row.model for row in of_device}, table)
    points: dict[str, _Points] = {}
    for row in of_model:
        points.setdefault(row.layer, {}).setdefault((row.tokens, row.context), row.latency)
    wanted = model_operators(options.architecture, precision=options.precision, vocabulary=SPLIT)
    return TableV0Model(_layer_tables(wanted, points, table), str(table))


def devices_of(table: Path) -> set[str]:
    """Return the devices that the CSV file `table` has rows of."""
    return {row.hardware for row in _read_rows(table)}


class _Row(NamedTuple):
    hardware: str
    model: str
    layer: str
    tokens: int
    context: int
    latency: float


def _read_rows(path: Path) -> list[_Row]:
    reader = csv.reader(io.StringIO(read_text(path, _WHAT)), skipinitialspace=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            lacks = f"the {_WHAT} lacks the column {', '.join(missing)}"
            raise UserError(lacks, fix=f"expected {','.join(COLUMNS)}", path=path, line=1)
        order = [header.index(name) for name in COLUMNS]
        pick, width = itemgetter(*order), max(order) + 1
        return [_parse_row(row, pick, width, path, reader.line_num) for row in reader if row]
    except csv.Error as error:
        raise UserError(f"the {_WHAT} is no CSV file: {error}", path=path, line=reader.line_num) from None


def _parse_row(row: list[str], pick: Callable[[list[str]], tuple[str, ...]], width: int, path: Path, line: int) -> _Row:
    if len(row) < width:
        raise UserError(f"{len(row)} columns", fix=f"expected {','.join(COLUMNS)}", path=path, line=line)
    hardware, model, layer, *numbers = pick(row)
    tokens = whole_number(numbers[0].strip(), 1, MOST_TOKENS)
    context = whole_number(numbers[1].strip(), 0, MOST_TOKENS)
    latency = decimal_number(numbers[2].strip())
    if tokens is None or context is None or latency is None or not 0 <= latency <= MOST_NS:
        raise UserError(
            f"input, kv_cache, latency are {', '.join(map(brief, numbers))}",
            fix=f"expected whole numbers from 1 and from 0 to {MOST_TOKENS}, and ns from 0 to {MOST_NS:g}",
            path=path,
            line=line,
        )
    return _Row(hardware, model, layer, tokens, context, latency)


def _require(rows: list[_Row], kind: str, name: str, known: Iterable[str], path: Path) -> None:
    if not rows:
        raise UserError(f"the {_WHAT} has no rows for {kind} {name!r}", fix=near_names(name, known), path=path)


def _layer_tables(wanted: ModelOperators, points: dict[str, _Points], path: Path) -> dict[str, list[LayerTable]]:
    """Return the tables that each operator of the model sums; all operators without any are named in one error."""
    layers: dict[str, list[LayerTable]] = {}
    missing: list[str] = []
    for operator in wanted:
        parts: tuple[str, ...] = (operator.name,)
        if operator.kind is OperatorClass.ATTENTION and operator.name not in points:
            parts = ATTENTION_PARTS
        lacking = [part for part in parts if not any(context == 0 for _, context in points.get(part, {}))]
        missing += lacking
        if not lacking:
            layers[operator.name] = [LayerTable(points[part]) for part in parts]
    if missing:
        raise UserError(
            f"the {_WHAT} has no rows (with kv_cache 0) for {', '.join(dict.fromkeys(missing))}",
            fix=f"it has {', '.join(sorted(points))}",
            path=path,
        )
    return layers
