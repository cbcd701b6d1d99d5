"""`TimesAttention`: the time of attention alone is that of its rows in a trace."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.small_profile import bundle, small_model
from hypothesis import given, settings
from trace_cases import batch, batches, decodes, make_generator, model

from trace_gen.batch_shape import BatchShape
from trace_gen.generator import TraceGenerator
from trace_gen.hardware import load_hardware
from trace_gen.mesh import Mesh
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModel, PerfModelOptions, TimesAttention, make_perf_model
from trace_gen.trace import OperatorClass

ROOFLINES = {
    f"{name} on {hardware}": make_generator(model(name), hardware=hardware)
    for name in ("meta-llama/Llama-3.1-8B", "gpt2", "gpt-oss-20b")
    for hardware in ("RTX3090", "H100")
}


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> TraceGenerator:
    architecture = load_model(small_model(tmp_path_factory.mktemp("model")))
    options = PerfModelOptions(architecture, load_hardware("RTX4090"))
    perf = make_perf_model("profile", options, profile_dir=bundle(tmp_path_factory.mktemp("bundle")))
    return TraceGenerator(architecture, Mesh(), perf)


def attention_rows(generator: TraceGenerator, shape: BatchShape) -> np.ndarray:
    """Return the times of a layer of each kind, ``[k, kinds]``."""
    trace = generator.generate([shape])
    attention = np.flatnonzero(trace.operator_class == OperatorClass.ATTENTION)
    layers = generator.architecture.layers
    first = [layers.index(kind) for kind in generator.architecture.layer_kinds]
    return trace.latency_ns[:, attention[first]]


def alone(generator: TraceGenerator, shape: BatchShape) -> np.ndarray:
    perf: PerfModel = generator.perf_model
    assert isinstance(perf, TimesAttention)
    shapes = [
        one
        for kind in generator.architecture.layer_kinds
        for one in kind.attention.shapes(generator.mesh.tensor, generator.precision).values()
    ]
    return np.stack([perf.attention_ns(one, shape) for one in shapes], axis=1)


@pytest.mark.parametrize("name", ROOFLINES)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(mixed=batches, contexts=decodes)
def test_the_roofline(name: str, mixed: BatchShape, contexts: list[int]) -> None:
    growing = batch([1] * len(contexts), contexts, steps=5)
    for shape in (mixed, growing):
        assert (alone(ROOFLINES[name], shape) == attention_rows(ROOFLINES[name], shape)).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(mixed=batches, contexts=decodes)
def test_a_profile_which_counts_its_lookups(profiled: TraceGenerator, mixed: BatchShape, contexts: list[int]) -> None:
    perf = profiled.perf_model
    growing = batch([1] * len(contexts), contexts, steps=5)
    for shape in (mixed, growing):
        counts = [perf.lookups.counts().get("attention")]  # type: ignore[attr-defined]
        before = counts[0].total if counts[0] is not None else 0
        times = alone(profiled, shape)
        assert perf.lookups.counts()["attention"].total == before + shape.steps  # type: ignore[attr-defined]
        assert (times == attention_rows(profiled, shape)).all()
