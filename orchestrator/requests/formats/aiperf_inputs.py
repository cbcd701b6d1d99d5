"""inputs.json of aiperf and genai-perf: the payloads of the requests that a benchmark sends.

    {"data": [{"session_id": "a", "payloads": [{"messages": [...], "max_completion_tokens": 50}]}]}     aiperf
    {"data": [{"payload": [{"messages": [...], "max_tokens": 50}]}]}                                    genai-perf

Source: ai-dynamo/aiperf, docs/tutorials/working-with-profile-exports.md; triton-inference-server/perf_analyzer,
genai-perf. Several payloads of an entry are the turns of a session: each comes when the answer before it is complete,
with the prompt that the payload has. The file has no arrival times.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.beginning import Beginning
    from orchestrator.requests.importing.reading import Reading
    from orchestrator.requests.importing.record import Record
    from orchestrator.requests.importing.rows import Rows
    from orchestrator.requests.importing.texts import TextTokens
    from orchestrator.workload import ReadWorkload

_NAMES = ("payloads", "payload")


def recognises(beginning: Beginning) -> bool:
    """Whether the object has data."""
    return beginning.has("data")


def read(path: Path, reading: Reading) -> ReadWorkload:
    """Read the payloads of a benchmark."""
    from orchestrator.requests.importing.document import read_document
    from orchestrator.requests.importing.rows import Rows

    rows = Rows(path, reading)
    document = read_document(path)
    for at in range(len(document.list("data"))):
        with rows.record():
            _take(document.object_at("data", at), rows, reading.texts)
    return rows.result(timed=False)


def _take(entry: Record, rows: Rows, texts: TextTokens) -> None:
    from orchestrator.requests.importing.chat import output_of, prompt_of

    name = entry.first(*_NAMES, fix="list what is sent")
    session = rows.new_session() if len(entry.list(name)) > 1 and not rows.full else 0
    for body in entry.objects(name):
        if rows.full:
            rows.pass_over()
            continue
        prompt = prompt_of(body, texts)
        rows.add(prompt.tokens, output_of(body), session=session, prompt_ids=prompt.ids)


request_formats.register("aiperf-inputs")(RequestFormat(recognises, read))
