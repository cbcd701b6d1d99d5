"""Random batches: in memory, by text and by .et files the cycles are the same, and stages are told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytical.embedded import create
from converters.lowering import Lowering
from orchestrator.commands.run import simulate
from orchestrator.deploying import Deploying
from orchestrator.deployment import Deployment
from orchestrator.engine.batch import Batch
from orchestrator.pricing.classes import WorkClasses
from orchestrator.pricing.interfaces import FileInterface
from orchestrator.pricing.traced import TracedPricing
from orchestrator.requests.request import Request
from orchestrator.settings.specification import RunSpec
from orchestrator.stopwatch import Stopwatch
from trace_gen.batch_shape import KVTransfer

SHAPES = [(1, 1, "heads"), (2, 1, "heads"), (2, 1, "requests"), (4, 2, "heads"), (2, 2, "heads"), (3, 3, "heads")]


def deployment(npus: int, stages: int, placement: str) -> Deployment:
    values = {"model_name": "openai-community/gpt2", "npu_num": npus, "npu_group": stages}
    spec = RunSpec.of(**values, attention_placement=placement, link_latency=300)
    return Deploying(spec).deploy(spec.engine)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Prompts, chunks of prompts and decodes mixed; now and then KV blocks move."""
    count = draw(st.integers(1, 5))
    new = draw(st.lists(st.one_of(st.just(1), st.integers(1, 200)), min_size=count, max_size=count))
    context = draw(st.lists(st.integers(0, 400), min_size=count, max_size=count))
    moved = draw(st.lists(st.integers(1, 30), max_size=2))
    transfers = tuple(KVTransfer(index, blocks, 8 * blocks, 294912 * blocks) for index, blocks in enumerate(moved))
    return Batch.of(
        0,
        [Request(index, 0, 600, 10) for index in range(count)],
        new,
        context,
        [1, *draw(st.lists(st.integers(0, 1), min_size=count - 1, max_size=count - 1))],
        kv_loads=transfers[:1],
        kv_evictions=transfers[1:],
    )


@pytest.mark.parametrize(("npus", "stages", "placement"), SHAPES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(batch=batches())
def test_every_way_to_the_backend_gives_the_same_cycles(npus: int, stages: int, placement: str, batch: Batch) -> None:
    built = deployment(npus, stages, placement)
    lowering = Lowering(network_dims=built.configurations.network.npus_count)
    backend = create(
        network=built.configurations.network.to_text(),
        system=built.configurations.system.to_text(),
        memory=built.configurations.memory.to_text(),
        options={},
    )
    trace = built.generator.generate([batch.shape()])
    memory = backend.simulate(lowering.lower(trace)).by_rank()
    assert len(memory) == npus
    with TemporaryDirectory() as folder:
        for way in ("memory", "text", "et"):
            for keep in (False, True):
                graph = FileInterface(lowering, way, Path(folder), keep=keep)(trace)
                assert backend.simulate(graph).by_rank() == memory


@pytest.mark.parametrize(("npus", "stages", "placement"), SHAPES)
def test_steps_at_once_are_the_steps_one_by_one(npus: int, stages: int, placement: str) -> None:
    built = deployment(npus, stages, placement)
    texts = built.configurations

    def priced(context: list[int], steps: int) -> np.ndarray:
        pricing = TracedPricing(
            built.generator.generate,
            Lowering(network_dims=texts.network.npus_count).lower,
            create(
                network=texts.network.to_text(),
                system=texts.system.to_text(),
                memory=texts.memory.to_text(),
                options={},
            ),
            mesh=built.generator.mesh,
            classes=WorkClasses(lambda sizes: sizes, backend_decides=False),
            max_steps=steps,
            stopwatch=Stopwatch(),
        )
        members = [Request(index, 0, 5, 50) for index in range(len(context))]
        ones = [1] * len(context)
        (finish,) = pricing.price([replace(Batch.of(0, members, ones, context, ones), steps=steps)]).finish_ns
        return finish

    together = priced([10, 300, 77], 12)
    assert together.shape == (12, stages)
    alone = np.concatenate([priced([10 + j, 300 + j, 77 + j], 1) for j in range(12)])
    assert np.array_equal(together, alone)
    assert (np.diff(together, axis=1) > 0).all(), "a later stage is done later"


@pytest.mark.long
@pytest.mark.parametrize("way", ["text", "et"])
def test_the_sample_run_is_the_same_by_files(tmp_path: Path, way: str) -> None:
    for name, flags in (("memory", []), (way, ["--interface", way])):
        assert simulate(["--npu_num", "2", "--output", str(tmp_path / name / "out.csv"), *flags]) == 0
    for file in ("out.csv", "out-summary.json", "out-throughput.tsv"):
        assert (tmp_path / way / file).read_bytes() == (tmp_path / "memory" / file).read_bytes()
    assert json.loads((tmp_path / way / "out-summary.json").read_text())["finished_requests"] == 100
