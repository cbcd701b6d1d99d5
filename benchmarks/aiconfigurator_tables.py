"""How far our roofline is from aiconfigurator's measured kernels, and interpolation between its rows from the rows.

    python -m benchmarks.aiconfigurator_tables [--hardware NAME ...]        (needs the extra `aiconfigurator`)

First, by device and class of operators, over the operators of four models on 1 to 8 ranks and over batches from one
decode to long prompts: roofline / table (the median; 0.8: the roofline takes four fifths of the time), and the mean
absolute logarithmic error. Then, by device, matrix products of every second width are left out of the table and asked
for: by ratios to a base, as `trace_gen.perf_models.aiconfigurator` has it, and on straight lines between the widths
beside.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np

from foundation.commands import run_command
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import HARDWARE_FOLDER, load_hardware
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.perf_models.aiconfigurator.files import open_system
from trace_gen.perf_models.aiconfigurator.matrices import MatrixTimes
from trace_gen.perf_models.aiconfigurator.model import AiconfiguratorModel
from trace_gen.trace import OperatorClass

MODELS = ("meta-llama/Llama-3.1-8B", "facebook/opt-6.7b", "mistralai/Mixtral-8x7B-v0.1", "deepseek-ai/DeepSeek-V3")
RANKS = (1, 2, 8)
PROMPTS = ((128, 1), (512, 1), (512, 8), (2048, 1), (2048, 4), (8192, 1))
DECODES = tuple((count, context) for count in (1, 8, 32, 128, 256) for context in (128, 1024, 4096))
Errors = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [
        path.stem for path in sorted(HARDWARE_FOLDER.glob("*.json")) if load_hardware(path.stem).aiconfigurator_system
    ]
    parser.add_argument("--hardware", nargs="+", default=known, choices=known)
    wanted = parser.parse_args()
    print(f"{'device':14}{'operators':26}{'cases':>7}{'roofline / table':>18}{'mean |error|':>14}")
    for hardware in wanted.hardware:
        for name, errors in sorted(against_roofline(hardware).items()):
            print(
                f"{hardware:14}{name:26}{len(errors):7}{np.exp(np.median(errors)):18.2f}{np.abs(errors).mean():14.1%}"
            )
    print(f"\n{'device':14}{'left out':>14}{'by ratios':>12}{'P90':>8}{'by lines':>12}{'P90':>8}")
    for hardware in wanted.hardware:
        ratios, lines = left_out(hardware)
        shown = "".join(f"{np.mean(found):12.1%}{np.quantile(found, 0.9):8.1%}" for found in (ratios, lines))
        print(f"{hardware:14}{len(ratios):14}{shown}")


def against_roofline(hardware: str) -> Errors:
    """Return the logarithms of roofline / table by class of operators, of those that a table has."""
    errors: Errors = defaultdict(list)
    for name in MODELS:
        model = load_model(name)
        for ranks in RANKS:
            options = PerfModelOptions(model, load_hardware(hardware), ranks)
            tables, roofline = (make_perf_model(kind, options) for kind in ("aiconfigurator", "roofline"))
            assert isinstance(tables, AiconfiguratorModel)
            for kind, batch in batches():
                both = []
                with tables.lookups.apart() as counts:
                    for perf in (tables, roofline):
                        trace = TraceGenerator(model, Mesh(ranks), perf).generate([batch])
                        both.append(trace)
                known = {what for what, count in counts.items() if count.total}
                collect(errors, kind, known, *both)
    return errors


def collect(errors: Errors, kind: str, known: set[str], tables, roofline) -> None:  # type: ignore[no-untyped-def]
    """Add what one batch shows: each of a class's operators once, experts together."""
    seen, together = set(), np.zeros(2)
    for row, place in enumerate(tables.op.tolist()):
        name, operator_class = tables.op_names[place], tables.operator_class[row]
        times = np.array([roofline.latency_ns[0, row], tables.latency_ns[0, row]], dtype=np.float64)
        if name.startswith("expert_") and "experts" in known:
            together += times
        elif name in known and (name, times[0]) not in seen:
            seen.add((name, times[0]))
            what = {int(OperatorClass.ATTENTION): "attention", int(OperatorClass.GEMM): "matrix products"}
            if int(operator_class) in what:
                errors[f"{what[int(operator_class)]}, {kind}"].append(float(np.log(times[0] / times[1])))
    if together.all():
        errors[f"experts, {kind}"].append(float(np.log(together[0] / together[1])))


def batches() -> list[tuple[str, BatchShape]]:
    """Return prompts and decodes, as batches."""
    prompts = [("prompts", BatchShape(*_columns(count, size, 0))) for size, count in PROMPTS]
    return prompts + [("decodes", BatchShape(*_columns(count, 1, context))) for count, context in DECODES]


def _columns(count: int, new: int, context: int):  # type: ignore[no-untyped-def]
    every = np.ones(count, dtype=np.int64)
    return np.arange(count), every * new, every * context, every


def left_out(hardware: str) -> tuple[list[float], list[float]]:
    """Return the absolute errors of every second width of matrix products in bfloat16, by ratios and by lines."""
    device = load_hardware(hardware)
    system = open_system(None, device.aiconfigurator_system or "", "vllm")
    kernels = next(system.read("gemm", "gemm_perf", ("m", "n", "k"), ("gemm_dtype",)))
    kernels = kernels.where(gemm_dtype="bfloat16")
    widths = np.unique(kernels.sizes["n"])
    asked = np.isin(kernels.sizes["n"], widths[1:-1:2])
    kept = kernels.only(~asked)
    table = MatrixTimes(kept, device.peak_flops["bf16"], device.memory_bandwidth, 2.0)
    times = {tuple(row): time for *row, time in zip(*(kept.sizes[side] for side in "nkm"), kept.times, strict=True)}
    own, ratios, lines = kernels.only(asked), [], []
    rows = zip(own.sizes["m"].tolist(), own.sizes["n"].tolist(), own.sizes["k"].tolist(), own.times, strict=True)
    for m, n, k, measured in list(rows)[::7]:
        place = int(np.searchsorted(widths, n))
        low, high = int(widths[place - 1]), int(widths[place + 1])
        beside = [times.get((side, k, m)) for side in (low, high)]
        if beside[0] and beside[1]:
            line = beside[0] + (beside[1] - beside[0]) * (n - low) / (high - low)
            lines.append(abs(float(np.log(line / measured))))
            ratios.append(abs(float(np.log(table.time_ns(m, n, k)[0] / measured))))
    return ratios, lines


if __name__ == "__main__":
    raise SystemExit(run_command(main))
