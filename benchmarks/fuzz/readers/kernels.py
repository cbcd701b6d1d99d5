"""Kernel tables: read, and looked up within and outside of what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.fuzz.readers.profiles import attend, look_up
from benchmarks.fuzz.target import Target, targets
from trace_gen.batch_shape import BatchShape
from trace_gen.kernels.layout import RankTables, read_attention, read_experts, read_meta, read_operators
from trace_gen.kernels.pricing import made_of, price
from trace_gen.perf_models.profile.kernel_tables import KernelTableModel, KernelTimes
from trace_gen.vocabulary import FUSED

BATCHES: tuple[BatchShape, ...] = (made_of([], [1, 700]), made_of([(5000, 40_000), (2, 0)], [9]))


def _model(tables: RankTables) -> KernelTableModel:
    return KernelTableModel(KernelTimes.of(tables), "table", FUSED)


def _meta(path: Path) -> None:
    meta = read_meta(path.parent)
    assert all(one.mean >= 0 and one.probes > 0 for one in meta.errors.values()) and len(meta.bits) == 3


def _operators(path: Path) -> None:
    """Every kernel is found again by its shape, at a size of its own and beyond."""
    tables = RankTables(read_operators(path), {}, {})
    model = _model(tables)
    for curves in model.times.operators.values():
        for _, curve in curves:
            look_up(curve)
    for kernel, table in tables.operators.items():
        if int(table.sizes.max()) * (kernel.flops + kernel.traffic) < 2**62 and table.sizes.min() > 0:
            assert min(price(model, 1, kernel, [(int(table.sizes[0, 0]),), (int(table.sizes[-1, 0]),)])) >= 1


def _experts(path: Path) -> None:
    model = _model(RankTables({}, read_experts(path), {}))
    tokens, active = np.array([0.5, 3, 1e5]), np.array([1.5, 8, 300])
    for tables in model.times.experts.values():
        for _, lines in tables:
            assert np.isfinite(lines.at(tokens, active)).all() and lines.lookups(tokens, active).total == len(tokens)


def _attention(path: Path) -> None:
    model = _model(RankTables({}, {}, read_attention(path)))
    for shape, times in model.times.attention.items():
        attend(times)
        for batch in BATCHES:
            assert (model.attention_ns(shape, batch) >= 1).all()


targets.register("kernel_meta")(Target("kernels.yaml of a kernel table", _meta, "kernels.yaml"))
targets.register("kernel_operators")(Target("operators.csv of a kernel table", _operators, "operators.csv"))
targets.register("kernel_experts")(Target("experts.csv of a kernel table", _experts, "experts.csv"))
targets.register("kernel_attention")(Target("attention.csv of a kernel table", _attention, "attention.csv"))
