"""Makes the performance model of tables that were read, once they have all that is simulated."""

from __future__ import annotations

from foundation.errors import UserError, near_names
from trace_gen.architecture import ModelArchitecture
from trace_gen.mesh import Mesh
from trace_gen.model_operators import ModelOperators, model_operators
from trace_gen.operators import Rows
from trace_gen.perf_model import PerfModelOptions
from trace_gen.perf_models.profile.model import INSIDE_EXPERTS, ProfileModel
from trace_gen.perf_models.profile.tables import Measured
from trace_gen.perf_models.roofline.model import RooflineModel
from trace_gen.trace import OperatorClass

FLAG = "--profile_dir"


def check_form(options: PerfModelOptions) -> None:
    """Raise a `UserError` where the model has what tables of one time an operator cannot say."""
    model = options.architecture
    what = ""
    if model.absorption is not None:
        what = "latent attention"
    elif len(model.mixtures) > 1:
        what = f"{len(model.mixtures)} kinds of mixtures of experts"
    if what:
        what = f"{model.name} has {what}, which tables of this form do not know"
        raise UserError(what, field=FLAG, fix="use --perf_model roofline")


def profile_model(options: PerfModelOptions, measured: Measured) -> ProfileModel:
    """Return the model of `measured`; tables that lack an operator of the simulated model are a `UserError`."""
    operators = model_operators(options.architecture, Mesh(options.tensor), options.precision)
    _check_operators(operators, measured)
    roofline = RooflineModel(options) if measured.roofline else None
    return ProfileModel(measured, _coldest(operators, measured, options), _expert_flops(options.architecture), roofline)


def operator_names(operators: ModelOperators) -> list[str]:
    """Return what is looked up for `operators`, each once: their names, and ``moe`` for router and experts."""
    timed = [row.name for row in operators if row.kind is not OperatorClass.COMMUNICATION]
    return list(dict.fromkeys("moe" if _is_experts(name) else name for name in timed))


def _check_operators(operators: ModelOperators, measured: Measured) -> None:
    """Refuse tables that lack one of `operators`."""
    known = {*measured.curves, *measured.roofline, "attention", *(["moe"] if measured.experts is not None else [])}
    if missing := [name for name in operator_names(operators) if name not in known]:
        what = f"{measured.source}: nothing was measured of {', '.join(missing)}"
        raise UserError(what, field=FLAG, fix=near_names(missing[0], known))


def _is_experts(name: str) -> bool:
    return name in INSIDE_EXPERTS or name.startswith("expert_")


def _coldest(operators: ModelOperators, measured: Measured, options: PerfModelOptions) -> dict[str, float]:
    """Return the shortest times (ns) of reading weights, none where a rank's weights stay in the device's cache."""
    weights = {
        row.name: row.weight_traffic_bytes
        for row in operators
        if row.kind is OperatorClass.GEMM and row.name in measured.curves and not _is_experts(row.name)
    }
    largest = max(weights, key=lambda name: weights[name], default="")
    if not largest or weights[largest] <= 2 * options.hardware.cache_bytes:
        return {}
    rate = weights[largest] / measured.curves[largest].values[0]
    return {name: size / rate for name, size in weights.items() if size}


def _expert_flops(model: ModelArchitecture) -> int:
    """Return the operations on a token in the matrices of all its experts, each of them whole; 0 without experts."""
    for block in model_operators(model).blocks:
        if grouped := [row for row in block if row.kind is OperatorClass.GROUPED_GEMM]:
            copies = model.mixtures[0].per_token
            return sum(row.flops * (copies if row.work_rows is Rows.ROUTED else 1) for row in grouped)
    return 0
