"""Kernel tables of a model of every maker: whole iterations by a table are the roofline's, and no kernel lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation.errors import UserError
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.kernels.grid import Extra, sizes_of
from trace_gen.kernels.layout import read_rank, write_rank
from trace_gen.kernels.pricing import made_of, price
from trace_gen.kernels.shapes import Limits, kernels_of
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModel, PerfModelOptions, make_perf_model
from trace_gen.perf_models.profile.kernel_tables import KernelTableModel, KernelTimes

MODELS = Path(__file__).parents[2] / "configs" / "models"
NAMES = sorted(
    str(folder.relative_to(MODELS) / sorted(folder.glob("*.json"))[0].stem)
    for folder in {path.parent for path in MODELS.glob("*/*.json")}
)
LIMITS = Limits(16, 64, 4)
BATCHES = {
    made_of([], [5, 9]): 0.005,
    made_of([(8, 0)], []): 0.005,
    made_of([(8, 16)], [20]): 0.005,
    made_of([(3, 0), (5, 7)], [60, 2]): 0.03,
}
"""Batches between a table's sizes, and the share that an iteration may be off: several prompts are added up."""


def table_of(generator: TraceGenerator, folder: Path, tensor: int) -> KernelTableModel:
    """Return a table of what `generator` generates, through files."""
    model: PerfModel = generator.perf_model
    kernels = kernels_of(generator, LIMITS)
    sizes = {kernel: sizes_of(kernel, rows, LIMITS, Extra()) for kernel, rows in kernels.items()}
    times = {kernel: dict(zip(own, price(model, tensor, kernel, own), strict=True)) for kernel, own in sizes.items()}
    write_rank(folder, tensor, times)
    return KernelTableModel(KernelTimes.of(read_rank(folder, tensor)), "table", model.vocabulary)


@pytest.mark.parametrize("name", NAMES)
def test_iterations_by_a_table_are_those_it_was_filled_from(name: str, tmp_path: Path) -> None:
    model = load_model(name)
    options = PerfModelOptions(model, load_hardware("H200"), 2)
    for expert in (1, 2) if model.mixtures else (1,):
        mesh, roofline = Mesh(2, 1, expert), make_perf_model("roofline", options)
        table = table_of(TraceGenerator(model, mesh, roofline), tmp_path, 2)
        for batch, farthest in BATCHES.items():
            times = [TraceGenerator(model, mesh, one).generate([batch]).work.latency_ns for one in (roofline, table)]
            assert times[0].shape == times[1].shape and times[0].sum() > 0
            assert times[1].sum() == pytest.approx(times[0].sum(), rel=farthest)
        counts = table.lookups.counts()
        assert counts and sum(one.measured for one in counts.values()) > 0


def test_every_maker_is_there() -> None:
    assert len(NAMES) >= 15


@pytest.mark.parametrize("mode", ["ring", "allgather"])
@pytest.mark.parametrize("name", ["meta-llama/Llama-3.1-8B", "deepseek-ai/DeepSeek-V3"])
def test_divided_sequences(name: str, mode: str, tmp_path: Path) -> None:
    """Parts of prompts are looked up as chunks of the same work."""
    model = load_model(name)
    mesh, options = Mesh(2, context=4), PerfModelOptions(model, load_hardware("H200"), 2)
    generators = [TraceGenerator(model, mesh, make_perf_model("roofline", options), context_mode=mode)]
    table = table_of(generators[0], tmp_path, 2)
    generators.append(TraceGenerator(model, mesh, table, context_mode=mode))
    for batch in (made_of([], [5, 40, 60]), made_of([(48, 0)], []), made_of([(40, 16)], [20, 30])):
        times = [generator.generate([batch]).work.latency_ns.sum() for generator in generators]
        assert times[1] == pytest.approx(times[0], rel=0.01)


def test_attention_by_request_has_no_table() -> None:
    model = load_model("gpt2")
    roofline = make_perf_model("roofline", PerfModelOptions(model, load_hardware("H200"), 2))
    generator = TraceGenerator(model, Mesh(2), roofline, attention_placement="requests")
    with pytest.raises(UserError, match="attention is placed by request"):
        kernels_of(generator, LIMITS)
