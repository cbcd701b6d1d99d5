"""What a run reads (workload, run file, flags), up to where it would begin; cases and recordings of replays."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np

from astra_files.network import NetworkConfig
from benchmarks.fuzz.readers.commands import words
from benchmarks.fuzz.target import Target, targets
from foundation.errors import UserError
from orchestrator.cluster.node_network import node_network
from orchestrator.cluster.nodes import load_node
from orchestrator.commands.workload import read_flags
from orchestrator.fabrics.carrying import NAMES, CarriedCurves
from orchestrator.fabrics.reading import load_fabric
from orchestrator.reallm.runs import plan
from orchestrator.reallm.system_file import read_system_file
from orchestrator.replay.__main__ import main as replay_command
from orchestrator.replay.case import read_case
from orchestrator.replay.run import replay
from orchestrator.requests.formats import read_requests
from orchestrator.requests.importing.reading import BadRecords, Reading
from orchestrator.settings.specification import from_flags
from orchestrator.simulation import prepare
from orchestrator.validation.comparison import compare
from orchestrator.validation.formats import read_recording
from orchestrator.validation.formats.orrery_run import read_series as read_run_series
from orchestrator.validation.formats.requests_jsonl import read_series
from orchestrator.validation.page import render
from orchestrator.workload import ReadWorkload, read_workload

_MOST_STEPS = 400
_JSON_FORMATS = (
    "aiperf",
    "aiperf-inputs",
    "genai-perf",
    "guidellm",
    "mooncake",
    "openai-batch",
    "sharegpt",
    "sharegpt-sessions",
    "vllm-custom",
    "vllm-result",
)
_CASE = {
    "num_gpu_blocks": 64,
    "max_model_len": 512,
    "latency_model": {"a_us": 1000, "b_us_per_token": 0.5, "c_us_per_kv_token": 0},
    "requests": [{"id": "a", "arrival": 0, "output_len": 3, "prompt_len": 40}],
}


def _workload(path: Path) -> None:
    assert read_workload(path).rows >= 1
    assert read_workload(path, 2).rows >= 1


def _csv(path: Path) -> None:
    read = read_requests(path)
    assert read.rows == len(read.requests) >= 1 and read.requests.longest().prompt_tokens >= 1
    assert read_requests(path, 1).rows >= read.rows  # what failed is not looked at beyond the first


def _jsonl(path: Path) -> None:
    """Read a workload whatever its first line is; its rows have what belongs to them."""
    read = read_requests(path, named="llmservingsim")
    table = read.requests
    assert read.rows == len(table) == sum(1 for _ in table.in_arrival_order()) >= 1
    assert all(len(one.prompt_token_ids or ()) in (0, one.prompt_tokens) for one in table)
    assert 1 <= len(table.openings()) <= len(table)
    assert len(read_requests(path, 1, named="llmservingsim").requests) == 1


def _json(path: Path) -> None:
    """Read a workload as each format of JSON, its malformed records skipped; and as what it seems to be."""
    for name in _JSON_FORMATS:
        with contextlib.suppress(UserError):
            read = read_requests(path, named=name, reading=Reading(bad=BadRecords(skip=True)))
            _check_read(read)
            assert len(read_requests(path, 1, named=name, reading=Reading(bad=BadRecords(skip=True))).requests) == 1
    _check_read(read_requests(path))


def _check_read(read: ReadWorkload) -> None:
    """Rows have what belongs to them."""
    table = read.requests
    assert read.rows == len(table) == sum(1 for _ in table.in_arrival_order()) >= 1
    assert all(len(one.prompt_token_ids or ()) in (0, one.prompt_tokens) for one in table)
    assert min(table.prompt_tokens.min(), table.output_tokens.min()) >= 1 and table.arrival_ns.min() >= 0


def _reallm_system(path: Path) -> None:
    made = plan(read_system_file(path))
    assert made.engines or made.left_out
    for engine in made.engines:
        engine.settings()


def _run_file(path: Path) -> None:
    prepare(from_flags(["--settings", str(path)]))


def _cluster_config(path: Path) -> None:
    """A cluster file by itself, and with an engine's arguments that agree with a file of one GPT-2 on one GPU."""
    prepare(from_flags(["--cluster_config", str(path), "--req_num", "1"]))
    arguments = path.with_name("engine.json")
    arguments.write_text(json.dumps({"max_num_seqs": 4, "dtype": "bfloat16"}))
    from_flags(["--cluster_config", str(path), "--engine_config", str(arguments)])


def _engine_config(path: Path) -> None:
    prepare(from_flags(["--engine_config", str(path), "--req_num", "1"]))


def _node(path: Path) -> None:
    """A node file, and an engine on one, two and three of its nodes."""
    node = load_node(str(path))
    for axes, nodes in (((1, 1, 1), None), ((node.npus, 1, 1), None), ((1, 2, node.npus), 2), ((2, 3, 1), 3)):
        with contextlib.suppress(UserError):
            made = node_network(node, axes, nodes)
            assert made.npus == math.prod(axes) and NetworkConfig.from_text(made.to_text()) == made


def _fabric(path: Path) -> None:
    """A fabric file or output of nccl-tests: times of a few sizes, and sizes that take them."""
    fabric = load_fabric(str(path))
    network = NetworkConfig(("FullyConnected",), (8,), (450.0,), (1.0,))
    curves = CarriedCurves.on(network, fabric)
    for kind in NAMES:
        if not curves.obstacle(kind, (8,)):
            sizes = np.array([1, 4096, 2**20, 2**40])
            assert (curves.sizes(kind, (8,), sizes) > 0).all() and (fabric.times_ns(NAMES[kind], 8, sizes) > 0).all()


def _flags(path: Path) -> None:
    prepare(from_flags(words(path)))


def _case(path: Path) -> None:
    """Read a case by the rules of both versions, and replay it where that is quick."""
    for version in ("0.19", "0.33"):
        case = read_case(path, version)
        budget = min(case.config.max_num_batched_tokens, case.config.block_size * case.config.num_gpu_blocks)
        steps = sum(one.output_tokens + one.prompt_tokens // budget for one in case.requests)
        if steps <= _MOST_STEPS:
            json.dumps(replay(case))


def _recording(path: Path) -> None:
    case = path.with_name("case.json")
    case.write_text(json.dumps(_CASE))
    with contextlib.redirect_stdout(io.StringIO()):
        replay_command([str(case), "--check", str(path)])


def _recorded_run(path: Path) -> None:
    """Read a recording in any format, compare it with itself, and show the errors, of which there are none."""
    one = read_recording(path)
    comparison = compare(one, one)
    assert all(figure.error in (0, None) for figure in comparison.figures)
    assert render(comparison) and json.dumps(comparison.as_json())


def _series(path: Path) -> None:
    """Read state over time as a server's and as ours."""
    with contextlib.suppress(UserError):
        read_run_series(path)
    assert len(read_series(path).ends_ns)


targets.register("workload_tsv")(Target("workloads in TSV", _workload, "workload.tsv"))
targets.register("workload_csv")(
    Target("workloads in CSV: ReaLLM's, Azure's, BurstGPT's, Vidur's", _csv, "workload.csv")
)
targets.register("workload_json")(
    Target("workloads in JSON: conversations, traces, batches, results of benchmarks", _json, "workload.json")
)
targets.register("workload_jsonl")(Target("workloads in JSON Lines: LLMServingSim's", _jsonl, "workload.jsonl"))
targets.register("reallm_system")(Target("system files of ReaLLM", _reallm_system, "system.yaml"))
targets.register("run_yaml")(Target("run files in YAML", _run_file, "run.yaml"))
targets.register("run_json")(Target("run files in JSON", _run_file, "run.json"))
targets.register("cluster_config")(Target("cluster files of LLMServingSim", _cluster_config, "cluster.json"))
targets.register("engine_config")(Target("arguments of a vLLM engine", _engine_config, "arguments.json"))
targets.register("node")(Target("node files", _node, "node.json"))
targets.register("fabric")(Target("fabric files", _fabric, "fabric.json"))
targets.register("nccl_tests")(Target("output of nccl-tests", _fabric, "all_reduce.txt"))
targets.register("flags")(Target("flags of the main job", _flags))
targets.register("generator_flags")(Target("flags of orrery workload", lambda path: read_flags(words(path))))
targets.register("replay_case")(Target("cases of replays", _case, "case.json"))
targets.register("recording")(Target("recordings of replays", _recording, "expected.json"))
targets.register("recorded_run")(Target("recordings of runs: servers', clients', our own", _recorded_run, "recorded"))
targets.register("time_series")(Target("state over time of a recorded run", _series, "timeseries.csv"))
