"""Context and sequence parallelism, stages with boundaries of their own: as settings, and in whole runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UserError
from orchestrator.commands.run import simulate
from orchestrator.deploying import Deploying
from orchestrator.deployment import Deployment
from orchestrator.settings.engine import ParallelismSettings
from orchestrator.settings.specification import RunSpec, from_flags

BINARY = os.environ.get("ORRERY_ASTRA_SIM")
REQUESTS = [(300, 6, 0), (40, 9, 1_000_000), (7, 3, 30_000_000)]


def deployed(**values: Any) -> Deployment:
    spec = RunSpec.of(hardware="H100", **values)
    return Deploying(spec).deploy(spec.engine)


def serve(folder: Path, output: str, *flags: str) -> bytes:
    """Return the CSV of a run on 4 NPUs."""
    dataset = folder / "few.tsv"
    dataset.write_text("".join("\t".join(map(str, row)) + "\n" for row in REQUESTS))
    given = ("--model_name", "gpt2", "--hardware", "H100", "--npu_num", "4", "--dataset", str(dataset))
    assert simulate([*given, "--output", str(folder / output), *flags]) == 0
    return (folder / output).read_bytes()


@pytest.mark.parametrize(
    ("flags", "same"),
    [
        ("--npu_num 8 --cp-size 2", "--tensor_parallel_size 4 --prefill-context-parallel-size 2"),
        ("--npu_num 8 --npu_group 2 --cp_size 4", "--cp_size 4 --pipeline-parallel-size 2"),
        (
            "--npu_num 8 --parallel pipeline --cp_size 2 --scheduling vllm",
            "--npu_num 8 --npu_group 4 --cp_size 2 --scheduling vllm",
        ),
        ("--npu_num 8 --cp_size 2 --enable_expert_parallel", "--npu_num 8 --cp_size 2 --ep_size 8"),
        ("--npu_num 2 --npu_group 2 --pp_layers 5,7", "--pipeline_parallel_size 2 --pp-layers 5,7"),
    ],
)
def test_ways_to_say_the_same(flags: str, same: str) -> None:
    first, second = (flagged(text) for text in (flags, same))
    for name in ("npus", "stages", "tensor", "context", "expert", "layers", "layout"):
        assert getattr(first, name) == getattr(second, name), name


def flagged(text: str) -> ParallelismSettings:
    return from_flags(text.split()).engine.parallelism


def test_what_the_flags_come_to() -> None:
    shared = flagged("--npu_num 24 --npu_group 3 --cp_size 2 --ep_size 8 --pp_layers 1,20,11")
    assert (shared.tensor, shared.context, shared.stages, shared.stage_size) == (4, 2, 3, 8)
    assert shared.layers == (1, 20, 11) and shared.layout == "TP 4 x PP 3 x CP 2 x EP 8"
    assert shared.decided(80 * 10**9).decided(1) == shared.decided(80 * 10**9)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--npu_num 4 --cp_size 3", "--cp_size: 3 do not divide the 4 NPUs of a stage; use one of 1, 2, 4"),
        (
            "--npu_num 1 --cp_size 2 --parallel pipeline",
            "--cp_size: 2 do not divide the 1 NPUs of a stage; use one of 1",
        ),
        (
            "--npu_num 8 --npu_group 2 --cp_size 8",
            "--cp_size: 8 do not divide the 4 NPUs of a stage; use one of 1, 2, 4",
        ),
        ("--cp_size 0", "--cp_size: '0' is not a whole number from 1 to 1048576"),
        ("--cp_mode rings", '--cp_mode: unknown "rings"; did you mean ring?'),
        (
            "--npu_num 4 --cp_size 2 --attention_placement requests",
            "--attention_placement: requests conflicts with --cp_size: a sequence is divided, not on one NPU; "
            "give heads, or --cp_size 1",
        ),
        ("--npu_num 8 --cp_size 2 --ep_size 4", "--ep_size: experts over 4 NPUs, but a stage has 8; give 1 or 8"),
        (
            "--tensor_parallel_size 4 --cp_size 2 --npu_num 4",
            "--tensor_parallel_size: 4 conflicts with 4 NPUs in 1 stages of 2 context-parallel ranks; leave --npu",
        ),
        (
            "--npu_num 2 --npu_group 2 --pp_layers 12",
            '--pp_layers: "12" is no list of the layers of 2 stages; give 2 whole numbers from 1, with commas',
        ),
        ("--npu_num 2 --npu_group 2 --pp_layers 12,0", '--pp_layers: "12,0" is no list of the layers of 2 stages'),
        ("--npu_num 2 --npu_group 2 --pp_layers 6,x", '--pp_layers: "6,x" is no list of the layers of 2 stages'),
        ("--npu_num 2 --npu_group 2 --pp_layers 6,65537", "is no list of the layers of 2 stages"),
    ],
)
def test_products_that_do_not_fit(flags: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        from_flags(flags.split())
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"npu_num": 2, "npu_group": 2, "pp_layers": "6,7"},
            "--pp_layers: stages of 6+7 = 13 layers, the model",
        ),
        ({"npu_num": 13, "npu_group": 13, "pp_layers": ",".join(["1"] * 13)}, "13 pipeline stages for the 12 layers"),
    ],
)
def test_layers_that_the_model_has_not(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        deployed(model_name="gpt2", **values)
    assert message in str(error.value)


def test_largest_layers_of_a_stage() -> None:
    assert flagged("--npu_num 2 --npu_group 2 --pp_layers 6,65536").layers == (6, 65536)


@pytest.mark.parametrize("policy", ["vllm", "orca"])
def test_the_cache_holds_as_many_times_the_tokens(policy: str) -> None:
    """Each of 4 context-parallel ranks keeps a block of 16 tokens of a sequence's block of 64."""
    one, many = (
        deployed(
            model_name="gpt2",
            npu_num=2 * context,
            cp_size=context,
            scheduling=policy,
            block_size=16,
            npu_mem=4.0,
        )
        for context in (1, 4)
    )
    assert (one.space.block_size, many.space.block_size) == (16, 64)
    assert one.space.total_blocks == many.space.total_blocks > 0
    assert many.space.block_bytes == 4 * one.space.block_bytes
    assert one.generator.memory.weight_bytes(0) == many.generator.memory.weight_bytes(0)


def test_tensor_parallel_ranks_are_on_the_fast_dimension() -> None:
    files = deployed(model_name="gpt2", npu_num=24, npu_group=4, cp_size=3).configurations
    assert files.network.npus_count == (2, 3, 4)
    files = deployed(model_name="gpt2", npu_num=6, cp_size=6).configurations
    assert files.network.npus_count == (6,)


@pytest.mark.parametrize(("lacks", "flags"), [("reduce-scatter", {"cp_size": 2}), ("reduce-scatter", {"npu_num": 2})])
def test_a_system_file_has_the_collectives_that_are_needed(tmp_path: Path, lacks: str, flags: dict[str, int]) -> None:
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    system = {"scheduling-policy": "LIFO", "preferred-dataset-splits": 1, "local-mem-bw": 100, "endpoint-delay": 10}
    system |= {f"{kind}-implementation": ["ring"] for kind in kinds if kind != lacks}  # type: ignore[misc]
    path = tmp_path / "system.json"
    path.write_text(json.dumps(system))
    with pytest.raises(UserError) as error:
        deployed(model_name="gpt2", system=str(path), sequence_parallel=True, **{"npu_num": 2, **flags})
    assert "reduce-scatter-implementation: missing, but 2 NPUs share a stage" in str(error.value)
    deployed(model_name="gpt2", system=str(path), npu_num=2)


FLAGS = [
    ("--cp_size", "2"),
    ("--cp_size", "4", "--cp_mode", "allgather"),
    ("--cp_size", "2", "--npu_group", "2", "--pp_layers", "5,7"),
    ("--cp_size", "2", "--sequence_parallel"),
    ("--cp_size", "2", "--model_name", "Mixtral-8x7B-v0.1", "--ep_size", "4", "--expert_exchange", "allgather"),
]


@pytest.mark.parametrize("flags", FLAGS)
def test_memory_text_and_et_agree_and_steps_do_not_matter(tmp_path: Path, flags: tuple[str, ...]) -> None:
    memory = serve(tmp_path, "memory.csv", *flags)
    ways = {"text": ("--interface", "text"), "one": ("--macro_steps", "1")}
    for name, way in ways.items():
        assert serve(tmp_path, f"{name}.csv", *flags, *way) == memory, name


@pytest.mark.parametrize("flags", FLAGS)
def test_every_flag_changes_the_result(tmp_path: Path, flags: tuple[str, ...]) -> None:
    model = flags[flags.index("--model_name") :][:2] if "--model_name" in flags else ()
    assert serve(tmp_path, "plain.csv", *model) != serve(tmp_path, "flags.csv", *flags)


@pytest.mark.skipif(BINARY is None, reason="no ASTRA-sim binary here (ORRERY_ASTRA_SIM names it)")
@pytest.mark.parametrize("flags", FLAGS)
def test_the_real_binary_gives_the_same_cycles(tmp_path: Path, flags: tuple[str, ...]) -> None:
    expected = serve(tmp_path, "embedded.csv", *flags)
    assert serve(tmp_path, "real.csv", *flags, "--backend", "astra-sim", "--no_cache") == expected
