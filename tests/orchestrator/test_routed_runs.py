"""Expert routing through the main job: results are the seed's, whatever is priced together and by whichever way."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foundation.errors import UserError
from orchestrator.commands.run import simulate
from orchestrator.deploying import Deploying
from orchestrator.engine.batch import Batch
from orchestrator.pricing.classes import WorkClasses
from orchestrator.pricing.traced import TracedPricing
from orchestrator.requests.request import Request
from orchestrator.settings.specification import RunSpec, from_flags
from orchestrator.stopwatch import Stopwatch

REQUESTS = [(100, 6, 0), (40, 9, 1_000_000), (7, 3, 30_000_000)]
SPREAD = ("--npu_num", "4", "--ep_size", "4")
PIPED = ("--npu_num", "4", "--npu_group", "2", "--ep_size", "2", "--max_batch", "2")
RECORDED = ("step,layer,expert,tokens\n") + "".join(
    f"{step},{layer},{expert},{tokens}\n"
    for step, hot in ((0, 1), (1, 6), (2, 3))
    for layer in range(32)
    for expert, tokens in ((hot, 4), (0, 3), (7, 1))
)


def serve(folder: Path, output: str, *flags: str) -> bytes:
    """Return the CSV of a run of Mixtral; ``recorded.csv`` is a recording of its routers."""
    dataset = folder / "few.tsv"
    dataset.write_text("".join("\t".join(map(str, row)) + "\n" for row in REQUESTS))
    (folder / "recorded.csv").write_text(RECORDED)
    model = ("--model_name", "Mixtral-8x7B-v0.1", "--hardware", "H100", "--dataset", str(dataset))
    assert simulate([*model, "--output", str(folder / output), "--no-report", "--quiet", *flags]) == 0
    return (folder / output).read_bytes()


def routing_flags(name: str, folder: Path) -> tuple[str, ...]:
    return ("--routing_file", str(folder / "recorded.csv")) if name == "file" else ("--expert_routing", name)


@pytest.mark.parametrize("shared", [SPREAD, PIPED], ids=["spread", "piped"])
@pytest.mark.parametrize("name", ["random", "zipf", "round_robin", "file"])
def test_whatever_is_priced_together_and_by_whichever_way_results_are_the_same(
    tmp_path: Path, name: str, shared: tuple[str, ...]
) -> None:
    flags = (*shared, *routing_flags(name, tmp_path))
    first = serve(tmp_path, "first.csv", *flags)
    ways = {"again": (), "one": ("--macro_steps", "1"), "text": ("--interface", "text"), "et": ("--interface", "et")}
    for output, way in ways.items():
        assert serve(tmp_path, f"{output}.csv", *flags, *way) == first, output
    assert serve(tmp_path, "balanced.csv", *shared) != first


def test_the_seed_decides_what_is_drawn_and_nothing_else(tmp_path: Path) -> None:
    drawn = [serve(tmp_path, f"{seed}.csv", *SPREAD, "--expert_routing", "random", "--seed", seed) for seed in "011"]
    assert drawn[0] != drawn[1] == drawn[2]
    plain = [serve(tmp_path, f"plain{seed}.csv", *SPREAD, "--seed", seed) for seed in "01"]
    assert plain[0] == plain[1], "the workload is a file"


def test_settings_files_repeat_the_run(tmp_path: Path) -> None:
    more = ("--zipf_exponent", "1.5", "--redundant_experts", "4")
    first = serve(tmp_path, "first.csv", *SPREAD, "--expert_routing", "zipf", *more)
    settings = tmp_path / "first-settings.json"
    held = json.loads(settings.read_text())
    assert (held["expert_routing"], held["zipf_exponent"], held["redundant_experts"]) == ("zipf", 1.5, 4)
    assert simulate(["--settings", str(settings), "--output", str(tmp_path / "again.csv"), "--quiet"]) == 0
    assert (tmp_path / "again.csv").read_bytes() == first
    assert first != serve(tmp_path, "other.csv", *SPREAD, "--expert_routing", "zipf", *more[2:])
    assert first != serve(tmp_path, "without.csv", *SPREAD, "--expert_routing", "zipf", *more[:2])


def test_a_balanced_run_says_so_or_nothing(tmp_path: Path) -> None:
    said, unsaid = serve(tmp_path, "a.csv", *SPREAD, "--expert_routing", "balanced"), serve(tmp_path, "b.csv", *SPREAD)
    assert said == unsaid


def test_a_recording_implies_its_routing_and_vllms_word_for_redundant_experts() -> None:
    made = from_flags(["--routing_file", "a.csv", "--num-redundant-experts", "8"]).engine
    assert made.names["expert_routing"] == "file" and made.parallelism.redundant_experts == 8
    assert from_flags([]).engine.names["expert_routing"] == "balanced"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--model_name", "Llama-3.1-8B", "--expert_routing", "random"),
            "--expert_routing: random, but .*Llama-3.1-8B",
        ),
        (("--expert_routing", "file"), "--expert_routing: file needs a recording; give its CSV file: --routing_file"),
        (("--expert_routing", "zip"), "--expert_routing: unknown expert routing 'zip'; did you mean zipf"),
        (
            ("--zipf_exponent", "2"),
            "--zipf_exponent: not read by --expert_routing balanced; --expert_routing zipf reads",
        ),
        (("--expert_routing", "zipf", "--zipf_exponent", "17"), "--zipf_exponent: '17' is not a number from 0 to 16"),
        (("--expert_routing", "zipf", "--zipf_exponent", "-1"), "--zipf_exponent: '-1' is not a number from 0 to 16"),
        (
            ("--expert_routing", "round_robin", "--expert_stride", "0"),
            "--expert_stride: '0' is not a whole number from 1",
        ),
        (("--redundant_experts", "-1"), "--redundant_experts: '-1' is not a whole number from 0"),
        (("--redundant_experts", "2"), "--redundant_experts: 2 redundant experts, but no rank holds whole experts"),
        ((*SPREAD, "--redundant_experts", "2"), "with 2 redundant ones 4 ranks do not divide; give 4"),
        (("--routing_file", "none.csv"), "none.csv: .*recording of routed tokens"),
    ],
)
def test_wrong_routings(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        serve(tmp_path, "none.csv", *flags)


def test_dense_models_are_balanced_by_name(tmp_path: Path) -> None:
    model = ("--model_name", "gpt2", "--expert_routing", "balanced")
    assert len(serve(tmp_path, "dense.csv", *model).splitlines()) == 1 + len(REQUESTS)


def priced(name: str) -> tuple[TracedPricing, list[tuple[int, int]]]:
    """Return the pricing of a run, and what its generator is asked for: steps of the batch, and the iteration."""
    spec = RunSpec.of(
        model_name="Mixtral-8x7B-v0.1", hardware="H100", npu_num=4, ep_size=4, expert_routing=name, pricing="traced"
    )
    built = Deploying(spec).deploy(spec.engine)
    asked: list[tuple[int, int]] = []

    def generate(shapes, step):  # type: ignore[no-untyped-def]
        asked.append((shapes[0].steps, step))
        return built.generator.generate(shapes, step)

    with ExitStack() as stack:
        (engine,) = built.start(stack, Stopwatch()).engines
        pricing = engine._pricing
    assert isinstance(pricing, TracedPricing)
    made = TracedPricing(
        generate,
        pricing._lower,
        pricing._backend,
        mesh=built.generator.mesh,
        classes=WorkClasses(lambda sizes: sizes, backend_decides=False),
        max_steps=pricing.max_steps,
        stopwatch=Stopwatch(),
    )
    return made, asked


@pytest.mark.parametrize(("name", "steps"), [("balanced", 512), ("round_robin", 512), ("random", 1), ("zipf", 1)])
def test_steps_are_priced_together_only_where_they_are_alike(name: str, steps: int) -> None:
    assert priced(name)[0].max_steps == steps


def test_the_iteration_of_the_engine_is_the_step() -> None:
    pricing, asked = priced("random")
    requests = [Request(number, 0, 5, 50) for number in range(3)]
    batch = Batch.of(0, requests, [1] * 3, [10, 20, 30], [1] * 3)
    costs = [pricing.price([replace(batch, serial=serial)]).finish_ns for serial in (4, 5, 4)]
    assert asked == [(1, 4), (1, 5), (1, 4)]
    assert np.array_equal(costs[0], costs[2]) and not np.array_equal(costs[0], costs[1])
