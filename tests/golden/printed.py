"""What the smaller commands print and write, to be read: one small deployment, traced, converted, simulated, checked.

Each command's output is held as text in `printed` beside this file. It is made anew, and the difference read, by

    python tests/golden/printed.py
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
HELD = Path(__file__).resolve().with_name("printed")
MODULES = {
    "main": "orchestrator.cli",
    "analytical": "analytical.__main__",
    "converters": "converters.__main__",
    "trace_test": "trace_test.__main__",
    "replay": "orchestrator.replay.__main__",
    "reallm": "orchestrator.reallm.__main__",
    "run_files": "orchestrator.run_files",
}
_TRACE = "traces/batch000003.txt"
_GRAPH = "traces/batch000003"
_FILES = (
    "--network-configuration=traces/network.yml --system-configuration=traces/system.json "
    "--remote-memory-configuration=traces/memory.json"
)
_MADE = "--workload-configuration=made/llm --comm-group-configuration=made/llm.comm_groups.json"
_CHUNKED = "runs/llama70b-tp8-mixed-sarathi-chunk512-code-rate2.yaml"
STEPS: dict[str, tuple[str, int, str | None]] = {
    "stats": (f"converters --stats {_TRACE}", 0, None),
    "own": (f"converters {_TRACE} own.txt --to orrery", 0, "own.txt"),
    "to-event": (f"converters {_TRACE} event.txt --to event", 2, None),
    "to-orca": (f"converters {_TRACE} orca.txt --to orca", 2, None),
    "sample-stats": ("converters --stats sample.txt", 0, None),
    "sample-own": ("converters sample.txt spread.txt --to orrery --npu_num 4", 0, "spread.txt"),
    "sample-colocated": ("converters sample.txt colocated.txt --to colocated", 0, "colocated.txt"),
    "to-et": ("converters own.txt made/llm", 0, None),
    "show": (f"converters --show {_GRAPH}.2.et", 0, None),
    "show-json": (f"converters --show {_GRAPH}.1.et --json", 0, None),
    "show-dot": (f"converters --show {_GRAPH}.0.et --dot", 0, None),
    "diff": (f"converters --diff {_GRAPH}.0.et traces/batch000000.0.et", 1, None),
    "merge": ("converters --merge made timeline.json", 0, "timeline.json"),
    "analytical": (
        f"analytical --workload-configuration={_GRAPH} {_FILES} --timeline simulated.json",
        0,
        "simulated.json",
    ),
    "analytical-queues": (
        f"analytical {_MADE} {_FILES} --num_queues_per_dim 2 --injection_scale 3 --rendezvous_protocol",
        0,
        None,
    ),
    "trace_test": (f"trace_test {_TRACE} {_GRAPH}.0.et", 0, None),
    "trace_test-random": ("trace_test --random 3 --seed 5", 0, None),
    "trace_test-broken": ("trace_test broken.txt", 1, None),
    "replay": ("replay case.json", 0, None),
    "replay-0.33": ("replay case.json --vllm_version 0.33", 0, None),
    "generator": ("main workload generated.tsv --req_num 12 --request_rate 3 --seed 2", 0, "generated.tsv"),
    "reallm": ("reallm system.yaml runs --code lengths.csv", 0, _CHUNKED),
    "run_files": (
        f"run_files {_CHUNKED} runs/llama70b-tp8-continuous-code-rate2.yaml --table table.csv",
        0,
        "table.csv",
    ),
}
"""The command of each step, its exit code, and a file that it writes; later ones read what earlier ones leave."""
_REALLM = """\
model: [llama70b, llama405b]
system: {device: H100, num_devices: 8, attention_parallelism: [tp8, ep8], io_algo: multishot, prefill_chunk: 512,
  batching_algo: [mixed-sarathi, continuous]}
system_sim: {tasks: [code], request_rates: [2], end_reqs: 3}
trace_gen: {end_time: 3}
"""
_CASE = {
    "max_num_seqs": 3, "max_num_batched_tokens": 32, "block_size": 4, "num_gpu_blocks": 14, "max_model_len": 64,
    "latency_model": {"a_us": 1000, "b_us_per_token": 10, "c_us_per_kv_token": 0.5}, "enable_prefix_caching": True,
    "requests": [
        {"id": name, "arrival": arrival, "prompt_len": prompt, "output_len": output}
        for name, arrival, prompt, output in (
            ("a", 0, 20, 6), ("b", 500, 11, 9), ("c", 1000, 8, 3), ("d", 2000, 17, 2)
        )
    ],
}  # fmt: skip


def all_printed() -> dict[str, str]:
    """Run every step, in order, in one folder; return what each printed and wrote."""
    found = {}
    with TemporaryDirectory() as folder, chdir(folder):
        _prepare()
        for name, (command, code, written) in STEPS.items():
            text, ended = _run(command)
            assert ended == code, f"{name}: exit code {ended}\n{text}"
            found[name] = text + (f"--- {written}\n{Path(written).read_text()}" if written else "")
        found["configs"] = "".join(
            f"--- {name}\n{Path('traces', name).read_text()}" for name in ("network.yml", "system.json", "memory.json")
        )
    found["random"] = "".join(f"{line}\n" for line in _random())
    return found


def _random() -> Iterator[str]:
    """Yield what the checker's random batches are made of: every model, parallelism and kind."""
    from trace_test.random_batches import random_subjects

    for subject in random_subjects(30, 5):
        trace = subject.trace
        assert trace is not None
        columns = ("latency_ns", "flops", "input_bytes", "weight_bytes", "output_bytes", "comm_bytes")
        sums = " ".join(f"{name} {int(getattr(trace, name).sum())}" for name in columns)
        yield f"{subject.source}: {trace.rows} rows, {trace.steps} steps, {sums}"


def _prepare() -> None:
    from tests.converters import samples

    """Trace a few iterations of a small model, and break a copy of one of the traces."""
    Path("requests.tsv").write_text("20\t4\t0\n30\t3\t0\n")
    Path("case.json").write_text(json.dumps(_CASE))
    model = json.loads((ROOT / "configs/models/meta-llama/Llama-3.1-8B.json").read_text())
    Path("small.json").write_text(json.dumps({**model, "num_hidden_layers": 2}))
    flags = "--npu_num 4 --npu_group 2 --link_bw 100 --link_latency 700 --dataset requests.tsv --trace_dir traces"
    _, code = _run(f"main --model_name small.json {flags}")
    assert code == 0
    Path("system.yaml").write_text(_REALLM)
    Path("lengths.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,700,5\n")
    Path("sample.txt").write_text(samples.orca(groups=2))
    before, projection, after = Path(_TRACE).read_text().partition("\no_proj")
    Path("broken.txt").write_text(before + projection + re.sub(r"ALLREDUCE\t\d+\t\d+", "NONE\t0\t-", after, count=1))


def _run(command: str) -> tuple[str, int]:
    from foundation.commands import run_command

    module, *words = command.split()
    shown = StringIO()
    with patch.object(sys, "argv", [module, *words]), redirect_stdout(shown), patch.object(sys, "stderr", shown):
        code = run_command(import_module(MODULES[module]).main)
    return shown.getvalue(), code


def _write() -> None:
    shutil.rmtree(HELD, ignore_errors=True)
    HELD.mkdir()
    for name, text in all_printed().items():
        (HELD / f"{name}.txt").write_text(text)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    _write()
