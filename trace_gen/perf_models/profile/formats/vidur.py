"""Reads a folder of tables that Vidur's profiler wrote, as it is.

    mlp.csv         time_stats.OP.median (ms) of an operator of one layer over num_tokens
    attention.csv   time_stats.attn_prefill.median over prefill_chunk_size and kv_cache_size of one prompt,
                    time_stats.attn_decode.median over batch_size and kv_cache_size of each request,
                    time_stats.attn_kv_cache_save.median over the tokens of either (older files lack it)

Both have rows for several models and numbers of tensor-parallel ranks; those of the simulated model's sizes are taken
(n_embd, heads, n_expanded_embd; not the vocabulary, which Vidur pads). Where a size was measured twice, as the real
files have it, the mean holds. A norm takes the mean of input_layernorm and post_attention_layernorm and one residual
addition; prompts are looked up one by one, decodes at their mean context, and all of attention's parts are summed.
Vidur measures in 16 bits, no LM head and no sampler: the roofline times these two.

Source of the format: vidur/profiling and vidur/execution_time_predictor of github.com/microsoft/vidur (2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.errors import UserError
from foundation.printable import shorten
from foundation.records import dataclass
from trace_gen.architecture import ModelArchitecture
from trace_gen.measured.curve import Curve
from trace_gen.measured.lines import Lines
from trace_gen.measured.lookups import LookupCounts
from trace_gen.measured.reading import WHAT, Rows, read_header, read_rows
from trace_gen.perf_model import PerfModelOptions
from trace_gen.perf_models.profile.building import FLAG, check_form, profile_model
from trace_gen.perf_models.profile.dimensions import grouped_sizes
from trace_gen.perf_models.profile.formats import ProfileFormat, profile_formats
from trace_gen.perf_models.profile.model import ProfileModel
from trace_gen.perf_models.profile.tables import KernelSizes, Measured

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
DEGREE = "num_tensor_parallel_workers"
NAMES = {
    "emb": ("embedding",),
    "attn_pre_proj": ("qkv_proj",),
    "attn_rope": ("rotary_emb",),
    "attn_post_proj": ("o_proj",),
    "mlp_up_proj": ("gate_up_proj", "fc1"),
    "mlp_act": ("act_fn",),
    "mlp_down_proj": ("down_proj", "fc2"),
    "input_layernorm": ("final_layernorm",),
}
"""What Vidur's operators are called here; of two names a model has one."""
NORMS = ("input_layernorm", "post_attention_layernorm")
ADD = "add"
UNMEASURED = frozenset({"lm_head", "sampler"})


@dataclass(frozen=True, slots=True, eq=False)
class SeparateAttention:
    """`AttentionTimes` of kernels of their own for prompts, for decodes, and for what is put into the KV cache."""

    prompts: Lines
    decodes: Lines
    saves: Curve | None

    def kernel_ns(self, sizes: KernelSizes) -> FloatArray:
        """See `AttentionTimes.kernel_ns`."""
        steps, count = sizes.decoding.shape
        total = np.zeros(steps)
        if len(sizes.chunks):
            total += self.prompts.at(sizes.chunks, sizes.contexts).sum()
        if count:
            total += self.decodes.at(np.full(steps, count), sizes.mean_context())
        if self.saves is not None:
            total += self.saves.at(np.array([sizes.chunks.sum() + count]))
        return total

    def lookups(self, sizes: KernelSizes) -> LookupCounts:
        """See `AttentionTimes.lookups`."""
        steps, count = sizes.decoding.shape
        found = LookupCounts()
        if len(sizes.chunks):
            found.add(self.prompts.lookups(sizes.chunks, sizes.contexts))
        if count:
            found.add(self.decodes.lookups(np.full(steps, count), sizes.mean_context()))
        return found


def _model(options: PerfModelOptions, folder: Path) -> ProfileModel:
    """Return the model of the tables in `folder`; what is malformed, or does not fit, is a `UserError`."""
    check_form(options)
    precision = options.precision
    if (precision.weight_bits, precision.kv_bits) != (16, 16):
        what = (
            f"Vidur measures in 16 bits, not weights of {precision.weight_bits} and a KV cache of {precision.kv_bits}"
        )
        raise UserError(what, path=folder, field=FLAG, fix="use --perf_model roofline, or leave --dtype out")
    measured = Measured(
        source=str(folder),
        curves=read_curves(options, folder / "mlp.csv"),
        attention=read_attention(options, folder / "attention.csv"),
        whole_attention=lambda: read_attention(replace(options, tensor=1), folder / "attention.csv"),
        roofline=UNMEASURED,
        notes=(
            f"{folder}: Vidur's tables name no device, and are taken for {options.hardware.name}'s; the roofline times "
            "LM head and sampler, which are not in them",
        ),
    )
    return profile_model(options, measured)


def read_curves(options: PerfModelOptions, path: Path) -> dict[str, Curve]:
    """Return the times over tokens in ``mlp.csv``, by our operators' names."""
    model = options.architecture
    header = read_header(path)
    norms = [op for op in NORMS if _median(op) in header]
    ops = [*dict.fromkeys([*NAMES, *norms, ADD])]
    wanted = {
        **_named(model, {"n_head": "num_attention_heads", "n_kv_head": "num_key_value_heads"}),
        **_named(model, {"n_expanded_embd": "intermediate_size"}),
        "n_embd": model.hidden_size,
        DEGREE: options.tensor,
    }
    rows = _of_model(read_rows(path, (*map(_median, ops), "num_tokens", *wanted)), wanted, model)
    tokens = rows.sizes(("num_tokens",))
    times = dict(zip(ops, rows.times([*map(_median, ops)], "milliseconds").T * 1e6, strict=True))
    curves = {name: _curve(tokens, times[op]) for op, names in NAMES.items() for name in names}
    norm = np.mean([times[op] for op in norms], axis=0) + times[ADD]
    return {**curves, "layernorm": _curve(tokens, norm)}


def read_attention(options: PerfModelOptions, path: Path) -> SeparateAttention:
    """Return the times in ``attention.csv``."""
    model = options.architecture
    heads = _named(model, {"n_q_head": "num_attention_heads", "n_kv_head": "num_key_value_heads"})
    wanted = {**heads, "n_embd": model.hidden_size, DEGREE: options.tensor}
    sizes = ("prefill_chunk_size", "batch_size", "kv_cache_size")
    medians = {op: _median(f"attn_{op}") for op in ("prefill", "decode", "kv_cache_save")}
    header = read_header(path)
    if medians["kv_cache_save"] not in header:
        del medians["kv_cache_save"]
    kinds = [name for name in ("attention_backend", "block_size") if name in header]
    rows = _of_model(read_rows(path, (*medians.values(), *sizes, *wanted, *kinds)), wanted, model)
    for kind in kinds:
        if len(several := sorted({*rows.texts(kind)})) > 1:
            what, fix = f"rows of {' and '.join(map(shorten, several[:3]))}", "leave those of one in"
            raise UserError(what, path=path, field=kind, fix=fix)
    chunk, batch, context = rows.sizes(sizes).T
    saves = None
    if "kv_cache_save" in medians:
        saved = rows.amounts((medians["kv_cache_save"],))[:, 0] * 1e6
        saves = _curve(np.maximum(chunk, batch)[:, None], saved)
    return SeparateAttention(
        _lines(rows, np.flatnonzero(chunk > 0), chunk, context, medians["prefill"], "prompts"),
        _lines(rows, np.flatnonzero(chunk == 0), batch, context, medians["decode"], "decodes"),
        saves,
    )


def _lines(rows: Rows, own: IntArray, first: IntArray, context: IntArray, column: str, what: str) -> Lines:
    """Return the times in `column` of the rows `own`, over `first` and `context`."""
    if not len(own):
        raise UserError(f"the {WHAT} has no {what} of this model", path=rows.path, fix="measure them, too")
    times = rows.only(own.tolist()).times((column,), "milliseconds")[:, 0] * 1e6
    return Lines(*_averaged(np.stack([first[own], context[own]], axis=1), times))


def _named(model: ModelArchitecture, names: Mapping[str, str]) -> dict[str, int]:
    """Return the model's sizes by the names of columns; those that a model lacks are not compared."""
    known = grouped_sizes(model)
    return {column: known[name] for column, name in names.items() if name in known}


def _of_model(rows: Rows, wanted: Mapping[str, int], model: ModelArchitecture) -> Rows:
    """Return the rows of the model's sizes on as many ranks; none are a `UserError` that says what there is."""
    values = rows.sizes(tuple(wanted))
    asked = np.array(list(wanted.values()))
    own = np.flatnonzero((values == asked).all(axis=1))
    if len(own):
        return rows.only(own.tolist())
    of_model = (values[:, :-1] == asked[:-1]).all(axis=1)
    if of_model.any():
        known = ", ".join(map(str, np.unique(values[of_model, -1]).tolist()))
        what = f"nothing was measured for {wanted[DEGREE]} tensor-parallel NPUs"
        raise UserError(what, path=rows.path, field="--npu_num", fix=f"measured: {known}")
    shown = ", ".join(f"{name} {size}" for name, size in wanted.items() if name != DEGREE)
    raise UserError(f"no rows of {model.name} ({shown})", path=rows.path, fix="give the tables of this model")


def _median(op: str) -> str:
    return f"time_stats.{op}.median"


def _curve(sizes: IntArray, times: FloatArray) -> Curve:
    """Return the curve of times at `sizes` ``[n, 1]``."""
    known, means = _averaged(sizes, times)
    return Curve.of(known[:, 0], means)


def _averaged(sizes: IntArray, times: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return each row of `sizes` ``[n, axes]`` once, and the mean of its times."""
    known, own = np.unique(sizes, axis=0, return_inverse=True)
    own = own.ravel()
    return known, np.bincount(own, times) / np.bincount(own)


def _recognises(path: Path) -> bool:
    tables: Sequence[Path] = (path / "mlp.csv", path / "attention.csv")
    if not all(table.is_file() for table in tables):
        return False
    try:
        return any(name.startswith("time_stats.") for name in read_header(tables[0]))
    except UserError:
        return False


def _device(_: Path) -> None:
    return None


profile_formats.register("vidur")(
    ProfileFormat("a folder with mlp.csv and attention.csv (Vidur)", _recognises, _device, _model)
)
