"""The main job from the command line: what it writes, that runs repeat, that all ways to a backend agree."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from dying_backend import DyingBackend, register

from astra_files.network import NetworkConfig
from foundation.commands import run_command
from foundation.settings.catalogue import catalogue
from orchestrator.commands.run import simulate
from orchestrator.engine.batch import Batch
from orchestrator.schedulers.orca import OrcaScheduler
from orchestrator.settings.specification import RunCommand

ROOT = Path(__file__).parents[1]
ISSUE_EXAMPLE = (
    "--model_name meta-llama/Llama-3.1-8B-Instruct --hardware RTX3090 --npu_num 4 --npu_group 2 --npu_mem 40 "
    "--local_bw 1024 --remote_bw 512 --link_bw 256 --link_latency 500 --fp 16 --block_size 4 --max_batch 0 "
    "--batch_delay 0 --scheduling orca --parallel hybrid --kv_manage vllm --gen --req_num 10 --log_interval 0.5 "
    "--verbose"
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "few.tsv"
    rows = [(100, 8, 0), (40, 15, 1_000_000), (300, 6, 2_000_000), (7, 1, 30_000_000), (64, 16, 31_000_000)]
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def run(*flags: str | Path) -> None:
    assert simulate([str(flag) for flag in flags]) == 0


def gpt2(dataset: Path, output: Path, *flags: str | Path) -> None:
    run("--model_name", "openai-community/gpt2", "--dataset", dataset, "--output", output, *flags)


def results(folder: Path) -> dict[str, bytes]:
    """Return the files that must not differ, by name, whatever way a run takes to the same results.

    Report and settings name the way; the timeline has the steps simulated at once (tests/orchestrator/test_report.py).
    """
    apart = ("-simulation-time.tsv", "-report.html", "-trace.json", "-settings.json")
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(apart)}


def test_help_is_grouped_and_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['main.py', '--help']\n"
        "from orchestrator.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'google.protobuf', 'yaml', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'help loads {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for heading in catalogue(RunCommand).by_heading():
        assert f"\n{heading}:\n" in done.stdout
    for words in ("GB/s", "ns", "tokens", "default: 600.0", "--npu_group"):
        assert words in done.stdout


def test_a_run_loads_only_what_simulates_it(tmp_path: Path) -> None:
    """No event queue for chains, no evaluator of other graphs, nothing for reading or drawing what there is not."""
    script = (
        "import sys\n"
        "from orchestrator.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "needless = {'analytical.events', 'analytical.ordered', 'numpy.ma', 'google.protobuf', 'pydantic', 'rich',\n"
        "  'yaml', 'numba', 'statistics', 'secrets', 'difflib', 'orchestrator.report.page',\n"
        "  'orchestrator.calibration', 'orchestrator.validation', 'orchestrator.cluster.tiers',\n"
        "  'orchestrator.cluster.disaggregation', 'orchestrator.cluster.waves', 'orchestrator.schedulers.vllm',\n"
        "  'trace_gen.families.deepseek'}\n"
        "sys.exit(f'needless: {needless & set(sys.modules)}' if needless & set(sys.modules) else 0)"
    )
    sample = str(ROOT / "workloads" / "sharegpt-like-100-rate10.tsv")
    flags = [
        "--dataset",
        sample,
        "--req_num",
        "2",
        "--npu_num",
        "4",
        "--no_report",
        "--output",
        str(tmp_path / "out.csv"),
    ]
    done = subprocess.run([sys.executable, "-c", script, *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").exists()


def test_the_examples_flags_work_in_both_spellings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for index, text in enumerate((ISSUE_EXAMPLE, ISSUE_EXAMPLE.replace("_", "-"))):
        flags = [flag if flag.startswith("--") else flag.replace("hybrid-", "hybrid_") for flag in text.split()]
        flags[flags.index("10")] = "3"
        run(*flags, "--output", tmp_path / str(index) / "out.csv")
        tables.append(results(tmp_path / str(index)))
    assert tables[0] == tables[1]
    out = capsys.readouterr().out
    for words in ("TP 2 x PP 2", "iteration 0:", "generation", "TTFT", "TPOT", "ITL", "end-to-end", "P99", "tokens/s"):
        assert words in out


def test_without_output_only_the_console_speaks(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run("--model_name", "openai-community/gpt2", "--dataset", dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["few.tsv"]
    assert "finished requests" in capsys.readouterr().out


def test_files_of_a_run(tmp_path: Path, dataset: Path) -> None:
    gpt2(dataset, tmp_path / "new" / "out.csv")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "out-report.html", "out-settings.json", "out-simulation-time.tsv", "out-summary.json", "out-throughput.tsv",
        "out-trace.json", "out.csv",
    ]  # fmt: skip
    table = pd.read_csv(tmp_path / "new" / "out.csv")
    assert sorted(table["request id"]) == [0, 1, 2, 3, 4]
    assert set(table["model"]) == {"openai-community/gpt2"}
    summary = json.loads((tmp_path / "new" / "out-summary.json").read_text())
    assert summary["complete"] and summary["finished_requests"] == 5
    assert summary["generated_tokens"] == table["output"].sum() == 46
    assert summary["ttft_ms"]["mean"] == pytest.approx(table["TTFT"].mean() / 1e6)
    assert summary["latency_ms"]["p90"] == pytest.approx(table["latency"].quantile(0.9) / 1e6)
    throughput = pd.read_csv(tmp_path / "new" / "out-throughput.tsv", sep="\t")
    assert throughput["generation_tok_per_s"].sum() * 0.5 == pytest.approx(46)
    spent = pd.read_csv(tmp_path / "new" / "out-simulation-time.tsv", sep="\t").set_index("component")["ms"]
    assert spent["total"] == pytest.approx(spent.drop("total").sum(), abs=0.01)


@pytest.mark.parametrize(
    "flags",
    [
        "--npu_num 1",
        "--npu_num 2 --attention_placement requests",
        "--npu_num 4 --npu_group 2",
        "--npu_num 2 --npu_group 2 --npu_mem 0.169 --kv_manage vllm",
        "--scheduling vllm",
        "--scheduling none --max_batch 2 --batch_delay 1000000",
        "--npu_mem 0.256",
        "--perf_model backend --npu_num 2",
    ],
)
def test_every_way_gives_the_same_bytes(tmp_path: Path, dataset: Path, flags: str) -> None:
    """Twice the same; step by step; by text traces; by .et files; with every file kept."""
    if "--npu_mem" in flags:
        dataset.write_text("20\t60\t0\n" * 4)
    ways = ("", "", "--macro_steps 1", "--interface text", "--interface et", f"--trace_dir {tmp_path}/traces")
    found = []
    for index, way in enumerate(ways):
        folder = tmp_path / f"way{index}"
        gpt2(dataset, folder / "out.csv", *flags.split(), *way.split())
        found.append(results(folder))
    for way, files in zip(ways[1:], found[1:], strict=True):
        assert files == found[0], way
    if "--npu_mem" in flags:
        assert json.loads(found[0]["out-summary.json"])["evictions"] > 0, "memory is meant to be short here"
    iterations = json.loads(found[0]["out-summary.json"])["iterations"]
    assert len(list((tmp_path / "traces").glob("*.txt"))) == iterations
    assert len(list((tmp_path / "traces").glob("*.0.et"))) == iterations
    for name in ("network.yml", "system.json", "memory.json"):
        assert (tmp_path / "traces" / name).is_file(), "what the kept graphs are simulated with stands beside them"


def test_bytes_do_not_depend_on_the_process(tmp_path: Path, dataset: Path) -> None:
    flags = ["--model_name", "openai-community/gpt2", "--dataset", str(dataset), "--npu_num", "4", "--npu_group", "2"]
    for seed in ("1", "2"):
        output = tmp_path / seed / "out.csv"
        command = [sys.executable, str(ROOT / "main.py"), *flags, "--output", str(output)]
        subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, env={"PYTHONHASHSEED": seed})
    assert results(tmp_path / "1") == results(tmp_path / "2")


def test_the_sample_runs_where_no_dataset_is_given(tmp_path: Path) -> None:
    run("--req_num", "5", "--output", tmp_path / "a" / "out.csv")
    sample = ROOT / "workloads" / "sharegpt-like-100-rate10.tsv"
    run("--req_num", "5", "--dataset", sample, "--output", tmp_path / "b" / "out.csv")
    assert results(tmp_path / "a") == results(tmp_path / "b")
    run("--req_num", "5", "--seed", "1", "--output", tmp_path / "c" / "out.csv")
    assert results(tmp_path / "a") != results(tmp_path / "c")


def test_arrivals_out_of_order_are_sorted(tmp_path: Path, dataset: Path) -> None:
    lines = dataset.read_text().splitlines()
    shuffled = tmp_path / "shuffled.tsv"
    shuffled.write_text("\n".join([lines[2], *lines[:2], *lines[3:]]))
    gpt2(dataset, tmp_path / "a" / "out.csv")
    gpt2(shuffled, tmp_path / "b" / "out.csv")
    columns = ["input", "output", "arrival", "end_time"]
    ordered, unordered = (pd.read_csv(tmp_path / name / "out.csv")[columns] for name in ("a", "b"))
    assert ordered.equals(unordered)


def test_effective_configurations_run_the_same_when_given_back(tmp_path: Path, dataset: Path) -> None:
    shape = ["--npu_num", "4", "--npu_group", "2", "--link_latency", "700"]
    gpt2(dataset, tmp_path / "a" / "out.csv", *shape, "--write_configs", tmp_path / "configs")
    given = [
        "--network", tmp_path / "configs" / "network.yml", "--system", tmp_path / "configs" / "system.json",
        "--remote_memory", tmp_path / "configs" / "memory.json",
    ]  # fmt: skip
    gpt2(dataset, tmp_path / "b" / "out.csv", "--npu_num", "4", "--npu_group", "2", *given)
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_swapping_the_topology_changes_the_result(tmp_path: Path, dataset: Path) -> None:
    times = {}
    for topology, latency in (("FullyConnected", 500.0), ("Ring", 500.0), ("Switch", 500.0), ("Switch", 5000.0)):
        network = tmp_path / "network.yml"
        network.write_text(f"topology: [{topology}]\nnpus_count: [4]\nbandwidth: [100.0]\nlatency: [{latency}]\n")
        gpt2(dataset, tmp_path / "out.csv", "--npu_num", "4", "--network", network)
        times[topology, latency] = json.loads((tmp_path / "out-summary.json").read_text())["makespan_s"]
    assert times["Switch", 5000.0] > times["Switch", 500.0] > times["Ring", 500.0]
    assert times["Ring", 500.0] == times["FullyConnected", 500.0], "a ring all-reduce only talks to neighbours"


NETWORKS = sorted(path.stem for path in (ROOT / "configs" / "networks").glob("*.yml"))


@pytest.mark.parametrize("network", NETWORKS)
def test_the_shipped_networks_run_with_the_shipped_systems(
    tmp_path: Path, dataset: Path, network: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "configs" / "networks" / f"{network}.yml"
    npus_count = NetworkConfig.from_file(path).npus_count
    shape = ["--npu_num", str(math.prod(npus_count)), "--npu_group", str(math.prod(npus_count[1:]))]
    memories = itertools.cycle(sorted((ROOT / "configs" / "memories").glob("*.json")))
    for system in sorted((ROOT / "configs" / "systems").glob(f"*-{len(npus_count)}d.json")):
        files = ["--network", path, "--system", system, "--remote_memory", next(memories)]
        gpt2(dataset, tmp_path / "out.csv", *shape, *files)
        assert json.loads((tmp_path / "out-summary.json").read_text())["finished_requests"] == 5
    assert "network dimensions" not in capsys.readouterr().out


def test_a_system_file_that_leaves_dimensions_out_is_noted(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = ROOT / "configs"
    files = ["--network", configs / "networks/fully-connected-2x2.yml", "--system", configs / "systems/ring-1d.json"]
    gpt2(dataset, tmp_path / "out.csv", "--npu_num", "4", "--npu_group", "2", *files)
    out = capsys.readouterr().out
    assert "note: all-reduce-implementation" in out and "nothing reads" not in out


def test_what_nothing_reads_in_a_file_is_noted(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ASTRA-sim takes no notice of such keys, a misspelt one among them."""
    shipped = json.loads((ROOT / "configs" / "systems" / "ring-1d.json").read_text())
    files = {
        "--system": shipped | {"peak_perf": 900, "\x1b[2J": 1},
        "--remote_memory": {"memory-type": "NO_MEMORY_EXPANSION", "boost": 1},
    }
    flags = []
    for flag, content in files.items():
        flags += [flag, tmp_path / f"{flag[2:]}.json"]
        flags[-1].write_text(json.dumps(content))
    gpt2(dataset, tmp_path / "out.csv", *flags)
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: nothing reads")]
    assert notes == [
        'note: nothing reads ["peak_perf", "\\x1b[2J"] of the system file, as in ASTRA-sim',
        'note: nothing reads ["boost"] of the memory file, as in ASTRA-sim',
    ]


def test_a_system_file_without_a_devices_figures_takes_those_of_the_device(tmp_path: Path, dataset: Path) -> None:
    """The shipped ones have none: collectives reduce at the device's memory bandwidth, on any device."""
    shipped = ROOT / "configs" / "systems" / "ring-1d.json"
    content = json.loads(shipped.read_text())
    assert not {"local-mem-bw", "peak-perf"} & content.keys()
    flags = ("--npu_num", "2", "--hardware", "H100", "--network", tmp_path / "network.yml", "--system")
    (tmp_path / "network.yml").write_text("topology: [Ring]\nnpus_count: [2]\nbandwidth: [50.0]\nlatency: [500.0]\n")
    (tmp_path / "own.json").write_text(json.dumps(content | {"local-mem-bw": 3352.0}))
    (tmp_path / "other.json").write_text(json.dumps(content | {"local-mem-bw": 10}))
    for name, path in (("shipped", shipped), ("own", tmp_path / "own.json"), ("other", tmp_path / "other.json")):
        gpt2(dataset, tmp_path / name / "out.csv", *flags, path, "--write_configs", tmp_path / name)
    written = json.loads((tmp_path / "shipped" / "system.json").read_text())
    assert written["local-mem-bw"] == 3352.0
    assert results(tmp_path / "shipped") == results(tmp_path / "own") != results(tmp_path / "other")
    for path, peak in ((shipped, 989.4), (tmp_path / "fast.json", 5000.0)):
        (tmp_path / "fast.json").write_text(json.dumps(content | {"peak-perf": 5000}))
        gpt2(dataset, tmp_path / "out.csv", *flags, path, "--perf_model", "backend", "--write_configs", tmp_path)
        assert json.loads((tmp_path / "system.json").read_text())["peak-perf"] == peak


def test_a_users_roofline_does_not_touch_the_performance_models_times(tmp_path: Path, dataset: Path) -> None:
    system = tmp_path / "system.json"
    text = {
        "scheduling-policy": "LIFO",
        "preferred-dataset-splits": 1,
        "local-mem-bw": 100,
        "peak-perf": 3000,
        "roofline-enabled": 0,
    }
    system.write_text(json.dumps(text))
    gpt2(dataset, tmp_path / "a" / "out.csv")
    gpt2(dataset, tmp_path / "b" / "out.csv", "--system", system)
    assert results(tmp_path / "a") == results(tmp_path / "b")
    system.write_text(json.dumps(text | {"roofline-enabled": 1}))
    gpt2(dataset, tmp_path / "c" / "out.csv", "--system", system, "--perf_model", "backend")
    system.write_text(json.dumps(text | {"roofline-enabled": 1, "local-mem-bw": 50}))
    gpt2(dataset, tmp_path / "d" / "out.csv", "--system", system, "--perf_model", "backend")
    slow, slower = (
        json.loads((tmp_path / name / "out-summary.json").read_text())["tpot_ms"]["mean"] for name in ("c", "d")
    )
    assert slower == pytest.approx(2 * slow, rel=0.05), "decoding is bound by memory"


def test_a_backend_that_dies_loses_nothing_that_was_finished(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, "dying", DyingBackend)
    flags = ["--model_name", "openai-community/gpt2", "--dataset", str(dataset), "--macro_steps", "1"]
    output = tmp_path / "out.csv"
    code = run_command(lambda: simulate([*flags, "--backend", "dying", "--output", str(output)]))
    captured = capsys.readouterr()
    assert code == 1
    assert captured.err == "error: batch 20: the process was killed\n"
    assert DyingBackend.closed
    finished = pd.read_csv(output)
    assert 0 < len(finished) < 5
    summary = json.loads((tmp_path / "out-summary.json").read_text())
    assert summary["complete"] is False and "killed" in summary["error"]
    gpt2(dataset, tmp_path / "whole" / "out.csv")
    whole = pd.read_csv(tmp_path / "whole" / "out.csv")
    assert finished.equals(whole[: len(finished)]), "what was finished is as in a run that ends well"


@pytest.mark.parametrize("backend", ["embedded"])
def test_a_cross_check_against_the_backend_itself_agrees(tmp_path: Path, dataset: Path, backend: str) -> None:
    gpt2(dataset, tmp_path / "a" / "out.csv", "--npu_num", "2")
    gpt2(dataset, tmp_path / "b" / "out.csv", "--npu_num", "2", "--cross_check", backend)
    assert results(tmp_path / "a") == results(tmp_path / "b")


class InterruptedBackend(DyingBackend):
    """A signal comes while it works."""

    sent = signal.SIGINT

    def simulate(self, graph: object) -> object:
        if self.left < 2:
            os.kill(os.getpid(), self.sent)
        return super().simulate(graph)


@pytest.mark.parametrize(
    ("sent", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_interrupt_keeps_what_was_finished(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sent: signal.Signals,
    code: int,
    word: str,
) -> None:
    monkeypatch.setattr(InterruptedBackend, "sent", sent)
    # Where the tests were started in the background SIGINT is ignored; a user at a terminal does not ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    register(monkeypatch, "interrupted", InterruptedBackend)
    flags = ["--model_name", "openai-community/gpt2", "--dataset", str(dataset), "--macro_steps", "1"]
    output = tmp_path / "out.csv"
    assert run_command(lambda: simulate([*flags, "--backend", "interrupted", "--output", str(output)])) == code
    assert capsys.readouterr().err == f"{word}\n"
    assert 0 < len(pd.read_csv(output)) < 5
    assert json.loads((tmp_path / "out-summary.json").read_text())["error"] == word


def test_a_scheduler_that_stalls_is_an_error_not_a_short_result(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stalling(OrcaScheduler):
        def schedule(self, now: int) -> Batch | None:
            return None if now > 2_000_000 else super().schedule(now)

    monkeypatch.setattr("orchestrator.schedulers.orca.OrcaScheduler", Stalling)
    flags = ["--model_name", "openai-community/gpt2", "--dataset", str(dataset), "--output", str(tmp_path / "out.csv")]
    assert run_command(lambda: simulate(flags)) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: the scheduler stalled at 0.0310") and "waiting requests" in err
