"""GuideLLM's report, benchmarks.json: the requests that its benchmarks completed, at the times when they were sent.

    {"benchmarks": [{"requests": {"successful": [
        {"prompt_tokens": 256, "output_tokens": 128, "info": {"timings": {"request_start": 1730000000.25}}}]}}]}

Source: vllm-project/guidellm, `GenerativeRequestStats` (0.4 and later; 0.2 and 0.3 wrote `start_time` into the request
itself). The benchmarks of a sweep follow each other as they did. Incomplete and errored requests are left out. Arrivals
count from the first request.
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

_LEFT_OUT = ("incomplete", "errored")


def recognises(beginning: Beginning) -> bool:
    """Whether the object has benchmarks."""
    return beginning.has("benchmarks")


def read(path: Path, reading: Reading) -> ReadWorkload:
    """Read a report."""
    from orchestrator.requests.importing.document import read_document
    from orchestrator.requests.importing.rows import Rows

    report, rows = read_document(path), Rows(path, reading)
    left_out = 0
    for benchmark in report.objects("benchmarks"):
        requests = benchmark.object("requests")
        left_out += sum(len(requests.list(name)) for name in _LEFT_OUT if requests.has(name))
        for at in range(len(requests.list("successful"))):
            with rows.record():
                _take(requests.object_at("successful", at), rows)
    read = rows.result(from_first=True)
    return replace(read, notes=(f"incomplete and errored requests, left out: {left_out}",) if left_out else ())


def _take(request: Record, rows: Rows) -> None:
    from orchestrator.workload import LATEST_ARRIVAL_NS, MOST_TOKENS

    if rows.full:
        rows.pass_over()
        return
    prompt = request.whole("prompt_tokens", 1, MOST_TOKENS)
    output = request.whole("output_tokens", 1, MOST_TOKENS)
    timed, name = request, "start_time"
    if not request.has(name):
        timed, name = request.object("info").object("timings"), "request_start"
    seconds = timed.number(name, 0, LATEST_ARRIVAL_NS / 1e9)
    rows.add(prompt, output, round(seconds * 1e9))


request_formats.register("guidellm")(RequestFormat(recognises, read))
