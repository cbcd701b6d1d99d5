"""Clusters and engines of other programs: the same engines as of an equal run file; what contradicts is refused."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UserError
from foundation.settings.catalogue import catalogue
from foundation.settings.reading import flat
from orchestrator.cluster_formats.vllm_engine import NO_EFFECT, READ
from orchestrator.commands.run import simulate
from orchestrator.settings.specification import EngineSpec, RunSpec, from_flags
from orchestrator.simulation import Simulation, prepare

MEASURED = Path(os.environ.get("ORRERY_SHARED", Path(__file__).parents[3] / "shared")) / "measured"
INSTANCE: dict[str, Any] = {
    "model_name": "openai-community/gpt2",
    "hardware": "RTX4090",
    "npu_mem": {"mem_size": 24, "mem_bw": 1008, "mem_latency": 0, "mem_util": 0.83},
    "num_npus": 1,
    "tp_size": 1,
    "pd_type": None,
}
HOST = {"mem_size": 64, "mem_bw": 50, "mem_latency": 0}
ENGINE: dict[str, Any] = {
    "model": "openai-community/gpt2",
    "tensor_parallel_size": 1,
    "data_parallel_size": 1,
    "enable_expert_parallel": False,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 256,
    "max_model_len": None,
    "dtype": "bfloat16",
    "kv_cache_dtype": "auto",
    "seed": 42,
}


def cluster(*instances: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A file of one node."""
    node = {"num_instances": len(instances), "cpu_mem": HOST, "instances": [{**INSTANCE, **one} for one in instances]}
    return {"num_nodes": 1, "link_bw": 16, "link_latency": 1000, "nodes": [node], **values}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes values as JSON, an item a line, and returns the file's name."""
    monkeypatch.chdir(tmp_path)
    Path("w.tsv").write_text("".join(f"{30 + n}\t{4 + n % 3}\t{1000 * n}\n" for n in range(8)))

    def written(name: str, values: Any) -> str:
        Path(name).write_text(json.dumps(values, indent=1))
        return name

    return written


def engines(*flags: str) -> tuple[EngineSpec, ...]:
    return from_flags([*flags, "--dataset", "w.tsv"]).engines


def refused(*flags: str) -> str:
    with pytest.raises(UserError) as error:
        from_flags(flags)
    return str(error.value)


def test_instances_are_the_engines_of_an_equal_run_file(write: Any, tmp_path: Path) -> None:
    """Two nodes, three instances that differ in device, parallelism and scheduler."""
    first = cluster(
        {}, {"hardware": "L40S", "num_npus": 2, "tp_size": 2, "npu_mem": {"mem_size": 40}, "max_num_seqs": 3}
    )
    second = cluster({"num_npus": 4, "tp_size": 2, "pp_size": 2, "enable_prefix_caching": False, "block_size": 32})
    both = {**first, "num_nodes": 2, "nodes": first["nodes"] + second["nodes"], "link_bw": [128, 16]}
    found = engines("--cluster_config", write("c.json", both))
    one = {"model_name": "openai-community/gpt2", "scheduling": "vllm", "remote_bw": 50, "local_bw": 1008.0}
    one["data_parallel_size"] = 1
    equal = [
        {**one, "hardware": "RTX4090", "tensor_parallel_size": 1, "pipeline_parallel_size": 1},
        {
            **{name: value for name, value in one.items() if name != "local_bw"},
            "hardware": "L40S",
            "tensor_parallel_size": 2,
            "pipeline_parallel_size": 1,
            "max_num_seqs": 3,
            "npu_mem": 40 * 2**30 / 1e9,
        },
        {
            **one,
            "hardware": "RTX4090",
            "tensor_parallel_size": 2,
            "pipeline_parallel_size": 2,
            "enable_prefix_caching": False,
            "block_size": 32,
        },
    ]
    run = write("run.json", {"engines": equal, "dataset": "w.tsv"})
    assert found == from_flags(["--settings", run]).engines
    assert [one.parallelism.npus for one in found] == [1, 2, 4]
    flags = ["--dataset", "w.tsv", "--quiet", "--output"]
    assert simulate(["--cluster_config", "c.json", *flags, "by_cluster.csv"]) == 0
    assert simulate(["--settings", run, *flags, "by_run_file.csv"]) == 0
    assert Path("by_cluster.csv").read_bytes() == Path("by_run_file.csv").read_bytes()
    assert simulate(["--settings", "by_cluster-settings.json", *flags, "again.csv"]) == 0
    assert Path("again.csv").read_bytes() == Path("by_cluster.csv").read_bytes()


@pytest.mark.parametrize(
    ("degrees", "tensor", "stages"),
    [
        ({}, 1, 1),
        ({"num_npus": 4}, 4, 1),
        ({"tp_size": 4}, 4, 1),
        ({"num_npus": 4, "tp_size": 2}, 2, 2),
        ({"num_npus": 4, "pp_size": 2}, 2, 2),
        ({"tp_size": 2, "pp_size": 3}, 2, 3),
        ({"num_npus": 6, "tp_size": 2, "pp_size": 3}, 2, 3),
        ({"num_npus": 4, "tp_size": 2, "pp_size": 1}, 2, 2),
    ],
)
def test_degrees_that_are_left_out_follow_from_the_others(
    write: Any, degrees: dict[str, int], tensor: int, stages: int
) -> None:
    """As `_resolve_parallelism` of LLMServingSim infers them."""
    instance = {**dict.fromkeys(("num_npus", "tp_size", "pp_size")), **degrees}
    (engine,) = engines("--cluster_config", write("c.json", cluster(instance)))
    assert (engine.parallelism.tensor, engine.parallelism.stages) == (tensor, stages)


def test_experts_of_a_mixture_are_whole_where_nothing_is_said(write: Any) -> None:
    """As LLMServingSim; the engine's arguments say otherwise where they are there."""
    mixture = {
        "model_name": "Qwen/Qwen3-30B-A3B",
        "hardware": "H100",
        "npu_mem": {"mem_size": 80},
        "num_npus": 2,
        "tp_size": 2,
    }
    path = write("c.json", cluster(mixture))
    assert engines("--cluster_config", path)[0].parallelism.expert == 2
    assert engines("--cluster_config", write("d.json", cluster({**mixture, "ep_size": 1})))[0].parallelism.expert == 1
    arguments = write("e.json", {"tensor_parallel_size": 2, "enable_expert_parallel": False})
    assert engines("--cluster_config", path, "--engine_config", arguments)[0].parallelism.expert == 1
    (dense,) = engines("--cluster_config", write("f.json", cluster({"num_npus": 2, "tp_size": 2})))
    assert dense.parallelism.expert == 1


@pytest.mark.parametrize("recorded", [True, False])
def test_arguments_of_an_engine_are_settings_and_the_rest_is_vllms(write: Any, recorded: bool) -> None:
    values = {"model": ENGINE["model"], "engine_kwargs": ENGINE, "num_requests": 300} if recorded else ENGINE
    path = write("e.json", values)
    (engine,) = engines("--engine_config", path, "--hardware", "L40S")
    same = RunSpec.of(
        model_name="openai-community/gpt2",
        tensor_parallel_size=1,
        data_parallel_size=1,
        enable_expert_parallel=False,
        max_num_seqs=4,
        max_num_batched_tokens=256,
        dtype="bfloat16",
        kv_cache_dtype="auto",
        scheduling="vllm",
        hardware="L40S",
    )
    assert engine == same.engine and engine.names["scheduling"] == "vllm"
    decided = prepare(RunSpec.of(**{**flat(engine), "req_num": 1})).deployments[0].engine.scheduling
    assert (decided.gpu_memory_utilization, decided.vllm_version) == (0.9, "0.19")
    joined = engines("--engine_config", path, "--cluster_config", write("c.json", cluster({}, {})))
    assert len(joined) == 2 and all(one.scheduling.max_num_seqs == 4 for one in joined)


def test_every_argument_that_is_read_is_a_setting_and_others_are_named(write: Any) -> None:
    known = catalogue(RunSpec).spellings
    assert set(READ) <= set(known) and not NO_EFFECT & set(READ)
    guesses = {"method": "ngram", "num_speculative_tokens": 3}
    path = write("e.json", {"model": "gpt2", "speculative_config": guesses, "trust_remote_code": True})
    (engine,) = engines("--engine_config", path, "--acceptance_rate", "0.5")
    assert engine.scheduling.speculation is not None and engine.scheduling.speculation.tokens == 3
    said = refused("--engine_config", write("f.json", {"model": "gpt2", "max_num_seq": 3, "hardware": "H100"}))
    assert "line 3, max_num_seq: unknown field; did you mean max_num_seqs" in said and "line 4, hardware" in said


def test_a_models_own_file_stands_for_its_name(write: Any) -> None:
    config = {"model_type": "gpt2", "vocab_size": 1000, "n_embd": 512, "n_layer": 2, "n_positions": 99, "n_head": 8}
    model = write("own.json", config)
    path = write("c.json", cluster({"model_name": "nobody/knows"}, {"model_name": "nobody/knows"}))
    found = engines("--cluster_config", path, "--model_config", model)
    assert [one.model.model_name for one in found] == ["own.json"] * 2
    assert prepare(from_flags(["--cluster_config", path, "--model_config", model, "--req_num", "1", "--skip_unfit"]))
    other = write("d.json", cluster({}, {"model_name": "gpt2-xl"}))
    assert "cannot both be what --model_config describes" in refused("--cluster_config", other, "--model_config", model)
    assert refused("--model_config", model).endswith("give --model_name with this path")


def test_the_devices_own_size_is_the_devices_memory(write: Any) -> None:
    """24 (GiB) of an RTX 4090 and 48 of an L40S are what their makers say; vLLM sees what the driver shows."""
    sizes = {"RTX4090": (24, None), "L40S": (48, None), "A40": (40, 40 * 2**30 / 1e9)}
    for hardware, (size, expected) in sizes.items():
        instance = {"hardware": hardware, "npu_mem": {"mem_size": size}}
        (engine,) = engines("--cluster_config", write("c.json", cluster(instance)))
        assert engine.parallelism.npu_mem == expected


def test_calibrations_are_noted_once_and_change_nothing(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    plain = {**INSTANCE, "npu_mem": {"mem_size": 24, "mem_bw": 1008}}
    for name, values in (("c", cluster({}, {})), ("d", {**cluster(plain, plain), "link_bw": 900, "link_latency": 5})):
        flags = ["--cluster_config", write(f"{name}.json", values), "--dataset", "w.tsv", "--output", f"{name}.csv"]
        assert simulate(flags) == 0
    told = capsys.readouterr().out
    assert told.count("c.json: link_bw, link_latency, mem_util are that simulator's calibrations") == 1
    assert told.count("d.json: link_bw, link_latency are that") == 1
    assert Path("c.csv").read_bytes() == Path("d.csv").read_bytes()
    with_power = {**cluster({}), "cxl_mem": {"mem_size": 1}}
    flags = ["--cluster_config", write("e.json", with_power), "--dataset", "w.tsv"]
    assert simulate(flags) == 0
    assert "note: e.json: cxl_mem is not simulated\n" in capsys.readouterr().out


def test_flags_say_the_rest_and_may_repeat_but_not_contradict(write: Any) -> None:
    files = ["--cluster_config", write("c.json", cluster({}, {})), "--engine_config", write("e.json", ENGINE)]
    assert engines(*files, "--max_num_seqs", "4", "--hardware", "RTX4090", "--long_prefill_token_threshold", "64")
    for flag, value, said in (
        ("--max_num_seqs", "8", "--max_num_seqs: 8 conflicts with 4 of e.json, max_num_seqs; leave one out"),
        ("--hardware", "H100", "--hardware: H100 conflicts with RTX4090 of c.json, nodes[0].instances[0].hardware"),
        ("--scheduling", "orca", "--scheduling: orca conflicts with vllm of e.json, engine configuration"),
        ("--remote_bw", "64", "--remote_bw: 64 conflicts with 50 of c.json, nodes[0].cpu_mem.mem_bw"),
        (
            "--tensor_parallel_size",
            "2",
            "--tensor_parallel_size: 2 conflicts with 1 of c.json, nodes[0].instances[0].tp_size",
        ),
    ):
        assert said in refused(*files, flag, value)
    run = write("run.json", {"dataset": "w.tsv", "max_num_seqs": 9})
    assert "run.json, line 3, max_num_seqs: 9 conflicts with 4 of e.json" in refused(*files, "--settings", run)
    listed = write("list.json", {"engines": [{"hardware": "H100"}]})
    assert "--cluster_config: the run file lists engines, too" in refused(*files, "--settings", listed)
    own = engines(*files, "--scheduling", "vllm")
    assert own == engines(*files)
    orca = engines("--cluster_config", "c.json", "--scheduling", "orca")
    assert {one.names["scheduling"] for one in orca} == {"orca"}, "a cluster alone leaves the policy to the user"


def test_arguments_hold_for_every_engine_of_a_run_file(write: Any) -> None:
    arguments = write("e.json", {"max_num_seqs": 4, "model": "gpt2"})
    run = write("run.json", {"engines": [{"hardware": "H100"}, {"hardware": "L40S", "max_num_seqs": 4}]})
    found = engines("--settings", run, "--engine_config", arguments)
    assert [(one.model.hardware, one.scheduling.max_num_seqs) for one in found] == [("H100", 4), ("L40S", 4)]
    config = {"model_type": "gpt2", "vocab_size": 1000, "n_embd": 512, "n_layer": 2, "n_positions": 99, "n_head": 8}
    model = write("own.json", config)
    found = engines("--settings", run, "--engine_config", arguments, "--model_config", model)
    assert [one.model.model_name for one in found] == ["own.json"] * 2
    other = write("other.json", {"engines": [{}, {"max_num_seqs": 5}]})
    said = refused("--settings", other, "--engine_config", arguments)
    assert "e.json, line 2, max_num_seqs: 4 conflicts with 5 of other.json, engines[1].max_num_seqs" in said


def test_files_must_agree_with_each_other(write: Any) -> None:
    arguments = {**ENGINE, "tensor_parallel_size": 2, "max_num_seqs": 8}
    said = refused(
        *("--cluster_config", write("c.json", cluster({"max_num_seqs": 3}))),
        *("--engine_config", write("e.json", {"model": "gpt2-xl", "engine_kwargs": arguments})),
    )
    for part in (
        "e.json: line 2, model: 'gpt2-xl', but engine_kwargs has 'openai-community/gpt2'",
        "line 5, engine_kwargs.tensor_parallel_size: 2 conflicts with 1 of c.json, nodes[0].instances[0].tp_size",
        "line 8, engine_kwargs.max_num_seqs: 8 conflicts with 3 of c.json, nodes[0].instances[0].max_num_seqs",
    ):
        assert part in said, part


def test_a_users_files_of_networks_and_memory_win(write: Any) -> None:
    Path("n.yml").write_text("topology: [Ring]\nnpus_count: [2]\nbandwidth: [25]\nlatency: [700]\n")
    memory = write("m.json", {"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 0, "remote-mem-bw": 20})
    path = write("c.json", cluster({"num_npus": 2, "tp_size": 2}))
    flags = ["--cluster_config", path, "--network", "n.yml", "--remote_memory", memory, "--dataset", "w.tsv"]
    made = prepare(from_flags(flags)).deployments[0].configurations
    assert made.network.topology == ("Ring",) and made.memory.remote_mem_bw == 20
    node = prepare(from_flags(["--cluster_config", path, "--node", "rtx4090-4", "--dataset", "w.tsv"])).deployments[0]
    assert node.configurations.network.topology == ("Switch",)


def test_what_is_not_simulated_is_refused_with_its_place(write: Any) -> None:
    placed = {"default": {"weights": "npu", "kv_loc": "cpu"}, "layers": {"lm_head": {"weights": "cxl:0"}}}
    said = refused("--cluster_config", write("c.json", cluster({"placement": placed, "enable_attn_offloading": True})))
    for part in (
        "placement.default.kv_loc: 'cpu' is not simulated; write \"npu\"",
        "placement.layers.lm_head.weights: 'cxl:0' is not simulated",
        "instances[0].enable_attn_offloading: this offloading is not simulated; write false",
    ):
        assert part in said, part


def test_instances_for_prompts_and_for_decodes_have_roles(write: Any) -> None:
    pair = cluster({"pd_type": "prefill"}, {"pd_type": "decode"}, {"pd_type": None})
    flags = ["--cluster_config", write("c.json", pair), "--dataset", "w.tsv"]
    assert [one.role for one in engines(*flags)] == ["prefill", "decode", "both"]
    assert Simulation(from_flags(flags)).run().summary.transfers is not None
    alone = write("c.json", cluster({}, {"pd_type": "decode"}))
    assert "no engine hands requests over" in refused("--cluster_config", alone)


def test_instances_of_a_group_are_one_engine_with_its_members(write: Any) -> None:
    mixture = {"model_name": "Qwen/Qwen3-30B-A3B", "hardware": "H100", "num_npus": 2, "tp_size": 2}
    groups = cluster(
        *({**mixture, "ep_size": 4, "dp_group": "A"}, {"hardware": "L40S"}),
        *({**mixture, "ep_size": 4, "dp_group": "A"}, {**mixture, "dp_group": "B"}, {**mixture, "dp_group": "B"}),
        {"dp_group": "alone"},
    )
    found = engines("--cluster_config", write("c.json", groups))
    assert [one.parallelism.layout for one in found] == [
        "DP 2 x TP 2 x PP 1 x EP 4", "TP 1 x PP 1", "DP 2 x TP 2 x PP 1 x EP 4", "TP 1 x PP 1",
    ]  # fmt: skip
    assert [one.engines for one in found] == [2, 1, 2, 1]
    said = refused("--cluster_config", "c.json", "--engine_config", write("e.json", {"data_parallel_size": 2}))
    assert "data_parallel_size: 2 conflicts with 1 of c.json, nodes[0].instances[1].dp_group" in said
    unlike = cluster({"dp_group": "A"}, {"dp_group": "A", "max_num_seqs": 3}, {"dp_group": "A", "max_num_seqs": 4})
    said = refused("--cluster_config", write("c.json", unlike))
    what = "max_num_seqs: makes max_num_seqs another than that of the first instance of the dp_group"
    assert said.count("another than") == 1 and f"nodes[0].instances[1].{what}" in said


def test_all_that_is_wrong_with_a_file_is_told_at_once(write: Any) -> None:
    wrong = deepcopy(
        cluster({"tp_size": 3, "num_npus": 4, "npu_memory": 4}, {"hardware": None, "max_num_seqs": "many"})
    )
    wrong["num_nodes"], wrong["nodes"][0]["num_instances"], wrong["link_bw"] = 2, 1, [16, "fast"]
    wrong["nodes"][0]["instances"][1]["npu_mem"]["mem_util"] = 90
    said = refused("--cluster_config", write("c.json", wrong), "--npu_mem", "much")
    for part in (
        "num_nodes: 2, but nodes has 1; write 1",
        'link_bw[1]: "fast" is not a number',
        "nodes[0].num_instances: 1, but instances has 2; write 2",
        "nodes[0].instances[0].tp_size: 3 does not divide num_npus 4; use one of 1, 2, 4",
        "nodes[0].instances[0].npu_memory: unknown field; did you mean npu_mem",
        "nodes[0].instances[1]: hardware is missing",
        "nodes[0].instances[1].npu_mem.mem_util: 90 is not a number above 0 and at most 1",
        'nodes[0].instances[1].max_num_seqs: "many" is not a whole number of at least 1',
        "--npu_mem: 'much' is not a number above 0",
    ):
        assert part in said, part


def test_what_is_found_when_engines_are_put_together_has_its_place(write: Any) -> None:
    path = write("c.json", cluster({"hardware": "RTX4091"}, {"num_npus": 32, "tp_size": 1, "pp_size": 32}))
    with pytest.raises(UserError) as error:
        simulate(["--cluster_config", path])
    said = str(error.value)
    assert "c.json: line 16, nodes[0].instances[0].hardware: unknown hardware 'RTX4091'; did you mean RTX4090" in said
    assert (
        "line 39, nodes[0].instances[1].pp_size: 32 pipeline stages for the 12 layers of openai-community/gpt2" in said
    )


@pytest.mark.skipif(not MEASURED.is_dir(), reason="shared/measured, recordings of real engines, is not there")
@pytest.mark.parametrize("folder", sorted(MEASURED.glob("*")), ids=lambda path: path.name)
def test_clusters_that_were_measured(folder: Path) -> None:
    inputs = folder / "input"
    files = {name: inputs / f"{name}.json" for name in ("cluster_config", "model_config")}
    files["engine_config"] = inputs / "engine.json"
    flags = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    run = prepare(from_flags([*flags, "--req_num", "1"]))
    deployment = run.deployments[0]
    stated = json.loads(files["engine_config"].read_text())["engine_kwargs"]
    members = stated.get("data_parallel_size", 1)
    assert len(run.deployments) == members == deployment.engine.parallelism.data
    assert deployment.engine.parallelism.expert == (members if stated.get("enable_expert_parallel") else 1)
    assert deployment.engine.scheduling.max_num_seqs == stated["max_num_seqs"]
    assert deployment.engine.parallelism.tensor == stated["tensor_parallel_size"]
    assert deployment.hardware.name == folder.name.partition("__")[0]
