"""Tables measured on a device: read, and looked up within and outside of what they hold."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.fuzz.target import Target, targets
from trace_gen.hardware import load_hardware
from trace_gen.measured.curve import Curve
from trace_gen.measured.lines import Lines
from trace_gen.measured.reading import read_layers, read_measured
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions
from trace_gen.perf_models.profile.attention import AXES, AttentionTable, UnequalAttention
from trace_gen.perf_models.profile.formats.llmservingsim import read_meta, widths_of
from trace_gen.perf_models.profile.formats.vidur import read_attention, read_curves
from trace_gen.perf_models.profile.skew import read_skew
from trace_gen.perf_models.profile.tables import AttentionTimes, KernelSizes

SIZES = np.array([1, 3, 64, 100_000])
DECODING = np.array([[1, 700, 70_000]])


def look_up(curve: Curve) -> None:
    assert np.isfinite(times := curve.at(SIZES)).all() and (times >= 0).all()
    assert curve.lookups(SIZES).total == len(SIZES)


def attend(attention: AttentionTimes) -> None:
    """Look up prompts, decodes, and both, small and large."""
    chunks, contexts = np.array([2, 5000]), np.array([0, 40_000])
    for some, decoding in ((chunks[:0], DECODING), (chunks, DECODING[:, :0]), (chunks, DECODING)):
        sizes = KernelSizes(some, contexts[: len(some)], decoding)
        assert np.isfinite(attention.kernel_ns(sizes)).all()
        assert attention.lookups(sizes).total >= 1


def _meta(path: Path) -> None:
    widths_of(read_meta(path.parent).variant)


def _layers(path: Path) -> None:
    for table in read_layers(path, ("tokens",)).values():
        look_up(Curve.of(table.sizes[:, 0], table.times))


def _attention(path: Path) -> None:
    attend(UnequalAttention(AttentionTable(read_measured(path, AXES)), None))


def _skew(path: Path) -> None:
    def alone_ns(count: int, context: float) -> float:
        assert count >= 1
        return 10_000 + count * context

    skew = read_skew(path, alone_ns)
    excess = skew.excess_ns(3, DECODING.mean(axis=1), DECODING.max(axis=1), prompts=True)
    assert np.isfinite(excess).all() and (excess >= 0).all()


def _experts(path: Path) -> None:
    table = read_measured(path, ("tokens", "activated_experts"))
    lines = Lines(table.sizes, table.times)
    tokens, active = np.array([0.5, 3, 1e5]), np.array([1.5, 8, 300])
    assert np.isfinite(lines.at(tokens, active)).all() and lines.lookups(tokens, active).total == len(tokens)


@cache
def _options() -> PerfModelOptions:
    return PerfModelOptions(load_model("meta-llama/Llama-3.1-8B"), load_hardware("A100"))


def _vidur_operators(path: Path) -> None:
    for curve in read_curves(_options(), path).values():
        look_up(curve)


def _vidur_attention(path: Path) -> None:
    attend(read_attention(_options(), path))


targets.register("profile_meta")(Target("meta.yaml of a measured bundle", _meta, "meta.yaml"))
targets.register("profile_layers")(Target("dense.csv of a measured bundle", _layers, "dense.csv"))
targets.register("profile_attention")(Target("attention.csv of a measured bundle", _attention, "attention.csv"))
targets.register("profile_skew")(Target("skew.csv of a measured bundle", _skew, "skew.csv"))
targets.register("profile_experts")(Target("moe.csv of a measured bundle", _experts, "moe.csv"))
targets.register("vidur_operators")(Target("mlp.csv of Vidur's profiler", _vidur_operators, "mlp.csv"))
targets.register("vidur_attention")(Target("attention.csv of Vidur's profiler", _vidur_attention, "attention.csv"))
