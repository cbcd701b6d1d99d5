"""Runs of data-parallel engines: what they are made of, what a wave costs, and what is refused."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytical.embedded import create
from converters.lowering import Lowering
from foundation.errors import UserError
from orchestrator import RunSpec, Simulation
from orchestrator.cluster.cluster import Cluster
from orchestrator.cluster.routers.round_robin import RoundRobin
from orchestrator.cluster.source import Listed
from orchestrator.deploying import Deploying
from orchestrator.deployment import Deployment
from orchestrator.engine.batch import Batch
from orchestrator.observers.account import DUMMIES
from orchestrator.observers.console import Console
from orchestrator.observers.files import ResultFiles
from orchestrator.pricing.classes import WorkClasses
from orchestrator.pricing.interface import Cost
from orchestrator.pricing.traced import TracedPricing
from orchestrator.request_source import open_source
from orchestrator.requests.request import Request
from orchestrator.settings.record import repeating
from orchestrator.stopwatch import Stopwatch
from tests.helpers.small_mixture import ROWS, small_mixture
from trace_gen.batch_shape import dummy_batch

BINARY = os.environ.get("ORRERY_ASTRA_SIM", "")
MIXTURE = "Qwen/Qwen3-30B-A3B"
GROUP = {"data_parallel_size": 2, "enable_expert_parallel": True, "scheduling": "vllm"}


def spec(folder: Path, **values: Any) -> RunSpec:
    model, dataset = small_mixture(folder)
    return RunSpec.of(**{"model_name": model, "hardware": "H100", "dataset": dataset, **values})


# -- a run


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"npu_num": 2, "expert_exchange": "allgather"},
        {"npu_num": 2, "npu_group": 2, "async_scheduling": False},
        {"data_parallel_size": 4, "sequence_parallel": True, "npu_num": 2, "expert_routing": "random"},
        {"instances": 2, "interface": "et"},
    ],
)
def test_a_run_of_a_group(tmp_path: Path, more: dict[str, Any]) -> None:
    given = {**GROUP, **more}
    result = Simulation(spec(tmp_path, **given)).run()
    members, groups, npus = given["data_parallel_size"], given.get("instances", 1), given.get("npu_num", 1)
    engines = members * groups
    assert result.summary.engines == engines == result.time.engines and result.summary.npus == engines * npus
    assert result.summary.data == members and result.summary.expert == members * npus // given.get("npu_group", 1)
    by_id = dict(zip(result.columns["id"].tolist(), result.columns["engine"].tolist(), strict=True))
    assert by_id == {number: number % engines for number in range(len(ROWS))}
    assert result.summary.generated_tokens == sum(output for _, output, _ in ROWS)
    time = result.time
    assert time.by_class[DUMMIES] > 0 and time.busy_ns + time.waiting_ns + time.idle_ns == engines * time.makespan_ns
    assert time.makespan_ns == int(result.columns["end"].max()), "dummies after the last answer are no part of the run"
    again = Simulation(RunSpec.of(**repeating(result.spec))).run()
    assert again.summary == result.summary


def test_what_people_are_shown(tmp_path: Path) -> None:
    out = io.StringIO()
    files = ResultFiles(tmp_path / "out.csv", itl=None, report=True)
    Simulation(spec(tmp_path, **GROUP, npu_num=2), [files, Console(out)]).run()
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("2 engines in lock step, mixture on 4 x H100 (DP 2 x TP 2 x PP 1 x EP 4), 16-bit")
    assert any(line.startswith("links: ") for line in lines)
    assert any(line.split()[0] == "NPUs" and line.endswith("(DP 2 x TP 2 x PP 1 x EP 4)") for line in lines if line)
    assert any(line.startswith("  dummy passes ") for line in lines)
    page = (tmp_path / "out-report.html").read_text()
    assert "DP 2 x TP 2 x PP 1 x EP 4" in page and "KV cache over all NPUs of an engine" in page
    names = {
        event["args"]["name"]
        for event in json.loads((tmp_path / "out-trace.json").read_text())["traceEvents"]
        if event.get("name") == "process_name"
    }
    assert {"engine 0", "engine 1"} <= names


def test_what_steps_are_priced_at_once_changes_nothing(tmp_path: Path) -> None:
    one, many = (Simulation(spec(tmp_path, **GROUP, macro_steps=most)).run() for most in (1, 512))
    assert one.summary == many.summary


def test_engines_of_a_dense_model_are_instances(tmp_path: Path) -> None:
    values: dict[str, Any] = {"model_name": "openai-community/gpt2"}
    parted = Simulation(spec(tmp_path, **values, data_parallel_size=3)).run()
    counted = Simulation(spec(tmp_path, **values, instances=3)).run()
    assert parted.summary == counted.summary and parted.summary.engines == 3
    assert repeating(parted.spec) == repeating(counted.spec)
    assert DUMMIES not in parted.time.by_class
    twice = Simulation(spec(tmp_path, **values, data_parallel_size=3, instances=2)).run()
    assert twice.summary.engines == 6


def test_members_hold_a_share_of_the_experts_and_all_else(tmp_path: Path) -> None:
    both, alone = (
        Deploying(one).deploy(one.engine) for one in (spec(tmp_path, **GROUP), spec(tmp_path, scheduling="vllm"))
    )
    experts = 8 * 3 * 256 * 128 * 2 * 2  # eight of three matrices, two layers, two bytes
    assert alone.weight_bytes - both.weight_bytes == experts // 2
    assert both.space.block_bytes == alone.space.block_bytes and both.space.total_blocks > alone.space.total_blocks


@pytest.mark.external
@pytest.mark.skipif(not BINARY, reason="ORRERY_ASTRA_SIM names no ASTRA-sim binary")
@pytest.mark.parametrize("more", [{}, {"npu_num": 2, "npu_group": 2}, {"npu_num": 2, "expert_exchange": "allgather"}])
def test_every_wave_of_a_run_is_the_same_on_the_real_binary(tmp_path: Path, more: dict[str, Any]) -> None:
    given = {**GROUP, **more, "cross_check": "astra-sim", "astra_sim": BINARY, "macro_steps": 1, "no_cache": True}
    result = Simulation(spec(tmp_path, **given)).run()
    assert result.summary.finished_requests == len(ROWS)


# -- what a wave costs


def deployment(folder: Path, **values: Any) -> Deployment:
    given = spec(folder, **GROUP, **values)
    return Deploying(given).deploy(given.engine)


def traced(built: Deployment) -> TracedPricing:
    texts = built.configurations
    return TracedPricing(
        built.generator.generate,
        Lowering(network_dims=texts.network.npus_count).lower,
        create(
            network=texts.network.to_text(), system=texts.system.to_text(), memory=texts.memory.to_text(), options={}
        ),
        mesh=built.generator.mesh,
        classes=WorkClasses(lambda sizes: sizes, backend_decides=False),
        max_steps=512,
        stopwatch=Stopwatch(),
    )


def batch(new: Sequence[int], context: Sequence[int], steps: int = 1) -> Batch:
    members = [Request(index, 0, 600, 10) for index in range(len(new))]
    made = Batch.of(0, members, new, context, [1] * len(new))
    made.steps = steps
    return made


def dummy(steps: int = 1) -> Batch:
    shape = dummy_batch()
    columns = (shape.request_ids, shape.new_tokens, shape.context_tokens, shape.samples)
    return Batch(0, (), *columns, steps=steps)


LAYOUTS: list[dict[str, Any]] = [{}, {"npu_num": 2}, {"npu_num": 2, "npu_group": 2, "expert_exchange": "allgather"}]
ROW = st.lists(st.tuples(st.one_of(st.just(1), st.integers(1, 300)), st.integers(0, 400)), max_size=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mixture")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_wave_costs_what_generator_and_backend_say(folder: Path, layout: dict[str, Any]) -> None:
    """Each member is done with a stage when its slowest rank there is."""
    built = deployment(folder, **layout)
    pricing, mesh = traced(built), built.generator.mesh

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(first=ROW, second=ROW)
    def check(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
        wave = [batch(*map(list, zip(*rows, strict=True))) if rows else dummy() for rows in (first, second)]
        cost = pricing.price(wave)
        trace = built.generator.generate([one.shape() for one in wave])
        texts = built.configurations
        backend = create(
            network=texts.network.to_text(), system=texts.system.to_text(), memory=texts.memory.to_text(), options={}
        )
        by_rank = backend.simulate(Lowering(network_dims=texts.network.npus_count).lower(trace)).by_rank()
        for member in range(2):
            slowest = [max(by_rank[rank][0] for rank in mesh.stage_ranks(s, member)) for s in range(mesh.pipeline)]
            assert cost.finish_ns[member, 0].tolist() == np.maximum.accumulate(slowest).tolist()
            assert cost.busy_ns[member, 0].sum() == cost.finish_ns[member, 0, -1]

    check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ranks_wait_for_the_largest_member(folder: Path, layout: dict[str, Any]) -> None:
    """A dummy beside a long prompt takes about as long as the prompt, and far longer than beside another dummy."""
    pricing = traced(deployment(folder, **layout))
    prompt = batch([4000], [0])
    (long, beside), (alone, _) = (pricing.price([one, dummy()]).finish_ns[:, 0, -1] for one in (prompt, dummy()))
    assert alone < beside <= long
    waits = beside - alone
    assert waits > 0.3 * (long - alone), "the last exchange of experts is near the end of two layers"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps_of_a_wave_at_once_are_the_steps_one_by_one(folder: Path, layout: dict[str, Any]) -> None:
    """Contexts of decodes grow, those of dummies do not."""
    pricing = traced(deployment(folder, **layout))
    together = pricing.price([batch([1, 1], [10, 300], 9), dummy(9)])
    alone = [pricing.price([batch([1, 1], [10 + step, 300 + step]), dummy()]) for step in range(9)]
    assert np.array_equal(together.finish_ns, np.concatenate([one.finish_ns for one in alone], axis=1))
    assert np.array_equal(together.busy_ns, np.concatenate([one.busy_ns for one in alone], axis=1))


def test_like_steps_of_a_group_cost_few_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of waves, a few calls of the pricing."""
    model, _ = small_mixture(tmp_path)
    rows = tmp_path / "long.tsv"
    rows.write_text("100\t400\t0\n50\t400\t0\n")
    given = RunSpec.of(model_name=model, hardware="H100", dataset=str(rows), **GROUP)
    built = Deploying(given).deploy(given.engine)
    with ExitStack() as stack:
        started = built.start(stack, Stopwatch(), (0, 1))
        calls: list[int] = []
        pricing = started.waves[0].pricing
        price = pricing.price

        def counting(wave: Sequence[Batch]) -> Cost:
            calls.append(wave[0].steps)
            return price(wave)

        monkeypatch.setattr(pricing, "price", counting)
        source = open_source(given.workload, lambda request: None, lambda longest: True)
        arriving = Listed(map(built.admission, source.requests()))
        told = list(Cluster(started.engines, RoundRobin(), arriving, waves=started.waves).run())
    assert len(told) > 800 and len(calls) < 20, calls


# -- what is refused


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"enable_expert_parallel": False}, "2 engines, of which each would hold all experts"),
        ({"scheduling": "orca"}, "orca does not make passes in lock step"),
        ({"cp_size": 2, "npu_num": 2}, "2 engines in lock step divide no sequences"),
        ({"attention_placement": "requests", "npu_num": 2}, "2 engines in lock step spread attention by heads"),
        ({"enable_expert_parallel": False, "ep_size": 4}, "experts over 4 NPUs, but a stage has 2 in 2 engines"),
        (
            {"engines": [{"role": "prefill"}, {"role": "decode"}]},
            "2 engines in lock step serve requests from prompt to",
        ),
        ({"data_parallel_size": 16}, "8 experts for 16 ranks, so that some would have none"),
        (
            {"speculative_method": "ngram", "num_speculative_tokens": 2, "acceptance_rate": 0.5},
            "2 engines in lock step have no drafters",
        ),
    ],
)
def test_what_no_group_can_be(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Simulation(spec(tmp_path, **{**GROUP, **more})).run()


def test_files_of_the_user_hold_for_all_ranks_of_the_group(tmp_path: Path) -> None:
    network = tmp_path / "network.yml"
    text = "topology: [ FullyConnected ]\nnpus_count: [ %d ]\nbandwidth: [ 50.0 ]\nlatency: [ 500.0 ]\n"
    network.write_text(text % 4)
    assert Simulation(spec(tmp_path, **GROUP, npu_num=2, network=str(network))).run().summary.npus == 4
    with pytest.raises(UserError, match=r"has 4 NPUs \(4\), --npu_num is 1 for each of 2 data-parallel engines"):
        Simulation(spec(tmp_path, **GROUP, network=str(network))).run()
    system = tmp_path / "system.json"
    few = {"all-reduce-implementation": ["ring"], "preferred-dataset-splits": 4, "scheduling-policy": "LIFO"}
    system.write_text(json.dumps({**few, "endpoint-delay": 10, "active-chunks-per-dimension": 1}))
    network.write_text(text % 2)
    for exchange, missing in (("alltoall", "all-to-all"), ("allgather", "all-gather")):
        with pytest.raises(UserError, match="missing, but 2 NPUs share a stage") as refused:
            Simulation(spec(tmp_path, **GROUP, system=str(system), expert_exchange=exchange)).run()
        assert refused.value.field == f"{missing}-implementation"
