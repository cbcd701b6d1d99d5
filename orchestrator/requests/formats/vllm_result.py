"""A result of `vllm bench serve --save-result --save-detailed`: JSON, the lengths of every request that was sent.

`input_lens` and `output_lens` have a number for each request; `start_times`, where they were saved, are the moments (s,
of any clock) at which they were sent. A request with an error, or without output tokens, failed and is left out.
Source: vllm/benchmarks/serve.py of vLLM 0.11 and later.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.beginning import Beginning
    from orchestrator.requests.importing.reading import Reading
    from orchestrator.requests.importing.record import Record
    from orchestrator.requests.importing.rows import Rows
    from orchestrator.workload import ReadWorkload

_DETAILED = "a result has them that was saved with --save-detailed"


def recognises(beginning: Beginning) -> bool:
    """Whether the object has the totals of a benchmark, or the lengths of its requests."""
    return beginning.has("total_input_tokens", "completed") or beginning.has("input_lens", "output_lens")


def read(path: Path, reading: Reading) -> ReadWorkload:
    """Read a result."""
    from orchestrator.requests.importing.document import read_document
    from orchestrator.requests.importing.rows import Rows

    result, rows = read_document(path), Rows(path, reading)
    prompts = result.list(result.first("input_lens", fix=_DETAILED))
    for name in ("output_lens", "start_times", "errors"):
        if (result.has(name) or name == "output_lens") and len(result.list(name)) != len(prompts):
            what = f"{len(result.list(name))} values for {len(prompts)} requests"
            raise result.wrong(what, name, "give as many as input_lens")
    timed = result.has("start_times")
    errors = result.values.get("errors") or [""] * len(prompts)
    failed = 0
    for at, output in enumerate(result.list("output_lens")):
        if errors[at] or output == 0:
            failed += not rows.full
            continue
        with rows.record():
            _take(result, at, rows, timed=timed)
    read = rows.result(from_first=timed, timed=timed)
    return replace(read, notes=(f"requests that failed, left out: {failed}",) if failed else ())


def _take(result: Record, at: int, rows: Rows, *, timed: bool) -> None:
    from orchestrator.workload import LATEST_ARRIVAL_NS, MOST_TOKENS

    if rows.full:
        rows.pass_over()
        return
    prompt = result.whole_at("input_lens", at, 1, MOST_TOKENS)
    output = result.whole_at("output_lens", at, 1, MOST_TOKENS)
    arrival = round(result.number_at("start_times", at, 0, LATEST_ARRIVAL_NS / 1e9) * 1e9) if timed else 0
    rows.add(prompt, output, arrival)


request_formats.register("vllm-result")(RequestFormat(recognises, read))
