"""ReaLLM's system files as runs of our own: what is taken over, what is refused, and that the runs go through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytical.embedded import create
from converters.chakra import read_graph, write_nodes
from converters.chakra.et_def_pb2 import AttributeProto, Node
from converters.execution_graph import CollectiveType, NodeType
from foundation.errors import UserError
from orchestrator.reallm.__main__ import main
from orchestrator.reallm.degrees import KINDS, Degrees, read_degrees
from orchestrator.reallm.importing import Given, import_system
from orchestrator.reallm.network import needs_files, network_files, why_not
from orchestrator.reallm.runs import plan
from orchestrator.reallm.system_file import MODELS, SystemFile, Traffic, read_system_file
from orchestrator.reallm.traffic import draw
from orchestrator.request_table import RequestTable
from orchestrator.settings.specification import RunSpec, from_flags
from orchestrator.simulation import prepare
from tests.trace_gen.test_llmcompass import DEVICE
from trace_gen.hardware import load_hardware
from trace_gen.models import load_model

SYSTEM = """\
model: llama70b
kernel_sim:
  compile_mode: heuristic-GPU
  kernel_types: [softmax, layernorm, mul, silu, matmul]
  prefill_blocks: [64, 128]
  decode_ctxt: [128, 256]
heterogeneous: false
system:
  device: GA100
  num_devices: 8
  io_algo: multishot
  attention_parallelism: tp4_pp2
  ffn_parallelism: tp4_pp2
  batching_algo: mixed-sarathi
  prefill_chunk: 512
system_sim:
  sim_method: llmcompass
  tasks: [code, conv]
  request_rates: [1, 2.5]
  end_reqs: 4
trace_gen:
  random_seed: 3
  tasks: [code]
  request_rates: [7]
  max_requests: 1000
  end_time: 100
"""
SHORT = "model: llama70b\nsystem:\n  device: H100\n  num_devices: 4\n  attention_parallelism: tp4\n"
LENGTHS = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{second:02d},{100 + second},{2 + second % 5}\n" for second in range(60)
)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as ReaLLM's, with a device, and lengths of both tasks."""
    (tmp_path / "configs/system").mkdir(parents=True)
    (tmp_path / "configs/device").mkdir()
    (tmp_path / "configs/device/GA100.json").write_text(json.dumps(DEVICE))
    (tmp_path / "lengths.csv").write_text(LENGTHS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def system(text: str, **changes: str) -> Path:
    """Write a system file with lines replaced by name; return its path."""
    lines = [
        f"{line.partition(':')[0]}: {changes.pop(name)}"
        if (name := line.partition(":")[0].strip()) in changes
        else line
        for line in text.splitlines()
    ]
    assert not changes, "a line to replace is not there"
    path = Path("configs/system/mine.yaml")
    path.write_text("\n".join(lines) + "\n")
    return path


def imported(text: str, **changes: str) -> Any:
    lengths = {"code": Path("lengths.csv"), "conv": Path("lengths.csv")}
    return import_system(Given(system(text, **changes), Path("runs"), lengths))


# --- degrees --------------------------------------------------------------------------------------


@given(st.permutations(KINDS), st.tuples(*[st.integers(1, 999_999)] * 4), st.integers(0, 4))
def test_degrees_in_any_order(order: list[str], values: tuple[int, ...], left_out: int) -> None:
    kept = dict(list(zip(order, values, strict=True))[left_out:])
    if not kept:
        return
    text = "_".join(f"{kind}{value}" for kind, value in kept.items())
    read = read_degrees(text)
    assert read == Degrees(text, *(kept.get(kind, 1) for kind in KINDS))
    assert read.devices == np.prod([kept.get(kind, 1) for kind in KINDS], dtype=object)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no parallelism; write degrees as in ep2_tp4_pp1_cp1"),
        ("tp", "is no parallelism"),
        ("8", "is no parallelism"),
        ("tp8 ", "is no parallelism"),
        ("tp8__pp2", "is no parallelism"),
        ("sp2", "is no parallelism"),
        ("tp1000000", "is no parallelism"),
        ("tp2_tp4", "says tp twice; leave one out"),
        ("tp0", "has tp 0; give at least 1"),
        ("tp4_dp2", "has data parallelism, which ReaLLM does not use; leave it out, or give runs --instances"),
    ],
)
def test_no_degrees(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        read_degrees(text)
    assert message in str(error.value)


def test_data_parallelism_of_one_is_none() -> None:
    assert read_degrees("dp1_tp2") == Degrees("dp1_tp2", 1, 2, 1, 1)
    assert Degrees("") == Degrees("", 1, 1, 1, 1)


# --- the file -------------------------------------------------------------------------------------


def test_every_key_is_read(workplace: Path) -> None:
    read = read_system_file(system(SYSTEM))
    assert read == SystemFile(
        path=Path("configs/system/mine.yaml"),
        models=("llama70b",),
        device="GA100",
        num_devices=(8,),
        parallelisms=[Degrees("tp4_pp2", tensor=4, pipeline=2)],
        algorithms=("mixed-sarathi",),
        chunks=(512,),
        io_algorithm="multishot",
        traces=(),
        traffic=Traffic(("code", "conv"), (1.0, 2.5), 3, 1000, 100.0),
        end_reqs=4,
        notes=[
            "kernel_sim: runs price every operator by its own size; orrery kernels fills a table of kernels",
            "sim_method llmcompass: LLMCompass is not run, operators are priced by the roofline",
        ],
        prefill_blocks=(64, 128),
        decode_contexts=(128, 256),
    )


def test_what_is_left_out_is_as_in_reallm(workplace: Path) -> None:
    read = read_system_file(system(SHORT))
    assert (read.algorithms, read.chunks, read.io_algorithm) == (("mixed-sarathi",), (2048,), "multishot")
    assert read.traffic == Traffic(("code", "conv"), (1.0,), 0, 50_000, 500.0)
    assert (read.traces, read.end_reqs, list(read.notes)) == ((), None, [])


def test_tasks_and_rates_of_the_trace_generator_are_simulated_where_nothing_else_is_said(workplace: Path) -> None:
    text = SYSTEM.replace("  tasks: [code, conv]\n  request_rates: [1, 2.5]\n", "")
    assert read_system_file(system(text)).traffic == Traffic(("code",), (7.0,), 3, 1000, 100.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llama3"}, 'line 1, model: "llama3" is unknown; did you mean llama'),
        ({"model": "[]"}, "line 1, model: is an empty list; write what is to be run"),
        ({"model": "[llama70b, llama70b]"}, 'model: "llama70b" stands there twice; leave one out'),
        ({"model": "5"}, "line 1, model: 5 is not a string"),
        ({"heterogeneous": "true"}, "line 7, heterogeneous: prompts and answers on different systems are not imported"),
        ({"num_devices": "0"}, "line 10, system.num_devices: 0 is not a whole number from 1 to 1048576"),
        ({"num_devices": "[8, 0]"}, "num_devices[1]: 0 is not a whole number from 1 to 1048576"),
        ({"io_algo": '""'}, "io_algo: communication that costs nothing is not simulated; write one of ring, 2d_ring"),
        ({"io_algo": "rings"}, 'io_algo: "rings" is unknown; did you mean ring'),
        ({"attention_parallelism": "tp4_xp2"}, 'attention_parallelism: "tp4_xp2" is no parallelism; write degrees'),
        ({"ffn_parallelism": "ep8"}, 'ffn_parallelism: ["ep8"] differs from attention_parallelism ["tp4_pp2"]; write'),
        ({"batching_algo": "prefetch-mixed"}, "batching_algo: prefetch-mixed has no counterpart: prefetching into 3D"),
        ({"batching_algo": "mixed-splitfuse"}, "mixed-splitfuse has no counterpart: ReaLLM itself does not implement"),
        ({"batching_algo": "sarathi"}, 'batching_algo: "sarathi" is unknown; did you mean mixed-sarathi'),
        ({"prefill_chunk": "0"}, "system.prefill_chunk: 0 is not a whole number from 1 to 1000000"),
        ({"sim_method": "exact"}, 'system_sim.sim_method: "exact" is unknown; known: llmcompass, roofline'),
        ({"request_rates": "[0]"}, "request_rates[0]: 0 is not a number of at least 1e-06 and at most 1e+06"),
        ({"tasks": "[chat]"}, 'system_sim.tasks: "chat" is unknown; known: code, conv'),
        ({"end_reqs": "0"}, "system_sim.end_reqs: 0 is not a whole number from 1 to 1000000"),
        ({"random_seed": "-1"}, "trace_gen.random_seed: -1 is not a whole number of at least 0"),
        ({"max_requests": "1.5"}, "trace_gen.max_requests: 1.5 is not a whole number from 1"),
        ({"end_time": "0"}, "trace_gen.end_time: 0 is not a number above 0"),
        ({"compile_mode": "x\n  kernels: y"}, "kernel_sim.kernels: unknown field; did you mean kernel_types"),
        ({"end_reqs": "4\n  traces: a.csv"}, "system_sim.tasks: tasks and traces are both given; leave one out"),
        ({"end_time": "1\ndecode_system: {}"}, "decode_system: prompts and answers on different systems are not imp"),
        ({"end_time": "1\ntrace: x.csv"}, "trace: unknown field; did you mean trace_gen"),
        ({"device": "GA100\n  batching: x"}, "system.batching: unknown field; did you mean batching_algo"),
    ],
)
def test_what_is_wrong_is_named(workplace: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        read_system_file(system(SYSTEM, **changes))
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["model", "attention_parallelism", "batching_algo", "io_algo", "tasks"])
def test_nothing_follows_from_what_is_no_text(workplace: Path, name: str) -> None:
    text = SYSTEM.replace("  ffn_parallelism: tp4_pp2\n", "")
    with pytest.raises(UserError, match=rf"{name}: 5 is not a string$") as error:
        read_system_file(system(text, **{name: "5"}))
    assert ";" not in str(error.value)


def test_sweeps_have_an_end(workplace: Path) -> None:
    most = ", ".join(str(chunk) for chunk in range(1, 101))
    rates = "[" + ", ".join(map(str, range(1, 51))) + "]"
    read = read_system_file(system(SYSTEM, prefill_chunk=f"[{most}]", request_rates=rates))
    assert read.runs == 10_000 and len(plan(read).engines) == 100
    with pytest.raises(UserError, match=r": the lists come to 10200 runs; give at most 10000$"):
        read_system_file(system(SYSTEM, prefill_chunk=f"[{most}]", request_rates=rates.replace("]", ", 60]")))
    with pytest.raises(UserError, match=r"system.prefill_chunk: 101 values; give at most 100$"):
        read_system_file(system(SYSTEM, prefill_chunk=f"[{most}, 101]"))


def test_what_must_be_there(workplace: Path) -> None:
    path = system("heterogeneous: false\n")
    with pytest.raises(UserError) as error:
        read_system_file(path)
    assert "model is missing" in str(error.value)
    assert "system is missing; give device, num_devices and attention_parallelism in it" in str(error.value)
    path.write_text("model: llama70b\nsystem: {}\n")
    with pytest.raises(UserError) as error:
        read_system_file(path)
    for name in ("device", "num_devices", "attention_parallelism"):
        assert f"system: {name} is missing" in str(error.value)


@pytest.mark.parametrize(("algorithm", "fabric"), [("ring", "none"), ("multishot", None)])
def test_a_ring_is_over_links_whatever_was_measured(workplace: Path, algorithm: str, fabric: str | None) -> None:
    given = system(SHORT)
    traffic = "trace_gen:\n  tasks: [code]\n  request_rates: [1]\n"
    given.write_text(f"{SHORT}  io_algo: {algorithm}\n{traffic}")
    (run,) = import_system(Given(given, Path("runs"), {"code": Path("lengths.csv")})).run_files
    network = from_flags(["--settings", str(run)]).engine.network
    assert network.fabric == fabric and (network.network is None) == (fabric == "none")


# --- combinations ---------------------------------------------------------------------------------


def test_a_run_for_every_combination(workplace: Path) -> None:
    """Models x parallelisms x (policies, chunks of the one that has them); what cannot be is left out with a reason."""
    read = read_system_file(
        system(
            SYSTEM,
            model="[llama70b, deepseekv3]",
            num_devices="[8, 16, 64]",
            attention_parallelism="[tp8, ep4_tp2, tp16, tp2]",
            ffn_parallelism="[tp8, ep4_tp2, tp16, tp2]",
            batching_algo="[continuous, mixed-sarathi]",
            prefill_chunk="[256, 512]",
        )
    )
    made = plan(read)
    ends = ("continuous", "mixed-sarathi-chunk256", "mixed-sarathi-chunk512")
    kept = [("llama70b", "tp8"), ("llama70b", "tp16"), ("deepseekv3", "tp8"), ("deepseekv3", "ep4_tp2")]
    kept.append(("deepseekv3", "tp16"))
    assert [one.name for one in made.engines] == [f"{model}-{degrees}-{end}" for model, degrees in kept for end in ends]
    assert made.left_out == {
        "num_devices 64": "the parallelisms take 2 or 8 or 16 devices",
        **{f"llama70b-ep4_tp2-{end}": "ep4_tp2 spreads experts, of which llama70b has none" for end in ends},
        **{
            f"{model}-tp2-{end}": "tp2 takes 2 devices, num_devices is 8 or 16 or 64"
            for model in ("llama70b", "deepseekv3")
            for end in ends
        },
    }


def test_policies() -> None:
    def settings(algorithm: str, chunk: int | None, text: str = "tp2") -> Mapping[str, Any]:
        from orchestrator.reallm.runs import Engine

        return Engine("deepseekv2", read_degrees(text), algorithm, chunk).settings()

    engine = {"model_name": "deepseek-ai/DeepSeek-V2", "tensor_parallel_size": 2, "pipeline_parallel_size": 1}
    assert settings("baseline", None) == {**engine, "scheduling": "none"}
    for name in ("continuous", "mixed-continuous"):
        assert settings(name, None) == {**engine, "scheduling": name}
    chunks = {"scheduling": "chunked-mixed-continuous", "prefill_chunk": 512}
    assert settings("mixed-sarathi", 512) == {**engine, **chunks}
    shared = {"tensor_parallel_size": 12, "pipeline_parallel_size": 2, "cp_size": 5, "enable_expert_parallel": True}
    assert settings("mixed-sarathi", 512, "ep4_tp3_pp2_cp5") == {**engine, **chunks, **shared}


@pytest.mark.parametrize(
    ("model", "layers", "hidden", "heads", "kv_heads", "inner"),
    [("llama70b", 80, 8192, 64, 8, 28672), ("llama405b", 126, 16384, 128, 8, 53248)],
)
def test_models_have_the_sizes_of_reallm(
    model: str, layers: int, hidden: int, heads: int, kv_heads: int, inner: int
) -> None:
    found = load_model(MODELS[model])
    block = found.layer_kinds[0]
    assert (found.num_layers, found.hidden_size, block.mlp.inner) == (layers, hidden, inner)
    assert (block.attention.heads, block.attention.kv_heads) == (heads, kv_heads)
    assert found.max_position >= 2**17


# --- traffic --------------------------------------------------------------------------------------


def table(*rows: tuple[int, int]) -> RequestTable:
    prompts, outputs = np.array(rows, dtype=np.int64).T
    nothing = np.zeros_like(prompts)
    return RequestTable(np.arange(len(rows)), prompts, outputs, nothing, nothing)


MANY = Traffic(("code",), (4.0,), 0, 20_000, 1e8)


def test_gaps_and_rows() -> None:
    """Exponential gaps of mean 1 / rate (20,000 draws: 5 standard errors), rows alike often, never torn apart."""
    rows = [(10, 1), (20, 2), (30, 3), (40, 4)]
    requests = list(draw(table(*rows), MANY, "code", 4.0))
    assert [one.id for one in requests] == list(range(20_000))
    gaps = [requests[0].arrival_ns, *(b.arrival_ns - a.arrival_ns for a, b in pairwise(requests))]
    assert fmean(gaps) == pytest.approx(0.25e9, rel=5 / 20_000**0.5)
    assert np.std(gaps) == pytest.approx(0.25e9, rel=0.05) and min(gaps) >= 0
    drawn = [(one.prompt_tokens, one.output_tokens) for one in requests]
    for row in rows:
        assert drawn.count(row) == pytest.approx(5000, rel=5 * (3 / 20_000) ** 0.5)


def test_a_draw_depends_on_seed_task_and_rate_alone() -> None:
    lengths = table((10, 1), (20, 2), (30, 3))

    def first(seed: int = 0, task: str = "code", rate: float = 4.0, count: int = 50) -> list[tuple[int, int]]:
        drawn = draw(lengths, replace(MANY, seed=seed), task, rate)
        return [(one.arrival_ns, one.prompt_tokens) for one in islice(drawn, count)]

    assert first() == first(count=100)[:50]
    others = (first(seed=1), first(task="conv"), first(rate=5.0))
    assert all(first() != other for other in others)
    assert [tokens for _, tokens in first()] != [tokens for _, tokens in others[1]]
    # Whatever machine, Python or NumPy: random.Random's doubles, and no others, decide.
    assert first(count=5) == PINNED


PINNED = [(100770955, 10), (623417065, 10), (668041746, 10), (920836273, 30), (932432485, 30)]


def test_traffic_ends() -> None:
    lengths = table((10, 1))
    until = list(draw(lengths, replace(MANY, end_time=10.0), "code", 4.0))
    whole = list(islice(draw(lengths, MANY, "code", 4.0), len(until) + 1))
    assert 10 < len(until) < 80 and whole[-2].arrival_ns < 10e9 <= whole[-1].arrival_ns
    assert len(list(draw(lengths, replace(MANY, max_requests=7), "code", 4.0))) == 7
    edge = replace(MANY, end_time=whole[0].arrival_ns / 1e9)
    assert not list(draw(lengths, edge, "code", 4.0)), "none at the end itself"


# --- networks -------------------------------------------------------------------------------------


def reduced_ns(folder: Path, io_algorithm: str, text: str, size: int) -> int:
    """Return how long the ranks that share a stage take for an all-reduce of `size` bytes."""
    device = replace(load_hardware("A100-80G"), link_bandwidth=300 * 2.0**30, link_latency_ns=8920)
    degrees = read_degrees(text)
    network, algorithms = network_files(io_algorithm, degrees, device)
    backend = create(
        network=network.to_text(),
        system=replace(algorithms, endpoint_delay=1, peak_perf=1.0, local_mem_bw=1e6).to_text(),
        memory='{"memory-type": "NO_MEMORY_EXPANSION"}',
        options={},
    )
    numbers = {"comm_type": CollectiveType.ALL_REDUCE, "comm_size": size}
    attributes = [AttributeProto(name=name, int64_val=value) for name, value in numbers.items()]
    node = Node(id=1, name="all_reduce", type=NodeType.COMM_COLL, attr=attributes)
    node.attr.append(AttributeProto(name="is_cpu_op", bool_val=False))
    for rank in range(network.npus):
        write_nodes(f"{folder}/reduce.{rank}.et", [node])
    return int(backend.simulate(read_graph(f"{folder}/reduce", network.npus)).makespan_ns[0])


@pytest.mark.parametrize("sharing", [2, 4, 8])
def test_multishot_scatters_and_gathers_in_a_step_each(tmp_path: Path, sharing: int) -> None:
    """2 (a + n (p - 1) / (p B)); ReaLLM's own 2 (a + n / B) is above it, and near for many devices."""
    size, bandwidth, latency = 64 * 2**20, 300 * 2.0**30 / 1e9, 8920
    took = reduced_ns(tmp_path, "multishot", f"tp{sharing}", size)
    assert took == pytest.approx(2 * (latency + size * (sharing - 1) / (sharing * bandwidth)), rel=1e-3)
    assert took < 2 * (latency + size / bandwidth)


@pytest.mark.parametrize("side", [2, 4])
def test_2d_rings(tmp_path: Path, side: int) -> None:
    """Both sides one after another: 2 (s - 1) (2 a + n / (s B) + n / (s^2 B)); ReaLLM leaves out the last term."""
    size, bandwidth, latency = 64 * 2**20, 300 * 2.0**30 / 1e9, 8920
    took = reduced_ns(tmp_path, "2d_ring", f"tp{side * side}", size)
    whole = 2 * (side - 1) * (2 * latency + size / (side * bandwidth) + size / (side**2 * bandwidth))
    assert took == pytest.approx(whole, rel=1e-3)


def test_shapes_of_networks() -> None:
    device = load_hardware("A100-80G")
    network, algorithms = network_files("multishot", read_degrees("ep2_tp2_pp3_cp5"), device)
    bandwidth = device.link_bandwidth / 2**30
    assert network.npus_count == (4, 5, 3) and network.bandwidth == (bandwidth / 3, bandwidth, bandwidth)
    assert set(algorithms.implementations.values()) == {("direct", "ring", "ring")}
    network, algorithms = network_files("2d_ring", read_degrees("tp9_pp2"), device)
    assert network.npus_count == (3, 3, 2) and set(network.bandwidth) == {bandwidth}
    assert set(algorithms.implementations.values()) == {("ring", "ring", "ring")}
    assert set(network.latency) == {float(device.link_latency_ns)}


def test_who_needs_files_of_its_own() -> None:
    assert needs_files("multishot", read_degrees("tp2")) and needs_files("2d_ring", read_degrees("ep4"))
    assert not needs_files("ring", read_degrees("tp2")) and not needs_files("multishot", read_degrees("pp4"))
    assert not why_not("2d_ring", read_degrees("tp4")) and not why_not("multishot", read_degrees("tp8"))
    assert why_not("2d_ring", read_degrees("tp8")) == "2d_ring over 8 devices that share a stage: they are no square"
    assert not why_not("2d_ring", read_degrees("pp8"))


# --- whole imports --------------------------------------------------------------------------------


def test_files_of_an_import(workplace: Path) -> None:
    made = imported(SYSTEM)
    names = [
        f"llama70b-tp4_pp2-mixed-sarathi-chunk512-{task}-rate{r}" for task in ("code", "conv") for r in ("1", "2.5")
    ]
    assert list(made.run_files) == [Path(f"runs/{name}.yaml") for name in names] and not made.left_out
    spec = from_flags(["--settings", str(made.run_files[1])])
    engine = spec.engine
    assert (engine.model.model_name, engine.model.hardware) == (
        "meta-llama/Llama-3.1-70B",
        "configs/device/GA100.json",
    )
    assert (engine.parallelism.tensor, engine.parallelism.stages) == (4, 2)
    assert (spec.workload.dataset, spec.workload.req_num) == (Path("runs/workloads/code-rate2.5.tsv"), 4)
    assert spec.output.output == Path(f"runs/results/{names[1]}.csv")
    run = prepare(spec)
    network = run.deployments[0].configurations.network
    assert network.npus_count == (4, 2) and network.bandwidth[1] == 3 * network.bandwidth[0]
    rows = Path("runs/workloads/code-rate2.5.tsv").read_text().splitlines()
    assert len(rows) == 1 + sum(1 for _ in draw(lengths_of(), traffic_of(), "code", 2.5))


def lengths_of() -> RequestTable:
    from orchestrator.requests.formats import read_requests

    return read_requests("lengths.csv").requests


def traffic_of() -> Traffic:
    return read_system_file(Path("configs/system/mine.yaml")).traffic


def test_the_same_import_writes_the_same_bytes(workplace: Path) -> None:
    imported(SYSTEM)
    first = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    imported(SYSTEM)
    assert first == {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    assert len(first) == 4 + 4 + 2


def test_rings_need_no_files(workplace: Path) -> None:
    made = imported(SYSTEM, io_algo="ring")
    assert not Path("runs/networks").exists()
    network = prepare(from_flags(["--settings", str(made.run_files[0])])).deployments[0].configurations.network
    device = load_hardware("configs/device/GA100.json")
    assert network.bandwidth == (device.link_bandwidth / 2**30,) * 2 and network.latency == (8920.0,) * 2


def test_a_device_of_ours(workplace: Path) -> None:
    made = imported(SHORT)
    assert from_flags(["--settings", str(made.run_files[0])]).engine.model.hardware == "H100"
    Path("elsewhere").mkdir()
    Path("elsewhere/H100.json").write_text(json.dumps(DEVICE))
    given = Given(
        system(SHORT), Path("runs"), {task: Path("lengths.csv") for task in ("code", "conv")}, Path("elsewhere")
    )
    spec = from_flags(["--settings", str(import_system(given).run_files[0])])
    assert spec.engine.model.hardware == "elsewhere/H100.json"


def test_traces(workplace: Path) -> None:
    """Files that are there are read, those that ReaLLM's generator would have written are drawn."""
    Path("mine.csv").write_text(
        "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n0,2,0,0.5,1,30,2\n"
    )
    text = SHORT + "system_sim:\n  traces: [mine.csv, workspace/traces/rr_conv_1.csv]\n"
    made = imported(text)
    datasets = [from_flags(["--settings", str(path)]).workload.dataset for path in made.run_files]
    assert datasets == [Path("mine.csv"), Path("runs/workloads/conv-rate1.tsv")]
    with pytest.raises(UserError, match=r"rr_conv_9.csv: the workload file does not exist"):
        imported(text.replace("conv_1", "conv_9"))
    Path("other").mkdir()
    Path("other/mine.csv").write_bytes(Path("mine.csv").read_bytes())
    with pytest.raises(UserError, match=r"system_sim.traces: two files of requests are called mine; name them apart$"):
        imported(SHORT + "system_sim:\n  traces: [mine.csv, other/mine.csv]\n")


def test_lengths_must_be_given(workplace: Path) -> None:
    with pytest.raises(UserError) as error:
        import_system(Given(system(SHORT), Path("runs"), {"code": Path("lengths.csv")}))
    assert str(error.value) == (
        "configs/system/mine.yaml, tasks: lengths of task conv are drawn from a trace, and none is given; give --conv "
        "AzureLLMInferenceTrace_conv.csv of the Azure Public Dataset, or any workload file"
    )
    assert not Path("runs").exists(), "nothing is written"


def test_what_does_not_fit_is_left_out(workplace: Path) -> None:
    made = imported(SYSTEM, model="[llama70b, llama405b]")
    assert len(made.run_files) == 4
    ((name, why),) = made.left_out.items()
    assert name == "llama405b-tp4_pp2-mixed-sarathi-chunk512" and "needs 101.466 GB an NPU for its weights" in why
    with pytest.raises(UserError, match=r"no combination can be run: llama405b-tp4_pp2-.*: .*an NPU has 85.899 GB"):
        imported(SYSTEM, model="llama405b")


def test_nobody_arrives(workplace: Path) -> None:
    with pytest.raises(
        UserError, match=r"no request of task code arrives within 1e-06 s at 1 requests/s; give more time"
    ):
        imported(SYSTEM, end_time="1e-06")


def test_lengths_are_not_replaced(workplace: Path) -> None:
    Path("runs/workloads").mkdir(parents=True)
    drawn = Path("runs/workloads/conv-rate1.tsv")
    drawn.write_text("10\t5\t0\n")
    given = Given(system(SYSTEM), Path("runs"), {"code": Path("lengths.csv"), "conv": drawn.absolute()})
    with pytest.raises(UserError, match=r"conv-rate1.tsv, --conv: would be replaced; name another FOLDER$"):
        import_system(given)
    assert drawn.read_text() == "10\t5\t0\n" and not list(Path("runs").glob("*.yaml"))


def test_an_unknown_device(workplace: Path) -> None:
    with pytest.raises(UserError) as error:
        imported(SYSTEM, device="GA101")
    for said in ("system.device: there is no configs/device/GA101.json", "unknown hardware 'GA101'", "give --devices"):
        assert said in str(error.value)


def test_the_command(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = system(SYSTEM, model="[llama70b, llama405b]")
    assert main([str(path), "runs", "--code", "lengths.csv", "--conv", "lengths.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "note: multishot: a step to all peers at once, over which a device's bandwidth is divided"
    assert lines[3].startswith(
        "left out: llama405b-tp4_pp2-mixed-sarathi-chunk512: --npu_mem: meta-llama/Llama-3.1-405B"
    )
    assert lines[4:] == [
        "4 run files written to runs: simulate them with",
        "    python -m orchestrator.run_files runs/*.yaml",
    ]


def test_notes(workplace: Path) -> None:
    text = system(SHORT, num_devices="[4, 2]", attention_parallelism="[ep4, tp2]").read_text()
    made = imported(text + "  batching_algo: [continuous, baseline]\n  io_algo: ring\n")
    assert made.notes == [
        "baseline: the answers of a batch are returned together, when the last of them ends",
        "ep: the devices of ep and tp share attention by heads, and hold whole experts",
    ]


def test_a_run_of_python_repeats_an_import(workplace: Path) -> None:
    made = imported(SYSTEM, io_algo="ring")
    text = {line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in
            made.run_files[0].read_text().splitlines()[1:]}  # fmt: skip
    assert RunSpec.of(**text) == from_flags(["--settings", str(made.run_files[0])])
