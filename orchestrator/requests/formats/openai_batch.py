"""Batches of OpenAI-like servers: JSON Lines, a request to an endpoint a line.

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
     "body": {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}}

Source: OpenAI's Batch API, and vLLM's `run-batch`. The prompt is the texts of the messages, without a chat template;
the answer is as long as the request allows (`max_tokens` and its other names). A batch has no arrival times.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.beginning import Beginning
    from orchestrator.requests.importing.reading import Reading
    from orchestrator.requests.importing.record import Record
    from orchestrator.workload import ReadWorkload


def recognises(beginning: Beginning) -> bool:
    """Whether the first object is a request of a batch."""
    return beginning.has("custom_id", "body")


def read(path: Path, reading: Reading) -> ReadWorkload:
    """Read a batch."""
    from orchestrator.requests.importing.chat import output_of, prompt_of
    from orchestrator.requests.importing.lines import read_lines
    from orchestrator.requests.importing.rows import Rows

    rows = Rows(path, reading)

    def take(record: Record) -> None:
        body = record.object("body")
        prompt = prompt_of(body, reading.texts)
        rows.add(prompt.tokens, output_of(body), line=record.line, prompt_ids=prompt.ids)

    read_lines(path, rows, take)
    return rows.result(timed=False)


request_formats.register("openai-batch")(RequestFormat(recognises, read))
