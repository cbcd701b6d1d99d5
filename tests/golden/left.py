"""All that a few small runs leave, to be read: console, tables, summary, settings, report and timeline.

Each run's files are held in a folder of `left` beside this file: what holds still is every number and every word that a
user sees, where `whole_runs` holds digests of figures over many runs. They are made anew, and their difference read, by

    python tests/golden/left.py
"""

from __future__ import annotations

import re
import sys
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
HELD = Path(__file__).resolve().with_name("left")
_LINKS = "--link_bw 100 --link_latency 700"
_BURST = [(30 + 37 * index % 200, 2 + 3 * index % 7, 100_000 * index) for index in range(6)]
_TOO_LONG = (5000, 10, 300_000)
RUNS: dict[str, tuple[str, list[tuple[int, int, int]]]] = {
    "vllm-pipeline": (
        f"--scheduling vllm --npu_num 4 --npu_group 2 --no_async_scheduling --verbose --log_interval 0.005 {_LINKS}",
        [*_BURST, _TOO_LONG],
    ),
    "orca-evicts": (
        "--npu_num 4 --npu_mem 0.0641 --block_size 4 --skip_unfit --max_model_len 1024 --verbose --gen "
        "--network {root}/configs/networks/ring-4.yml --remote_bw 100",
        [*[(14, 9, 0)] * 6, _TOO_LONG],
    ),
    "engines-overloaded": (
        "--instances 2 --scheduling vllm --num_gpu_blocks_override 12 --max_num_seqs 2 --log_interval 0.02 "
        "--req_num 15 --fp 8",
        [(20 + index % 9, 10 + index % 5, 50_000 * index) for index in range(20)],
    ),
    "static-experts": (
        "--model_name Qwen/Qwen1.5-MoE-A2.7B --hardware H100 --scheduling none --max_batch 3 --batch_delay 90000 "
        f"--npu_num 4 --ep_size 4 {_LINKS}",
        _BURST,
    ),
}
"""Flags of each run, and its requests: prompt tokens, output tokens, arrival in ns."""


def files_of(name: str) -> dict[str, str]:
    """Run `name` and return its console and its files, by name, less what the clock on the wall decides."""
    from orchestrator.commands.run import simulate

    flags, requests = RUNS[name]
    flags = f"--model_name openai-community/gpt2 {flags} --dataset requests.tsv --output run.csv"
    shown = StringIO()
    with TemporaryDirectory() as folder, chdir(folder):
        Path("requests.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in requests))
        with redirect_stdout(shown):
            assert simulate([word.format(root=ROOT) for word in flags.split()]) == 0
        made = {path.name: path.read_text() for path in Path().iterdir() if path.name.startswith("run")}
    made.pop("run-simulation-time.tsv")
    console = re.sub(r"\nTime of the simulator itself\n(  .*\n)+", "", shown.getvalue())
    assert console != shown.getvalue()
    return {name: text.replace(str(ROOT), "ROOT") for name, text in {**made, "console.txt": console}.items()}


def _write() -> None:
    rmtree(HELD, ignore_errors=True)
    for name in RUNS:
        (HELD / name).mkdir(parents=True)
        for file, text in files_of(name).items():
            (HELD / name / file).write_text(text)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    _write()
