"""Kernel tables: what they hold, how near runs by them come, and that a kill or more processes change nothing."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from filled import LIMITS, MODELS, contents, filled, plan_of, run_file
from helpers.small_profile import bundle

from foundation.errors import UserError
from orchestrator.commands.kernels import kernels
from orchestrator.kernels.deployments import read_deployments
from orchestrator.kernels.filling import Pricer, fill
from orchestrator.kernels.planning import plan_tables
from orchestrator.settings.specification import RunSpec
from orchestrator.simulation import Simulation
from trace_gen.hardware import load_hardware
from trace_gen.kernels.grid import grown, sparse
from trace_gen.kernels.layout import read_meta, read_rank
from trace_gen.kernels.pricing import price
from trace_gen.kernels.shapes import Limits
from trace_gen.models import load_model
from trace_gen.perf_model import PerfModelOptions, make_perf_model
from trace_gen.perf_models.profile.kernel_tables import KernelTableModel, KernelTimes

ROOT = Path(__file__).parents[2]
MEASURED = Path(os.environ.get("ORRERY_SHARED", Path(__file__).parents[3] / "shared")) / "measured"
SYSTEM = """\
model: {model}
kernel_sim: {{prefill_blocks: [100, 300], decode_ctxt: [333]}}
system: {{device: A100, num_devices: 8, io_algo: ring, attention_parallelism: {parallelism}}}
"""
ROWS = [(100 + 37 * place % 400, 8 + 5 * place % 60, place * 1_500_000) for place in range(40)]
PARALLEL = {"dense": {"tensor_parallel_size": 2}, "latent": {"tensor_parallel_size": 2, "enable_expert_parallel": True}}


def dataset(folder: Path) -> Path:
    path = folder / "requests.tsv"
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in ROWS))
    return path


def simulated(folder: Path, model: str, **more: object) -> Simulation:
    values = {"hardware": "A100", "scheduling": "vllm", "max_num_seqs": 8, "max_num_batched_tokens": 512}
    values |= {"host_step_us": 0, "host_request_us": 0, "launch_us": 0}  # or the host would hide what differs
    values |= {"model_name": str(folder / f"{model}.json"), "dataset": dataset(folder), **PARALLEL.get(model, {})}
    return Simulation(RunSpec.of(**{**values, **more}))


# --- what is in a table ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_at_its_sizes_a_table_says_what_it_was_filled_with(tmp_path: Path, model: str) -> None:
    """Every kernel at every size, to the nanosecond, through files."""
    plan = plan_of(run_file(tmp_path, model, **PARALLEL.get(model, {})))
    fill(plan, tmp_path / "table", 1, lambda done, total: None)
    pricer, compared = Pricer(plan.specs, plan.limits), 0
    vocabulary = plan.deployment.generator.perf_model.vocabulary
    models = {
        tensor: KernelTableModel(KernelTimes.of(read_rank(tmp_path / "table", tensor)), "table", vocabulary)
        for tensor in plan.specs
    }
    for job in plan.jobs:
        if not job.probe:
            own = price(models[job.tensor], job.tensor, job.kernel, job.sizes)
            assert own == pricer.times(job), job.kernel
            compared += len(own)
    assert compared > 500
    counts = [counts for one in models.values() for counts in one.lookups.counts().values()]
    assert all(one.measured == one.total for one in counts)


def test_the_shapes_of_llama_70b(tmp_path: Path) -> None:
    """ReaLLM's formulas by hand: H 64, KV heads 8, d 8192, FFN 28672, heads of 128; divided by the ranks."""
    path = tmp_path / "system.yaml"
    path.write_text(SYSTEM.format(model="llama70b", parallelism="[tp8, tp4_pp2]"))
    [plan], _ = plan_tables(read_deployments(path, None, None), Limits(4096, 4096, 64))
    found = {}
    for tensor, kernel in plan.sizes:
        if kernel.name.endswith("_proj"):
            found[tensor, kernel.name] = (kernel.inputs // 2, kernel.outputs // 2)
            assert kernel.flops == 2 * np.prod(found[tensor, kernel.name]) and kernel.weights == kernel.flops
    assert found == {
        (tensor, name): shape
        for tensor in (4, 8)
        for name, shape in {
            "qkv_proj": (8192, (64 + 2 * 8) * 128 // tensor),
            "o_proj": (64 * 128 // tensor, 8192),
            "gate_up_proj": (8192, 2 * 28672 // tensor),
            "down_proj": (28672 // tensor, 8192),
        }.items()
    }
    by_name = {kernel.name: sizes for (tensor, kernel), sizes in plan.sizes.items() if tensor == 8}
    assert {(100,), (300,), (4096,)} <= set(by_name["qkv_proj"]), "the file's own sizes are added"
    assert (0, 0, 64, 333) in by_name["attention"] and (2048, 0, 0, 0) in by_name["attention"]
    assert {*plan.users.values().__iter__().__next__()} <= {
        f"llama70b-{text}-mixed-sarathi-chunk2048" for text in ("tp8", "tp4_pp2")
    }


def test_pipelines_add_no_kernels_and_tensor_parallelism_does(tmp_path: Path) -> None:
    path = tmp_path / "system.yaml"

    def keys(parallelism: str) -> set[object]:
        path.write_text(
            SYSTEM.format(model="llama70b", parallelism=parallelism).replace("num_devices: 8", "num_devices: [4, 8]")
        )
        [plan], _ = plan_tables(read_deployments(path, None, None), Limits(64, 64, 4))
        return set(plan.sizes)

    assert keys("[tp4]") == keys("[tp4, tp4_pp2]") < keys("[tp4, tp8]")


def test_listing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_file(tmp_path, "latent", **PARALLEL["latent"])
    assert kernels([str(path), "--list", str(tmp_path / "list.csv"), "--max_tokens", "64", "--max_context", "64"]) == 0
    with (tmp_path / "list.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    said = capsys.readouterr().out
    assert f"{len(rows)} kernels, {sum(int(row['sizes']) for row in rows)} sizes" in said
    by_name = {row["kernel"]: row for row in rows}
    assert by_name["expert_down_proj"]["shape"] == "M x 128 x 256, 4 experts", "8 experts on 2 ranks"
    assert by_name["latent_attention"]["shape"] == "4 on 1 heads" and by_name["attention"]["shape"] == "4 on 4 heads"
    assert by_name["lm_head"]["shape"] == "M x 256 x 512" and by_name["q_b_proj"]["tp"] == "2"
    assert kernels([str(path), "--max_tokens", "64"]) == 0
    assert "expert_down_proj" in capsys.readouterr().out


def test_what_tables_do_not_know_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "system.yaml"
    path.write_text(SYSTEM.format(model="llama70b", parallelism="[tp8, tp4_cp2, ep8]"))
    [plan], left_out = plan_tables(read_deployments(path, None, None), Limits(64, 64, 4))
    assert {name.split("-")[1]: why for name, why in left_out.items()} == {
        "ep8": "ep8 spreads experts, of which llama70b has none"
    }
    assert set(plan.specs) == {4, 8}
    message = "no kernels can be listed: windowed: --cp_size: context-parallel ranks divide attention with a window"
    with pytest.raises(UserError, match=message):
        plan_of(run_file(tmp_path, "windowed", cp_size=2))


def test_sizes() -> None:
    assert grown(13) == [1, 2, 3, 4, 6, 8, 12, 13] and grown(1) == [1]
    assert grown(20, 4) == [*range(1, 9), 10, 12, 14, 16, 20]
    assert sparse(3, 50) == [3, 12, 48, 50] and sparse(7, 7) == [7]


# --- runs by a table ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "more"),
    [
        *((model, {}) for model in MODELS),
        *((model, {"cp_size": 2, "cp_mode": mode}) for model in ("dense", "latent") for mode in ("ring", "allgather")),
        ("dense", {"pipeline_parallel_size": 2}),
        ("mixture", {"tensor_parallel_size": 2, "sequence_parallel": True}),
    ],
)
def test_a_run_by_the_table_is_the_rooflines_within_the_error_it_prints(
    tmp_path: Path, model: str, more: dict[str, object]
) -> None:
    """Each class of operators by its own greatest error, the whole run by the greatest mean."""
    more = {**PARALLEL.get(model, {}), **more}
    meta = filled(run_file(tmp_path, model, **more), tmp_path / "table")
    roofline = simulated(tmp_path, model, **more).run().summary
    table = simulated(tmp_path, model, profile_dir=tmp_path / "table", **more).run().summary
    lookups = table.lookups
    assert lookups is not None and lookups.off_percent is not None and roofline.lookups is None
    assert lookups.measured > 0 and lookups.interpolated > 50 and lookups.extrapolated == 0
    assert lookups.off_percent == {name: {"mean": one.mean, "most": one.most} for name, one in meta.errors.items()}
    mean = max(one.mean for one in meta.errors.values())
    assert 0 < mean < 15
    for figure in ("makespan_s", "generated_tokens_per_s"):
        assert getattr(table, figure) == pytest.approx(getattr(roofline, figure), rel=mean / 100)
    assert table.tpot_ms["mean"] == pytest.approx(roofline.tpot_ms["mean"], rel=mean / 100)
    # Requests wait for each other here, which multiplies what a step is off.
    most = max(one.most for one in meta.errors.values())
    for name in ("ttft_ms", "latency_ms"):
        assert table.latency(name)["mean"] == pytest.approx(roofline.latency(name)["mean"], rel=1.2 * most / 100)
    classes = {
        "matrix products": ("gemm", "experts"),
        "attention": ("attention_decodes", "attention_prompts", "attention_mixed"),
        "elementwise": ("elementwise",),
        "embedding": ("embedding",),
        "sampling": ("sampler",),
    }
    for name, own in classes.items():
        most = max(meta.errors[one].most for one in own if one in meta.errors)
        found, true = table.simulated_time_s[name], roofline.simulated_time_s[name]
        # The iterations of the two need not be the same, so the makespan's own error comes on top.
        assert found == pytest.approx(true, rel=(most + mean) / 100 + 1e-3), name


def test_a_large_models_run_by_its_table(tmp_path: Path) -> None:
    """As users run it: the greatest mean error, and a fifth, bounds what the run is off."""
    path = tmp_path / "run.yaml"
    path.write_text("model_name: meta-llama/Llama-3.1-8B\nhardware: H100\n")
    meta = filled(path, tmp_path / "table", Limits(2048, 2048, 64))
    values = {"model_name": "meta-llama/Llama-3.1-8B", "hardware": "H100", "scheduling": "sarathi", "req_num": 40}
    runs = [Simulation(RunSpec.of(**values, **more)).run() for more in ({}, {"profile_dir": tmp_path / "table"})]
    roofline, table = (run.summary for run in runs)
    most = max(one.mean for one in meta.errors.values())
    assert most < 8
    for name in ("ttft_ms", "tpot_ms", "latency_ms"):
        for figure in ("mean", "p50", "p99"):
            assert table.latency(name)[figure] == pytest.approx(roofline.latency(name)[figure], rel=1.2 * most / 100)
    ends = [run.columns["end"].tolist() for run in runs]
    assert ends[0] != ends[1], "something was interpolated"
    assert table.lookups is not None and table.lookups.extrapolated == 0


def test_compiled_loops_traces_and_tables_of_prices_are_one(tmp_path: Path) -> None:
    filled(run_file(tmp_path, "dense", **PARALLEL["dense"]), tmp_path / "table")
    ways = ({"compiled_engines": "always"}, {"exact_steps": True}, {"compiled_engines": "never"})
    runs = [simulated(tmp_path, "dense", profile_dir=tmp_path / "table", **way).run() for way in ways]
    assert runs[0].columns["end"].tolist() == runs[1].columns["end"].tolist() == runs[2].columns["end"].tolist()


def test_beyond_the_table_is_told(tmp_path: Path) -> None:
    filled(run_file(tmp_path, "dense", **PARALLEL["dense"]), tmp_path / "table", Limits(64, 128, 2))
    result = simulated(tmp_path, "dense", profile_dir=tmp_path / "table").run()
    assert result.summary.lookups is not None and result.summary.lookups.extrapolated > 50
    assert [note for note in result.notes if "outside the measured sizes" in note]


def test_a_table_of_a_table_is_the_table(tmp_path: Path) -> None:
    """Filled from a profile of sums of products: at its sizes the same, and so in between."""
    path = run_file(tmp_path, "dense", hardware="RTX4090", profile_dir=str(bundle(tmp_path / "profile")))
    meta = filled(path, tmp_path / "table", Limits(256, 512, 16))
    assert meta.filled_from == "profile" and meta.device == "RTX4090" and meta.vocabulary == "fused"
    options = PerfModelOptions(load_model(str(tmp_path / "dense.json")), load_hardware("RTX4090"))
    both = [make_perf_model("profile", options, profile_dir=tmp_path / name) for name in ("profile", "table")]
    plan = plan_of(path, Limits(256, 512, 16))
    compared = 0
    for (tensor, kernel), sizes in plan.sizes.items():
        assert price(both[0], tensor, kernel, sizes) == price(both[1], tensor, kernel, sizes)
        compared += len(sizes)
    assert compared > 500
    assert meta.errors["gemm"].most < 1 and meta.errors["attention_decodes"].most < 1


@pytest.mark.parametrize("model", ["dense", "mixture"])
def test_a_run_by_the_table_of_a_profile_is_the_profiles(tmp_path: Path, model: str) -> None:
    """Of a mixture, rows of one matrix are tokens and of the other copies of them; the profile knows tokens alone."""
    profile = bundle(tmp_path / "profile", meta={"model": model}, experts=model == "mixture")
    path = run_file(tmp_path, model, hardware="RTX4090", profile_dir=str(profile))
    meta = filled(path, tmp_path / "table", Limits(512, 1024, 16))
    more = {"hardware": "RTX4090", "tensor_parallel_size": 1}
    found = [simulated(tmp_path, model, profile_dir=one, **more).run().summary for one in (profile, tmp_path / "table")]
    mean = max(one.mean for one in meta.errors.values())
    assert found[1].makespan_s == pytest.approx(found[0].makespan_s, rel=mean / 100)
    for name in ("matrix products", "elementwise", "sampling", "embedding"):
        assert found[1].simulated_time_s[name] == pytest.approx(found[0].simulated_time_s[name], rel=0.03), name
    attention = [summary.simulated_time_s["attention"] for summary in found]
    most = max(one.most for name, one in meta.errors.items() if "attention" in name)
    assert attention[1] == pytest.approx(attention[0], rel=1.2 * most / 100)


def test_a_table_of_a_measured_bundle(tmp_path: Path) -> None:
    """Kernels that were measured on a GPU: a mixture, whose experts are most of the time."""
    measured = MEASURED / "RTXPRO6000__Qwen3-30B-A3B-Instruct-2507" / "input" / "profile"
    if not measured.is_dir():
        pytest.skip("the measured bundle is not here")
    model = {"model_name": "Qwen/Qwen3-30B-A3B-Instruct-2507", "profile_dir": str(measured)}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(model))
    filled(path, tmp_path / "table", Limits(512, 2048, 32))
    more = {"scheduling": "vllm", "max_num_batched_tokens": 512, "req_num": 20, "host_step_us": 0, "launch_us": 0}
    found = [
        Simulation(RunSpec.of(**{**model, **more, "profile_dir": one})).run().summary
        for one in (measured, tmp_path / "table")
    ]
    assert found[1].makespan_s == pytest.approx(found[0].makespan_s, rel=0.01)
    times = [summary.simulated_time_s["matrix products"] for summary in found]
    assert times[1] == pytest.approx(times[0], rel=0.01) and times[0] > found[0].makespan_s / 2


def test_a_table_in_another_vocabulary(tmp_path: Path) -> None:
    """v0.2.1's tables call operators otherwise and time requests apart; a kernel table of one takes its names."""
    names = ("embedding", "input_layernorm", "q_proj", "k_proj", "v_proj", "rope", "attn", "o_proj", "post_layernorm")
    names += ("gate_proj", "up_proj", "act_fn", "down_proj", "final_layernorm", "lm_head")
    rows = [f"A100-80G,dense,{name},{size},0,{1000 + 10 * size}" for name in names for size in (1, 64, 512)]
    rows += [f"A100-80G,dense,attn,1,{context},{1000 + context}" for context in (1, 64, 512)]
    (tmp_path / "v0.csv").write_text("\n".join(["hardware,model,layer_name,input,kv_cache,latency(ns)", *rows]) + "\n")
    path = run_file(tmp_path, "dense", perf_table=str(tmp_path / "v0.csv"))
    meta = filled(path, tmp_path / "table", Limits(512, 512, 8))
    assert meta.filled_from == "table_v0" and meta.vocabulary == "split"
    spec = {"perf_table": tmp_path / "v0.csv", "tensor_parallel_size": 1}
    source = simulated(tmp_path, "dense", **spec).run().summary
    table = simulated(tmp_path, "dense", profile_dir=tmp_path / "table", tensor_parallel_size=1).run().summary
    assert table.makespan_s == pytest.approx(source.makespan_s, rel=max(one.mean for one in meta.errors.values()) / 100)


# --- filling --------------------------------------------------------------------------------------

SLOW = """\
import sys, time
import orchestrator.kernels.filling as filling
plain = filling.price
def slow(*arguments):
    time.sleep(0.02)
    return plain(*arguments)
filling.price = slow
from orchestrator.commands.kernels import kernels
kernels(sys.argv[1:])
"""
FEW = ("--max_tokens", "300", "--max_context", "200", "--max_requests", "6")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def wait_for(process: subprocess.Popen[bytes] | None, ready: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until `ready`, while `process` goes on; no time is asserted, but a test does not wait for ever."""
    ends = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < ends, "nothing happened"
        assert process is None or process.poll() is None, "it ended before"
        time.sleep(0.005)


def _at_least(count: Callable[[], int], least: int) -> bool:
    return count() >= least


def test_killed_and_resumed_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(tmp_path, "latent", **PARALLEL["latent"])
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert kernels([str(path), "--output", str(whole), "--processes", "1", *FEW]) == 0
    command = [sys.executable, "-c", SLOW, str(path), "--output", str(killed), "--processes", "1", *FEW]

    def lines() -> int:
        return sum(one.read_bytes().count(b"\n") for one in killed.glob(".kernels-*.part"))

    kept = 0
    for more in (4, 10):  # killed again, after some more
        with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
            wait_for(process, partial(_at_least, lines, more))
            process.send_signal(signal.SIGKILL)
        kept = lines()
        assert not (killed / "kernels.yaml").exists(), "half a table is none"
    [journal] = killed.glob(".kernels-*.part")
    with journal.open("ab") as stream:
        stream.write(b'{"job": 0, "tim')  # what a kill cuts off
    asked = []
    plain = Pricer.times
    monkeypatch.setattr(Pricer, "times", lambda self, job: (asked.append(job), plain(self, job))[1])
    assert kernels([str(path), "--output", str(killed), "--processes", "1", *FEW]) == 0
    jobs = plan_of(path, Limits(300, 200, 6)).jobs
    assert len(asked) == len(jobs) - kept, "what was priced is not priced again"
    assert contents(killed) == contents(whole)
    capsys.readouterr()
    asked.clear()
    assert kernels([str(path), "--output", str(killed), *FEW]) == 0
    assert not asked and "attention_decodes: between its sizes off by" in capsys.readouterr().out


def test_processes_change_nothing_and_end_with_the_one_that_is_killed(tmp_path: Path) -> None:
    path = run_file(tmp_path, "dense")
    filled(path, tmp_path / "one", LIMITS)
    arguments = ["--max_tokens", "600", "--max_context", "700", "--max_requests", "12", "--processes", "2"]
    main = [sys.executable, str(ROOT / "main.py"), "kernels", str(path), *arguments, "--output"]
    done = subprocess.run([*main, str(tmp_path / "two")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    large = [*main[:4], "--max_tokens", "100000", "--processes", "2", "--output", str(tmp_path / "killed")]
    with subprocess.Popen(large, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        wait_for(process, lambda: any(one.stat().st_size for one in (tmp_path / "killed").glob(".kernels-*.part")))
        process.send_signal(signal.SIGKILL)

    def gone() -> bool:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    wait_for(None, gone)


def test_another_models_table_is_replaced_and_other_settings_begin_anew(tmp_path: Path) -> None:
    table = tmp_path / "table"
    first = filled(run_file(tmp_path, "dense"), table, Limits(64, 64, 4))
    second = filled(run_file(tmp_path, "mixture"), table, Limits(64, 64, 4))
    assert first.fingerprint != second.fingerprint and read_meta(table) == second
    alone = tmp_path / "alone"
    filled(run_file(tmp_path, "mixture"), alone, Limits(64, 64, 4))
    assert contents(table) == contents(alone)


def test_a_source_that_changes_is_another_source(tmp_path: Path) -> None:
    profile = bundle(tmp_path / "profile")
    path = run_file(tmp_path, "dense", hardware="RTX4090", profile_dir=str(profile))
    before = plan_of(path).fingerprint()
    assert plan_of(path).fingerprint() == before
    dense = profile / "tp1" / "dense.csv"
    dense.write_text(dense.read_text().replace("embedding,1,2.02", "embedding,1,2.03"))
    assert plan_of(path).fingerprint() != before


def test_the_backend_has_no_times(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the backend has no times of operators"):
        plan_of(run_file(tmp_path, "dense", perf_model="backend"))


def test_a_table_is_checked_against_what_is_simulated(tmp_path: Path) -> None:
    table = tmp_path / "table"
    filled(run_file(tmp_path, "dense"), table, Limits(64, 64, 4))
    for wrong, message in (
        ({"hardware": "H100"}, r"kernels.yaml, hardware: A100-80G, but H100 is simulated"),
        ({"tensor_parallel_size": 4}, r"kernels.yaml, tensor: no kernels of 4 tensor-parallel NPUs; it has those of 1"),
        (
            {"kv_cache_dtype": "fp8"},
            r"kernels.yaml, bits: 16, 16, 16 bits of weights, activations and KV cache, but 16, 16, 8",
        ),
    ):
        with pytest.raises(UserError, match=message):
            simulated(tmp_path, "dense", profile_dir=table, **{"tensor_parallel_size": 1, **wrong}).run()
    config = json.loads((tmp_path / "dense.json").read_text())
    (tmp_path / "dense.json").write_text(json.dumps({**config, "intermediate_size": 640}))
    with pytest.raises(UserError, match="no kernel is gate_up_proj of 655360 operations a row; fill a table for this"):
        simulated(tmp_path, "dense", profile_dir=table, tensor_parallel_size=1).run()
