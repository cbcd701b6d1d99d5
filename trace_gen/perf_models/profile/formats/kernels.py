"""Reads a kernel table that `orrery kernels` filled (`trace_gen.kernels.layout`)."""

from __future__ import annotations

from pathlib import Path

from foundation.errors import UserError, near_names
from foundation.printable import shorten
from trace_gen.hardware import plain_name
from trace_gen.kernels.layout import META, Meta, read_meta, read_rank
from trace_gen.mesh import Mesh
from trace_gen.model_operators import model_operators
from trace_gen.perf_model import PerfModelOptions
from trace_gen.perf_models.profile.building import FLAG
from trace_gen.perf_models.profile.formats import ProfileFormat, profile_formats
from trace_gen.perf_models.profile.kernel_tables import KernelTableModel, KernelTimes
from trace_gen.trace import OperatorClass
from trace_gen.vocabulary import VOCABULARIES


def _model(options: PerfModelOptions, folder: Path) -> KernelTableModel:
    """Return the model of the table in `folder`.

    Raises `UserError` where a file is missing or malformed, and where the table is of another device, other numbers,
    another model or other tensor-parallel degrees than what is simulated.
    """
    meta = read_meta(folder)
    _check_fits(options, folder, meta)
    times, vocabulary = KernelTimes.of(read_rank(folder, options.tensor)), VOCABULARIES[meta.vocabulary]
    operators = model_operators(options.architecture, Mesh(options.tensor), options.precision, vocabulary)
    apart = (OperatorClass.COMMUNICATION, OperatorClass.ATTENTION)
    for row in operators:
        if row.kind not in apart and row.name not in times.names:
            what = f"{folder}: no kernel is called {row.name}"
            raise UserError(what, field=FLAG, fix=near_names(row.name, sorted(times.names)))
    off = {name: (one.mean, one.most) for name, one in meta.errors.items()}
    return KernelTableModel(times, str(folder), vocabulary, (_told(folder, meta),), off)


def _told(folder: Path, meta: Meta) -> str:
    """Return what a user should know of the table: where its times come from, and how far they may be off."""
    errors = ", ".join(f"{name} {one.mean:.2g} ({one.most:.2g})" for name, one in meta.errors.items())
    return f"{folder}: filled from {meta.filled_from}; between its sizes it is off by a mean (most) of {errors} %"


def _check_fits(options: PerfModelOptions, folder: Path, meta: Meta) -> None:
    hardware, precision, path = options.hardware, options.precision, folder / META
    if plain_name(meta.hardware) not in {plain_name(hardware.name), plain_name(hardware.device)}:
        what = f"{shorten(meta.hardware)}, but {hardware.name} is simulated"
        raise UserError(what, path=path, field="hardware", fix="fill a table for this device: orrery kernels")
    if meta.model.casefold() != options.architecture.name.casefold():
        what = f"{shorten(meta.model)}, but {options.architecture.name} is simulated"
        raise UserError(what, path=path, field="model", fix="fill a table for this model: orrery kernels")
    bits = precision.weight_bits, precision.activation_bits, precision.kv_bits
    if meta.bits != bits:
        what = f"{_listed(meta.bits)} bits of weights, activations and KV cache, but {_listed(bits)} are simulated"
        raise UserError(what, path=path, field="bits", fix="fill a table with them, or give other --dtype")
    if options.tensor not in meta.tensor:
        what = f"no kernels of {options.tensor} tensor-parallel NPUs"
        raise UserError(what, path=path, field="tensor", fix=f"it has those of {_listed(meta.tensor)}")


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _recognises(path: Path) -> bool:
    return (path / META).is_file()


def _device(path: Path) -> str:
    return read_meta(path).device


profile_formats.register("kernels")(
    ProfileFormat(f"a folder with {META} (orrery kernels)", _recognises, _device, _model)
)
