"""ReaLLM's requests, a CSV in the format of SplitwiseSim: arrivals in seconds, one request of one application a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.columns import Columns


def columns() -> Columns:
    """Return the columns of a file."""
    from orchestrator.requests.importing.cells import ANY_WHOLE, SECONDS, TOKENS, only
    from orchestrator.requests.importing.columns import Columns

    return Columns(
        {
            "request_id": ANY_WHOLE,
            "request_type": only(2, "only type 2, generating text, is simulated"),
            "application_id": only(0, "a run serves one model: give a file an application, numbered 0"),
            "arrival_timestamp": SECONDS,
            "batch_size": only(1, "write a row a request"),
            "prompt_size": TOKENS,
            "token_size": TOKENS,
        },
        arrival="arrival_timestamp",
        prompt="prompt_size",
        output="token_size",
    )


request_formats.register("reallm")(
    RequestFormat(
        lambda beginning: columns().recognises(beginning), lambda path, reading: columns().read(path, reading)
    )
)
