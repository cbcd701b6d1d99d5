"""Compare the roofline with measured kernel times: ``python -m benchmarks.roofline_accuracy PROFILE... --hardware H``.

PROFILE is a folder with ``model_config.json`` and ``profile/tp<N>/{dense,per_sequence,attention}.csv`` (the bundles
that LLMServingSim's profiler writes; of a mixture of experts also ``moe.csv``, the router and experts together). Prints
the mean and the 90th percentile of the absolute logarithmic error and the bias, by operator.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.commands import run_command
from trace_gen.architecture import ModelArchitecture
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import Hardware, load_hardware
from trace_gen.mesh import Mesh
from trace_gen.mlp.routing import BalancedRouting, ExpertSpread
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.trace import OperatorClass

Errors = dict[str, list[float]]
GEMMS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "fc1", "fc2", "lm_head")


def measured_errors(folder: Path, hardware: Hardware, tensor: int, sample: int, perf_model: str = "roofline") -> Errors:
    """Return ``log(predicted / measured)`` of every measured kernel, at most `sample` of attention, by operator."""
    architecture = load_model(str(folder / "model_config.json"))
    perf = make_perf_model(perf_model, PerfModelOptions(architecture, hardware, tensor))
    predict = TraceGenerator(architecture, Mesh(tensor), perf)
    errors: Errors = defaultdict(list)
    profile = folder / "profile" / f"tp{tensor}"
    for name, tokens, measured in _linear_rows(profile, architecture):
        trace = predict.generate([_batch([tokens], [0]) if name not in ("lm_head", "sampler") else _decodes(tokens, 1)])
        errors[name].append(np.log(_latency(trace.op_names, trace.op, trace.latency_ns, name) / measured))
    rows = _read(profile / "attention.csv")
    chosen = np.random.default_rng(0).permutation(len(rows))[:sample]
    for index in sorted(chosen.tolist()):
        chunk, past, decodes, context, measured = (float(value) for value in rows[index].values())
        new = [int(chunk)] * (chunk > 0) + [1] * int(decodes)
        before = [int(past)] * (chunk > 0) + [int(context)] * int(decodes)
        trace = predict.generate([_batch(new, before)])
        kind = "decode" if not chunk else "mixed" if decodes else "prefill"
        latency = _latency(trace.op_names, trace.op, trace.latency_ns, "attention")
        errors[f"attention, {kind}"].append(np.log(latency / measured / 1e3))
    errors |= {"experts": experts} if (experts := _expert_errors(profile, predict)) else {}
    return errors


class _Activated(BalancedRouting):
    """Routing that activates as many experts as were measured."""

    def __init__(self, activated: int) -> None:
        self.activated = activated

    def activated_share(self, spread: ExpertSpread, tokens: int) -> float:
        """See `BalancedRouting.activated_share`."""
        return self.activated / spread.experts.count


def _expert_errors(profile: Path, predict: TraceGenerator) -> list[float]:
    """Return the errors of router and experts together; none where nothing was measured."""
    model, errors = predict.architecture, []
    for row in _read(profile / "moe.csv") if model.mixtures and (profile / "moe.csv").is_file() else []:
        routing = _Activated(int(row["activated_experts"]))
        fixed = TraceGenerator(model, predict.mesh, predict.perf_model, routing=routing)
        trace = fixed.generate([_batch([int(row["tokens"])], [0])])
        operators = ("router", *(name for name in trace.op_names if name.startswith("expert_")))
        latency = sum(_latency(trace.op_names, trace.op, trace.latency_ns, name) for name in operators)
        errors.append(np.log(latency / float(row["time_us"]) / 1e3))
    return errors


def kernel_errors(
    folder: Path, hardware: Hardware, tensor: int, sample: int
) -> dict[OperatorClass, NDArray[np.float64]]:
    """Return the same errors by operator class."""
    classes: dict[OperatorClass, list[float]] = defaultdict(list)
    for name, values in measured_errors(folder, hardware, tensor, sample).items():
        classes[_class_of(name)] += values
    return {kind: np.array(values) for kind, values in classes.items()}


def _class_of(name: str) -> OperatorClass:
    if name.startswith("attention"):
        return OperatorClass.ATTENTION
    special = {"embedding": OperatorClass.EMBEDDING, "sampler": OperatorClass.SAMPLER}
    special["experts"] = OperatorClass.GROUPED_GEMM
    return OperatorClass.GEMM if name in GEMMS else special.get(name, OperatorClass.ELEMENTWISE)


def _linear_rows(profile: Path, architecture: ModelArchitecture) -> Iterator[tuple[str, int, float]]:
    for file, size in (("dense.csv", "tokens"), ("per_sequence.csv", "sequences")):
        for row in _read(profile / file):
            yield row["layer"], int(row[size]), float(row["time_us"]) * 1e3


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _latency(names: tuple[str, ...], op: NDArray[np.int32], latency: NDArray[np.int64], name: str) -> int:
    return int(latency[0, np.argmax(op == names.index(name))])


def _decodes(count: int, context: int) -> BatchShape:
    return _batch([1] * count, [context] * count)


def _batch(new: list[int], context: list[int]) -> BatchShape:
    count = len(new)
    ids = np.arange(count, dtype=np.int64)
    new_tokens, context_tokens = (np.array(values, dtype=np.int64) for values in (new, context))
    return BatchShape(ids, new_tokens, context_tokens, samples=np.ones(count, dtype=np.int64))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0], allow_abbrev=False)
    parser.add_argument("profile", nargs="+", type=Path)
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--tensor", type=int, nargs="+", default=[1], help="tensor-parallel degrees (default: 1)")
    parser.add_argument("--sample", type=int, default=3000, help="attention rows compared a profile (default: 3000)")
    parser.add_argument("--perf_model", default="roofline", help="what is compared (default: roofline)")
    arguments = parser.parse_args()
    errors: Errors = defaultdict(list)
    for folder in arguments.profile:
        for tensor in arguments.tensor:
            found = measured_errors(
                folder, load_hardware(arguments.hardware), tensor, arguments.sample, arguments.perf_model
            )
            for name, values in found.items():
                errors[name] += values
    print(f"{'operator':24}{'rows':>7}{'mean |error|':>14}{'P90':>8}{'bias':>8}")
    for name in sorted(errors):
        found_here = np.array(errors[name])
        mean, high, bias = np.abs(found_here).mean(), np.quantile(np.abs(found_here), 0.9), found_here.mean()
        print(f"{name:24}{len(found_here):7}{mean:13.1%}{high:9.1%}{bias:8.1%}")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
