"""Any device with any model: a run has a price, or what lacks is memory, and the error says so."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from foundation.documents import read_json
from foundation.errors import UserError
from foundation.fields import Fields
from orchestrator import RunSpec, Simulation
from orchestrator.cluster.nodes import load_node, shipped_nodes
from trace_gen.architecture import ModelArchitecture
from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware, shipped_hardware
from trace_gen.mesh import Mesh
from trace_gen.models import load_model, shipped_models
from trace_gen.perf_model import PerfModelOptions, make_perf_model

SPREAD = ("gpt2", "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b", "deepseek-ai/DeepSeek-V3")
"""Of every size: one that fits anywhere, and one that no single device holds."""


@cache
def one_of_each_family() -> tuple[ModelArchitecture, ...]:
    """The first shipped model of every model_type."""
    first: dict[str, str] = {}
    for name, path in shipped_models().items():
        first.setdefault(Fields.of(read_json(path, "model configuration")).text("model_type"), name)
    return tuple(load_model(name) for name in first.values())


def mixed() -> BatchShape:
    """A chunk on a context, a prompt and two decodes."""
    new, context = np.array([64, 200, 1, 1]), np.array([500, 0, 300, 4000])
    return BatchShape(np.arange(4), new, context, np.ones(4, dtype=np.int64))


@pytest.mark.parametrize("name", sorted(shipped_hardware()))
def test_every_family_has_a_price_on_every_device(name: str) -> None:
    device = load_hardware(name)
    assert len(one_of_each_family()) > 25
    for model in one_of_each_family():
        perf = make_perf_model("roofline", PerfModelOptions(model, device))
        trace = TraceGenerator(model, Mesh(), perf).generate([mixed()])
        assert (trace.latency_ns >= 1).all() and 1e4 < trace.latency_ns.sum() < 1e11, model.name


@pytest.mark.parametrize("name", sorted(shipped_hardware()))
def test_a_run_ends_or_says_that_memory_lacks(name: str, tmp_path: Path) -> None:
    dataset = tmp_path / "one.tsv"
    dataset.write_text("20\t3\t0\n")
    ran = []
    for model in SPREAD:
        spec = RunSpec.of(model_name=model, hardware=name, dataset=str(dataset))
        try:
            ran.append(Simulation(spec).run().summary.finished_requests)
        except UserError as error:
            assert "GB an NPU" in str(error) and "give more memory or" in str(error), model
    assert ran and set(ran) == {1}, "gpt2 fits anywhere"


@pytest.mark.parametrize("name", sorted(shipped_nodes()))
def test_a_run_over_a_whole_node_ends(name: str, tmp_path: Path) -> None:
    dataset = tmp_path / "one.tsv"
    dataset.write_text("20\t2\t0\n")
    npus = load_node(name).npus
    shares = {"npu_num": npus, "npu_group": npus // 8 if npus > 16 else 2}
    spec = RunSpec.of(model_name="meta-llama/Llama-3.1-8B", node=name, dataset=str(dataset), **shares)
    assert Simulation(spec).run().summary.finished_requests == 1
