"""What is measured of a model, as the tables that will hold it: each row is its cells, and the work that is timed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from foundation.records import dataclass
from profiler.grids import Grids
from profiler.shapes import rank_kernels
from profiler.work import Kernel, Work
from trace_gen.architecture import ModelArchitecture
from trace_gen.precision import Precision
from trace_gen.vocabulary import FUSED, SPLIT

PER_SEQUENCE = ("lm_head", "logit_softcap", "sampler")
"""What works on the sequences whose logits are needed, not on every token."""
DENSE_COLUMNS, SEQUENCE_COLUMNS = "layer,tokens,time_us", "layer,sequences,time_us"
ATTENTION_COLUMNS = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"
EXPERT_COLUMNS = "tokens,activated_experts,time_us"
V0_COLUMNS = "hardware,model,layer_name,input,kv_cache,latency(ns)"
Cells = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One CSV file: its `path` in the output folder, `columns`, the last of which is the time, and rows.

    `in_ns`: times are whole nanoseconds, else microseconds.
    """

    path: str
    columns: str
    rows: tuple[tuple[Cells, Work], ...]
    in_ns: bool = False


def plan(
    model: ModelArchitecture, degrees: Sequence[int], grids: Grids, precision: Precision, hardware: str
) -> tuple[Table, ...]:
    """Return the tables of a bundle for `degrees` of tensor parallelism, and that of v0.2.1 where it can say the model.

    `hardware`: what the device is called in that. Raises `UserError` for what cannot be measured.
    """
    tables = [table for degree in degrees for table in _rank(model, degree, grids, precision)]
    if model.mixtures:
        kernel = rank_kernels(model, 1, precision, FUSED)["moe"]
        one = model.mixtures[0]
        rows = [(sizes, Work(kernel, sizes)) for sizes in grids.experts(one.count, one.per_token)]
        tables.append(Table("tp1/moe.csv", EXPERT_COLUMNS, tuple(rows)))
    else:
        rows_v0 = tuple(_v0_rows(model, grids, precision, hardware))
        tables.append(Table(f"{hardware}.csv", V0_COLUMNS, rows_v0, in_ns=True))
    return tuple(tables)


def works(tables: Iterable[Table]) -> list[Work]:
    """Return everything to time, each once, in the order of the tables."""
    return list(dict.fromkeys(work for table in tables for _, work in table.rows))


def _rank(model: ModelArchitecture, degree: int, grids: Grids, precision: Precision) -> Iterator[Table]:
    kernels = dict(rank_kernels(model, degree, precision, FUSED))
    kernels.pop("moe", None)
    attention = kernels.pop("attention")
    heads = {name: kernel for name, kernel in sorted(kernels.items()) if name in PER_SEQUENCE}
    dense = {name: kernel for name, kernel in sorted(kernels.items()) if name not in heads}
    folder = f"tp{degree}"
    yield Table(f"{folder}/dense.csv", DENSE_COLUMNS, tuple(_over(dense, grids.tokens())))
    yield Table(f"{folder}/per_sequence.csv", SEQUENCE_COLUMNS, tuple(_over(heads, grids.sequences())))
    rows = tuple((sizes, Work(attention, sizes)) for sizes in grids.attention())
    yield Table(f"{folder}/attention.csv", ATTENTION_COLUMNS, rows)


def _over(kernels: dict[str, Kernel], sizes: Sequence[int]) -> Iterator[tuple[Cells, Work]]:
    for name, kernel in kernels.items():
        for size in sizes:
            yield (name, size), Work(kernel, (size,))


def _v0_rows(
    model: ModelArchitecture, grids: Grids, precision: Precision, hardware: str
) -> Iterator[tuple[Cells, Work]]:
    """Yield the rows of v0.2.1's table: whole operators of one device, attention a request."""
    for name, kernel in rank_kernels(model, 1, precision, SPLIT).items():
        named = (hardware, model.name, name)
        if kernel.name == "attention":
            for tokens in sorted({*grids.chunks(), *grids.contexts()}):
                yield (*named, tokens, 0), Work(kernel, (tokens, 0, 0, 0))
            for context in grids.contexts():
                yield (*named, 1, context), Work(kernel, (0, 0, 1, context))
            continue
        sizes = grids.sequences() if name in PER_SEQUENCE else grids.tokens()
        for size in sizes:
            yield (*named, size, 0), Work(kernel, (size,))
        if name == "rope":
            for context in grids.contexts():
                yield (*named, 1, context), Work(kernel, (1,))
