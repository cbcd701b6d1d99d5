"""ReaLLM's requests, a CSV in the format of SplitwiseSim: arrivals in seconds, one request of one application a row."""

from __future__ import annotations

from orchestrator.requests.formats import RequestFormat, request_formats
from orchestrator.requests.formats.columns import Columns, any_whole, only, seconds, tokens

_COLUMNS = {
    "request_id": any_whole,
    "request_type": only(2, "only type 2, generating text, is simulated"),
    "application_id": only(0, "a run serves one model: give a file an application, numbered 0"),
    "arrival_timestamp": seconds,
    "batch_size": only(1, "write a row a request"),
    "prompt_size": tokens,
    "token_size": tokens,
}
COLUMNS = Columns(
    header=tuple(_COLUMNS),
    converts=tuple(_COLUMNS.values()),
    arrival="arrival_timestamp",
    prompt="prompt_size",
    output="token_size",
)

request_formats.register("reallm")(RequestFormat(COLUMNS.recognises, COLUMNS.read))
