"""Recordings made from our own simulations: what a real server's would be if it were what was simulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from foundation.errors import UserError
from orchestrator.commands.run import simulate
from orchestrator.validation.formats import read_recording
from orchestrator.validation.recording import Recording

ZERO_S = 27536.25
"""Where a server's monotonic clock may stand when the first request comes."""


def run(folder: Path, name: str = "out", *flags: str, req_num: int = 60, rate: float = 40.0) -> Path:
    """Simulate a run of GPT-2 under vLLM's scheduler and return its CSV; the workload is made beside it."""
    dataset = folder / "load.tsv"
    if not dataset.exists():
        draws = np.random.default_rng(7)
        arrivals = np.rint(draws.exponential(1e9 / rate, req_num).cumsum()).astype(int)
        lengths = draws.integers(20, 400, (req_num, 2))
        rows = zip(lengths.tolist(), arrivals.tolist(), strict=True)
        dataset.write_text("".join(f"{prompt}\t{output}\t{arrival}\n" for (prompt, output), arrival in rows))
    output = folder / f"{name}.csv"
    words = ["--model_name", "openai-community/gpt2", "--scheduling", "vllm", "--dataset", str(dataset), "--quiet"]
    assert simulate([*words, "--no_report", "--output", str(output), *flags]) == 0
    return output


def read(path: Path) -> Recording:
    return read_recording(path)


def server_log(simulated: Path, path: Path, *, stretched: float = 1.0, opaque: bool = False) -> Path:
    """Write a run as `requests.jsonl`, times from `queued` on `stretched`; its time series and meta.json beside it.

    `opaque`: ids without numbers, rows in another order.
    """
    one = read(simulated)
    rows = []
    for row in range(len(one)):
        queued, first, end = (int(one.moments[name][row]) for name in ("queued", "first_token", "end"))
        rows.append(
            {
                "request_id": f"cmpl-{'abcdefgh'[row % 8]}x" if opaque else f"bench-{one.position[row]}",
                "input_toks": int(one.prompt_tokens[row]),
                "output_toks": int(one.output_tokens[row]),
                "arrival_time": 1.7e9 + int(one.moments["arrival"][row]) / 1e9,
                "queued_ts": round(ZERO_S + queued / 1e9, 9),
                "scheduled_ts": round(ZERO_S + queued / 1e9, 9),
                "first_token_ts": round(ZERO_S + (queued + stretched * (first - queued)) / 1e9, 9),
                "last_token_ts": round(ZERO_S + (queued + stretched * (end - queued)) / 1e9, 9),
            }
        )
    if opaque:
        rows.sort(key=lambda record: record["last_token_ts"], reverse=True)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in rows))
    assert one.series is not None
    columns = [one.series.columns[name] for name in ("prompt_per_s", "generation_per_s", "running", "waiting")]
    lines = ["t,prompt_throughput,gen_throughput,running,waiting,kv_cache_pct"]
    for row, end in enumerate(one.series.ends_ns.tolist()):
        cells = [f"{column[row]:.3f}" for column in columns]
        lines.append(f"{end / 1e9},{','.join(cells)},{100 * one.series.columns['kv_used'][row]:.3f}")
    path.with_name("timeseries.csv").write_text("\n".join(lines) + "\n")
    meta = {"model": "gpt2", "vllm_version": "0.19.0", "kv_cache": {"num_gpu_blocks": int(one.facts["KV blocks"]) + 1}}
    path.with_name("meta.json").write_text(json.dumps(meta))
    return path


def bench(simulated: Path, path: Path, **changes: Any) -> Path:
    """Write a run as vLLM's benchmark client does; `changes` replace keys, None takes one out."""
    one = read(simulated)
    assert one.gaps is not None
    order = np.argsort(one.position)
    seconds = {name: one.moments[name][order] / 1e9 for name in one.moments}
    record = {
        "date": "20260101-000000",
        "endpoint_type": "openai",
        "tokenizer_id": "gpt2",
        "num_prompts": len(one),
        "request_rate": 40.0,
        "duration": (one.moments["end"].max() - one.moments["arrival"].min()) / 1e9,
        "completed": len(one),
        "failed": 0,
        "request_throughput": 1.0,
        "input_lens": one.prompt_tokens[order].tolist(),
        "output_lens": one.output_tokens[order].tolist(),
        "ttfts": (seconds["first_token"] - seconds["arrival"]).tolist(),
        "itls": [(one.gaps[row] / 1e9).tolist() for row in order],
        "start_times": (ZERO_S + seconds["arrival"]).tolist(),
        "generated_texts": [""] * len(one),
        "errors": [""] * len(one),
    }
    record |= changes
    path.write_text(json.dumps({name: value for name, value in record.items() if value is not None}))
    return path


def refused(path: Path) -> str:
    """Return what is said of a recording that is refused."""
    try:
        read(path)
    except UserError as error:
        return str(error)
    raise AssertionError("it was taken")
