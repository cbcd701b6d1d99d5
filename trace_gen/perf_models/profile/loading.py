"""Makes the performance model of a folder of measured tables, once they fit what is simulated."""

from __future__ import annotations

from pathlib import Path

from foundation.errors import UserError, near_names
from trace_gen.hardware import plain_name
from trace_gen.mesh import Mesh
from trace_gen.model_operators import ModelOperators, model_operators
from trace_gen.perf_model import PerfModelOptions
from trace_gen.perf_models.profile.bundle import Measured, Meta, read_measured_rank, read_meta, widths_of
from trace_gen.perf_models.profile.model import INSIDE_EXPERTS, ProfileModel
from trace_gen.trace import OperatorClass

_FLAG = "--profile_dir"


def load_profile(options: PerfModelOptions, folder: Path) -> ProfileModel:
    """Return the model of the tables in `folder`.

    Raises `UserError` where a file is missing or malformed, and where the tables are of another device, other numbers,
    other operators or tensor-parallel degrees than what is simulated.
    """
    meta = read_meta(folder)
    _check_fits(options, meta)
    mixture = bool(options.architecture.mixtures)
    measured = read_measured_rank(folder, meta, options.tensor, experts=mixture)
    operators = model_operators(options.architecture, Mesh(options.tensor), options.precision)
    _check_operators(operators, measured, folder, mixture)
    return ProfileModel(measured, _coldest(operators, measured, options), str(folder))


def _check_fits(options: PerfModelOptions, meta: Meta) -> None:
    hardware, precision = options.hardware, options.precision
    names = {plain_name(hardware.name), plain_name(hardware.device)}
    if plain_name(meta.hardware) not in names:
        raise UserError(
            f"{meta.hardware}, but {hardware.name} is simulated",
            path=meta.path,
            field="hardware",
            fix="give --hardware, or tables that were measured on it",
        )
    if options.architecture.absorption is not None:
        what = f"{options.architecture.name} has latent attention, which tables of this form do not know"
        raise UserError(what, field=_FLAG, fix="use --perf_model roofline")
    widths = widths_of(meta.variant)
    if widths is not None and widths != (precision.weight_bits, precision.kv_bits):
        raise UserError(
            f"{meta.variant!r}, but weights of {precision.weight_bits} bits and a KV cache of {precision.kv_bits} bits "
            "are simulated",
            path=meta.path,
            field="variant",
            fix="give tables that were measured with these, or other --dtype and --kv_cache_dtype",
        )


def _check_operators(operators: ModelOperators, measured: Measured, folder: Path, mixture: bool) -> None:
    """Refuse tables that lack an operator of the model, or whose catalogue has another one."""
    known = {*measured.dense, *measured.per_sequence, "attention", *(["moe"] if mixture else [])}
    timed = [row.name for row in operators if row.kind is not OperatorClass.COMMUNICATION]
    wanted = dict.fromkeys("moe" if _is_experts(name) else name for name in timed)
    if missing := [name for name in wanted if name not in known]:
        what = f"nothing was measured of {', '.join(missing)}"
        raise UserError(what, path=folder, field=_FLAG, fix=near_names(missing[0], known))
    if measured.sequence and (other := [name for name in measured.sequence if name not in wanted]):
        what = f"the block catalogue has {', '.join(other)}, which the model has not"
        raise UserError(what, path=folder, field=_FLAG, fix="give the tables of this model")


def _is_experts(name: str) -> bool:
    return name in INSIDE_EXPERTS or name.startswith("expert_")


def _coldest(operators: ModelOperators, measured: Measured, options: PerfModelOptions) -> dict[str, float]:
    """Return the shortest times (ns) of reading weights, none where a rank's weights stay in the device's cache."""
    weights = {row.name: row.weight_traffic_bytes for row in operators if row.kind is OperatorClass.GEMM}
    largest = max(weights, key=lambda name: weights[name])
    curve = measured.per_sequence.get(largest) or measured.dense.get(largest)
    if curve is None or weights[largest] <= 2 * options.hardware.cache_bytes:
        return {}
    rate = weights[largest] / curve.values[0]
    return {name: size / rate for name, size in weights.items() if size and not _is_experts(name)}
