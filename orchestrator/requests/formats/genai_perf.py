"""genai-perf's (perf_analyzer's) profile_export.json: requests and answers as texts, and when they were sent.

    {"experiments": [{"requests": [{"timestamp": 1723616973000000, "request_inputs": {"payload": "{...}"},
        "response_timestamps": [...], "response_outputs": [{"response": "data: {...}\\n\\n"}]}]}]}

Source: triton-inference-server/perf_analyzer, genai-perf/docs/files.md and its parser of profile data (OpenAI's
endpoints). The prompt is the payload's, the answer the texts of the response's parts, or the count that the server gave
as `usage`. A request without an answer is left out. Times are ns; arrivals count from the first request.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.beginning import Beginning
    from orchestrator.requests.importing.reading import Reading
    from orchestrator.requests.importing.record import Record
    from orchestrator.requests.importing.rows import Rows
    from orchestrator.requests.importing.texts import TextTokens
    from orchestrator.workload import ReadWorkload

_LATEST_NS = 2**63 - 1
_DATA = "data:"
_DONE = "[DONE]"


def recognises(beginning: Beginning) -> bool:
    """Whether the object has experiments."""
    return beginning.has("experiments")


def read(path: Path, reading: Reading) -> ReadWorkload:
    """Read the requests of all experiments."""
    from orchestrator.requests.importing.document import read_document
    from orchestrator.requests.importing.rows import Rows

    rows, unanswered = Rows(path, reading), 0
    for experiment in read_document(path).objects("experiments"):
        for at in range(len(experiment.list("requests"))):
            with rows.record():
                unanswered += not _take(experiment.object_at("requests", at), rows, reading.texts)
    read = rows.result(from_first=True)
    return replace(read, notes=(f"requests without an answer, left out: {unanswered}",) if unanswered else ())


def _take(request: Record, rows: Rows, texts: TextTokens) -> bool:
    """Take a request; return whether it has an answer."""
    from orchestrator.requests.importing.chat import prompt_of

    if rows.full:
        rows.pass_over()
        return True
    output = _answer(request, texts)
    if not output:
        return False
    prompt = prompt_of(_payload(request), texts)
    arrival = request.whole("timestamp", 0, _LATEST_NS)
    rows.add(prompt.tokens, output, arrival, prompt_ids=prompt.ids)
    return True


def _payload(request: Record) -> Record:
    """Return what was sent, which stands as a text in the request."""
    inputs = request.object("request_inputs")
    value = _parsed(inputs.text("payload"))
    if not isinstance(value, dict):
        raise inputs.wrong("the payload is no JSON object", "payload", "give the request as it was sent")
    return inputs.inner("payload", value)


def _answer(request: Record, texts: TextTokens) -> int:
    """Return the tokens of an answer: those that the server counted, or those of its texts."""
    from orchestrator.workload import MOST_TOKENS

    said: list[str] = []
    for response in request.objects("response_outputs"):
        for part in _parts(response):
            usage = part.get("usage")
            if isinstance(usage, dict) and type(usage.get("completion_tokens")) is int:
                counted = int(usage["completion_tokens"])
                if not 0 <= counted <= MOST_TOKENS:
                    raise response.wrong(f"the usage has {counted} tokens", "response", f"at most {MOST_TOKENS}")
                return counted
            said += _said(part)
    return texts.of("".join(said)).tokens if any(said) else 0


def _parts(response: Record) -> Iterator[dict[str, Any]]:
    """Yield the objects of a response: one, or those of a stream of server-sent events."""
    text = response.text("response") if response.has("response") else ""
    for line in text.split("\n") if text.startswith(_DATA) else [text]:
        value = _parsed(line.removeprefix(_DATA).strip())
        if isinstance(value, dict):
            yield value


def _said(part: dict[str, Any]) -> Iterator[str]:
    choices = part.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        for holder in (choice, choice.get("delta"), choice.get("message")):
            for name in ("content", "text"):
                if isinstance(holder, dict) and isinstance(holder.get(name), str):
                    yield holder[name]


def _parsed(text: str) -> Any:
    """Return the value of a JSON text, None where it is none."""
    from foundation.documents import parse_json
    from foundation.errors import UserError

    if not text or text == _DONE:
        return None
    try:
        return parse_json(text, "payload").value
    except UserError:
        return None


request_formats.register("genai-perf")(RequestFormat(recognises, read))
