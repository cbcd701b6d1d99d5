"""Wrong input gets one clear line (what, where, what would be right), exit code 2, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundation.commands import run_command
from orchestrator.cli import simulate


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a good workload of three requests and files to name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.tsv").write_text("input_toks\toutput_toks\tarrival_time_ns\n10\t5\t0\n20\t3\t10\n30\t2\t20\n")
    (tmp_path / "bad.tsv").write_text("10\t5\t0\n20\tthree\t10\n")
    (tmp_path / "long.tsv").write_text("10\t5\t0\n900000\t5\t0\n")
    (tmp_path / "net8.yml").write_text(
        "topology: [Ring, Switch]\nnpus_count: [4, 2]\nbandwidth: [50, 50]\nlatency: [1, 1]\n"
    )
    (tmp_path / "broken.yml").write_text("topology: [Ring\n")
    (tmp_path / "wrong.yml").write_text("topology: [Rang]\nnpus_count: [1]\nbandwidth: [50]\nlatency: [1]\n")
    (tmp_path / "broken.json").write_text("{,}")
    (tmp_path / "nobw.json").write_text(
        json.dumps({"scheduling-policy": "LIFO", "local-mem-bw": 0.5, "preferred-dataset-splits": 1})
    )
    (tmp_path / "replay.json").write_text(
        json.dumps({"scheduling-policy": "LIFO", "local-mem-bw": 100, "replay-only": 1})
    )
    (tmp_path / "two.json").write_text(
        json.dumps({"scheduling-policy": "LIFO", "local-mem-bw": 100, "all-reduce-implementation": ["ring"] * 2})
    )
    (tmp_path / "none.json").write_text(json.dumps({"scheduling-policy": "LIFO", "local-mem-bw": 100}))
    row = {f"{name}-implementation": ["ring"] for name in ("all-reduce", "all-gather")}
    (tmp_path / "nosplits.json").write_text(json.dumps({"scheduling-policy": "LIFO", "local-mem-bw": 100, **row}))
    (tmp_path / "late.tsv").write_text("10\t5\t99999999999999999999999\n")
    (tmp_path / "file").write_text("")
    return tmp_path


CASES = [
    ("--dataset none.tsv", ["none.tsv: the workload file does not exist"]),
    ("--dataset bad.tsv", ["bad.tsv, line 2: malformed row '20 three 10'; expected three whole numbers"]),
    ("--model_name meta-llama/Llama-3.1-8C", ["unknown model 'meta-llama/Llama-3.1-8C'", "meta-llama/Llama-3.1-8B"]),
    ("--hardware RTX3080", ["unknown hardware 'RTX3080'", "did you mean RTX3090"]),
    ("--npu_num 4 --npu_group 3", ["--npu_group: 3 groups do not divide 4 NPUs; use one of 1, 2, 4"]),
    (
        "--model_name meta-llama/Llama-3.1-70B-Instruct",
        ["--npu_mem: meta-llama/Llama-3.1-70B-Instruct needs 141.107 GB", "an NPU has 25.770 GB; give more memory"],
    ),
    ("--npu_mem 16.061", ["less than one KV block of 8 tokens"]),
    (
        "--dataset long.tsv",
        ["long.tsv, line 2: the request needs 112501 KV blocks (117.97 GB)", "--skip_unfit"],
    ),
    ("--kv_manage max", ["line 2: the request needs 16384 KV blocks"]),
    ("--npu_num 4 --network net8.yml", ["net8.yml, npus_count: the network has 8 NPUs (4 x 2), --npu_num is 4"]),
    ("--network broken.yml", ["broken.yml", "not valid YAML"]),
    ("--network wrong.yml", ["wrong.yml", "'Rang' is unknown", "FullyConnected"]),
    ("--network none.yml", ["none.yml: the network configuration does not exist"]),
    ("--system broken.json", ["broken.json, line 1: not valid JSON"]),
    ("--system nobw.json", ["nobw.json, local-mem-bw: 0.5 GB/s would stretch every operator"]),
    ("--system replay.json", ["replay.json, replay-only"]),
    (
        "--system two.json",
        ["two.json, all-reduce-implementation: 2 algorithms for a network of 1 dimension; write one"],
    ),
    ("--remote_memory broken.json", ["broken.json, line 1: not valid JSON"]),
    ("--scheduling orca --parallel tensor", ["--parallel: tensor conflicts with --scheduling orca"]),
    (
        "--scheduling orca --batch_delay 5",
        ["--batch_delay: 5 ns, but --scheduling orca never waits for a batch to fill; leave it out"],
    ),
    (
        "--scheduling none --parallel pipeline --npu_num 4 --npu_group 2",
        ["--parallel: pipeline conflicts with --npu_group 2; give 4"],
    ),
    (
        "--scheduling none --parallel tensor --npu_num 4 --npu_group 2",
        ["--parallel: tensor conflicts with --npu_group 2; give 1"],
    ),
    (
        "--scheduling vllm --max_batch 4 --gen",
        ["--max_batch: not read by --scheduling vllm; --scheduling none", "here give --max_num_seqs; --gen: not read"],
    ),
    ("--scheduling orka", ["--scheduling: unknown scheduling policy 'orka'; did you mean orca?"]),
    ("--kv_manage vlm", ["--kv_manage: unknown KV memory manager 'vlm'; did you mean vllm?"]),
    ("--backend astra", ["--backend: unknown backend 'astra'; did you mean astra-sim"]),
    ("--perf_model rooflin", ["unknown performance model 'rooflin'", "roofline"]),
    ("--perf_model table_v0", ["--perf_model: table_v0 needs a latency table; give its CSV file: --perf_table FILE"]),
    ("--perf_table none.csv", ["none.csv"]),
    (
        "--npu_num four --block_size 0",
        ["--npu_num: 'four' is not a whole number", "--block_size: '0' is not a whole number of at least 1"],
    ),
    ("--fp 12", ["--fp: '12' is not one of 4, 8, 16, 32"]),
    ("--npu_nmu 4", ["--npu_nmu: unknown flag; did you mean --npu_num"]),
    ("--itl all", ['--itl: unknown "all"; known: list, none']),
    ("--output good.tsv/out.csv", ["--output", "the folder cannot be written"]),
    ("--output .", ["is a folder; name a CSV file"]),
    ("--output /dev/null", ["/dev/null, --output: is not an ordinary file"]),
    ("--output good.tsv", ["good.tsv, --output: the run reads this file"]),
    ("--dataset late.tsv", ["late.tsv, line 1, arrival_time_ns: 99999999999999999999999 is too large; at most"]),
    ("--npu_num 99999999999999999999", ["--npu_num: '99999999999999999999' is not a whole number from 1 to 1048576"]),
    ("--npu_num 4 --system none.json", ["none.json, all-reduce-implementation: missing, but 4 NPUs share a stage"]),
    ("--npu_num 4 --system nosplits.json", ["nosplits.json, preferred-dataset-splits: missing or 0; write 1 or more"]),
    ("--trace_dir file/traces", ["--trace_dir", "the folder cannot be written"]),
    ("--backend spool", ["--spool_dir"]),
    ("--backend astra-sim --astra_sim none/binary", ["none/binary"]),
    ("--log_interval 0", ["--log_interval: '0' is not a number of at least 1e-06"]),
    ("--link_bw inf", ["--link_bw: 'inf' is not a number above 0"]),
]


@pytest.mark.parametrize(("flags", "said"), CASES, ids=[flags for flags, _ in CASES])
def test_wrong_input_is_one_line_and_exit_code_2(
    folder: Path, flags: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    defaults = [
        *([] if "--dataset" in flags else ["--dataset", "good.tsv"]),
        *([] if "--output" in flags else ["--output", "new/out.csv"]),
        "--write_configs", "configs",
    ]  # fmt: skip
    before = sorted(folder.rglob("*"))
    code = run_command(lambda: simulate([*flags.split(), *defaults]))
    err = capsys.readouterr().err
    assert code == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1
    for words in said:
        assert words in err
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before, "nothing is written"


def test_requests_that_never_fit_can_be_dropped_and_are_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", "long.tsv", "--skip_unfit", "--output", "out.csv"]
    assert run_command(lambda: simulate(flags)) == 0
    assert json.loads((folder / "out-summary.json").read_text())["skipped"] == 1
    assert "1 requests that can never fit are skipped" in capsys.readouterr().out
    assert len((folder / "out.csv").read_text().splitlines()) == 2


def test_a_workload_of_which_nothing_fits_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "long.tsv").write_text("900000\t5\t0\n")
    assert run_command(lambda: simulate(["--dataset", "long.tsv", "--skip_unfit"])) == 2
    assert "none of the 1 requests fits" in capsys.readouterr().err
