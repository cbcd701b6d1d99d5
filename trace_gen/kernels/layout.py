"""The folder of a kernel table, written and read.

    kernels.yaml           the device, the model, numbers, where times come from, how far they are off between sizes
    tp<N>/operators.csv    layer,class,arithmetic,flops_per_row,bytes_per_row,weight_bytes,rows,time_us
    tp<N>/experts.csv      layer,arithmetic,flops_per_row,bytes_per_row,expert_bytes,rows,active_experts,time_us
    tp<N>/attention.csv    layer, the fields of `AttentionShape`, prefill_chunk,kv_prefill,n_decode,kv_decode,time_us

Times are microseconds of one operator of one layer, on one of N tensor-parallel ranks. The bundle of LLMServingSim's
profiler has a row for an operator's name and no shape, so it holds neither latent attention, nor several kinds of
layers, nor whole experts on ranks, nor another performance model's names. `kernels.yaml` is written last: a folder
without it is no table.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import IO

from foundation.documents import read_yaml
from foundation.errors import UserError
from foundation.fields import Fields
from foundation.files import atomic_write
from foundation.printable import brief
from foundation.records import dataclass
from trace_gen.attention.work import AttentionShape
from trace_gen.kernels.grid import Sizes
from trace_gen.kernels.shapes import AttentionKernel, ExpertKernel, Kernel, Limits, PlainKernel
from trace_gen.measured.reading import TIME, MeasuredTable, Rows, read_rows, tables_by
from trace_gen.precision import WIDTHS, Arithmetic
from trace_gen.trace import OperatorClass
from trace_gen.vocabulary import VOCABULARIES

META = "kernels.yaml"
LAYOUT = 1
OPERATORS, EXPERTS, ATTENTION = "operators.csv", "experts.csv", "attention.csv"
ROWS_AXES, EXPERT_AXES = ("rows",), ("rows", "active_experts")
ATTENTION_AXES = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
_PLAIN_KEYS = ("flops_per_row", "bytes_per_row", "weight_bytes")
_EXPERT_KEYS = ("flops_per_row", "bytes_per_row", "expert_bytes")
_SHAPE_KEYS = tuple(AttentionShape.__dataclass_fields__)
_CLASSES = {one.name.lower(): one for one in OperatorClass}
_ARITHMETIC = {one.name.lower(): one for one in Arithmetic}
_MOST_ERROR = 1e6


@dataclass(frozen=True, slots=True)
class Error:
    """How far times between the sizes of a table are off, in per cent, over so many `probes`: mean and greatest."""

    mean: float
    most: float
    probes: int


@dataclass(frozen=True, slots=True)
class Meta:
    """What `kernels.yaml` says.

    `hardware`: the device by its own name; `device`: what ``--hardware`` takes for it. `bits`: of weights, activations
    and the KV cache. `filled_from`: the performance model of the times; `vocabulary`: whose names they have. `tensor`:
    tensor-parallel degrees. `errors`: by class of operators. `fingerprint`: of all that the times depend on.
    """

    hardware: str
    device: str
    model: str
    bits: tuple[int, int, int]
    filled_from: str
    vocabulary: str
    tensor: tuple[int, ...]
    limits: Limits
    errors: Mapping[str, Error]
    fingerprint: str


def read_meta(folder: Path) -> Meta:
    """Return what `kernels.yaml` of `folder` says; what is wrong with it is a `UserError`."""
    fields = Fields.of(read_yaml(folder / META, "kernel table"))
    fields.only((*Meta.__dataclass_fields__, "layout"))
    if fields.integer("layout") != LAYOUT and fields.sound("layout"):
        fields.problem(
            f"layout {fields.values['layout']} is not known", "layout", f"fill it again: this one is {LAYOUT}"
        )
    limits, errors = fields.object("limits", required=True), fields.object("errors", required=True)
    limits.only(Limits.__dataclass_fields__)
    bits = fields.integers("bits")
    if fields.sound("bits") and (len(bits) != 3 or any(one not in WIDTHS for one in bits)):
        fields.wrong("bits", "bits of weights, activations and the KV cache, each 4, 8, 16 or 32")
        bits = (16, 16, 16)
    meta = Meta(
        fields.text("hardware"),
        fields.text("device"),
        fields.text("model"),
        bits if len(bits) == 3 else (16, 16, 16),
        fields.text("filled_from"),
        fields.choice("vocabulary", tuple(VOCABULARIES)),
        fields.integers("tensor", low=1),
        Limits(*(limits.positive_int(name) for name in Limits.__dataclass_fields__)),
        {name: _read_error(errors.object(name)) for name in errors.names()},
        fields.text("fingerprint"),
    )
    fields.finish()
    return meta


def _read_error(fields: Fields) -> Error:
    mean, most = (fields.number(name, low=0, high=_MOST_ERROR) for name in ("mean", "most"))
    return Error(mean, most, fields.positive_int("probes"))


def write_meta(folder: Path, meta: Meta) -> None:
    """Write `kernels.yaml`, which makes the folder a table."""
    errors = {
        name: dict(zip(("mean", "most", "probes"), astuple(one), strict=True)) for name, one in meta.errors.items()
    }
    values = {
        "layout": LAYOUT,
        **{name: getattr(meta, name) for name in Meta.__dataclass_fields__},
        "limits": {name: getattr(meta.limits, name) for name in Limits.__dataclass_fields__},
        "errors": errors,
    }
    with atomic_write(folder / META) as stream:
        stream.write(
            "# Written by orrery kernels (docs/kernels.md). Errors are per cent, at sizes between the table's.\n"
        )
        stream.writelines(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


Times = Mapping[Kernel, Mapping[Sizes, int]]
"""The times (ns) of kernels by their sizes."""


def write_rank(folder: Path, tensor: int, times: Times) -> None:
    """Write the CSV files of one of `tensor` ranks."""
    files: dict[str, tuple[Sequence[str], type]] = {
        OPERATORS: (("layer", "class", "arithmetic", *_PLAIN_KEYS, *ROWS_AXES), PlainKernel),
        EXPERTS: (("layer", "arithmetic", *_EXPERT_KEYS, *EXPERT_AXES), ExpertKernel),
        ATTENTION: (("layer", *_SHAPE_KEYS, *ATTENTION_AXES), AttentionKernel),
    }
    for name, (columns, kind) in files.items():
        own = {kernel: found for kernel, found in times.items() if isinstance(kernel, kind)}
        path = folder / f"tp{tensor}" / name
        if own:
            with atomic_write(path) as stream:
                _write(stream, (*columns, TIME), own)
        else:
            path.unlink(missing_ok=True)


def _write(stream: IO[str], columns: Sequence[str], own: Times) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    rows = ((_cells(kernel), found) for kernel, found in own.items())
    for cells, found in sorted(rows, key=lambda row: row[0]):
        writer.writerows((*cells, *sizes, f"{found[sizes] / 1000:.3f}") for sizes in sorted(found))


def _cells(kernel: Kernel) -> tuple[str, ...]:
    """Return what tells `kernel` from others of its file."""
    if isinstance(kernel, AttentionKernel):
        values = (getattr(kernel.shape, name) for name in _SHAPE_KEYS)
        return (kernel.name, *(f"{0 if value is None else value:.15g}" for value in values))
    shape = (kernel.flops, kernel.traffic, kernel.weights)
    about = [Arithmetic(kernel.arithmetic).name.lower(), *(f"{value:.15g}" for value in shape)]
    if isinstance(kernel, PlainKernel):
        about.insert(0, OperatorClass(kernel.kind).name.lower())
    return (kernel.name, *about)


@dataclass(frozen=True, slots=True, eq=False)
class RankTables:
    """The tables of one rank, by kernel."""

    operators: Mapping[PlainKernel, MeasuredTable]
    experts: Mapping[ExpertKernel, MeasuredTable]
    attention: Mapping[AttentionKernel, MeasuredTable]


def read_rank(folder: Path, tensor: int) -> RankTables:
    """Return the tables of one of `tensor` ranks; a file that lacks, or is malformed, is a `UserError`."""
    rank = folder / f"tp{tensor}"
    experts = read_experts(rank / EXPERTS) if (rank / EXPERTS).exists() else {}
    return RankTables(read_operators(rank / OPERATORS), experts, read_attention(rank / ATTENTION))


def read_operators(path: Path) -> dict[PlainKernel, MeasuredTable]:
    """Return the tables of `operators.csv`; what is wrong with it is a `UserError`."""
    rows = read_rows(path, ("layer", "class", "arithmetic", *_PLAIN_KEYS, *ROWS_AXES, TIME))
    names, kinds = rows.texts("layer"), _named(rows, "class", _CLASSES)
    keys = [
        PlainKernel(name, kind, arithmetic, *map(int, shape))
        for name, kind, arithmetic, shape in zip(
            names, kinds, _named(rows, "arithmetic", _ARITHMETIC), rows.amounts(_PLAIN_KEYS).tolist(), strict=True
        )
    ]
    return tables_by(rows, keys, names, ROWS_AXES)


def read_experts(path: Path) -> dict[ExpertKernel, MeasuredTable]:
    """Return the tables of `experts.csv`; what is wrong with it is a `UserError`."""
    rows = read_rows(path, ("layer", "arithmetic", *_EXPERT_KEYS, *EXPERT_AXES, TIME))
    names, shapes = rows.texts("layer"), rows.amounts(_EXPERT_KEYS).tolist()
    keys = [
        ExpertKernel(name, arithmetic, int(flops), int(traffic), weights)
        for name, arithmetic, (flops, traffic, weights) in zip(
            names, _named(rows, "arithmetic", _ARITHMETIC), shapes, strict=True
        )
    ]
    return tables_by(rows, keys, names, EXPERT_AXES)


def read_attention(path: Path) -> dict[AttentionKernel, MeasuredTable]:
    """Return the tables of `attention.csv`; what is wrong with it is a `UserError`."""
    rows = read_rows(path, ("layer", *_SHAPE_KEYS, *ATTENTION_AXES, TIME))
    names, values = rows.texts("layer"), [tuple(row) for row in rows.amounts(_SHAPE_KEYS).tolist()]
    shapes = {one: _shape(one) for one in set(values)}
    keys = [AttentionKernel(name, shapes[one]) for name, one in zip(names, values, strict=True)]
    return tables_by(rows, keys, names, ATTENTION_AXES)


def _shape(values: Sequence[float]) -> AttentionShape:
    given = dict(zip(_SHAPE_KEYS, values, strict=True))
    query_heads, kv_heads = given.pop("query_heads"), given.pop("kv_heads")
    whole = {name: int(value) for name, value in given.items()}
    chunked, window = bool(whole.pop("chunked")), whole.pop("window") or None
    return AttentionShape(query_heads, kv_heads, chunked=chunked, window=window, **whole)


def _named(rows: Rows, column: str, known: Mapping[str, int]) -> list[int]:
    """Return what the names in `column` stand for; one that nobody knows is a `UserError` with its line."""
    found = []
    for line, name in zip(rows.lines, rows.texts(column), strict=True):
        if name not in known:
            raise UserError(
                brief(name), path=rows.path, line=line, field=column, fix=f"expected one of {', '.join(known)}"
            )
        found.append(int(known[name]))
    return found
