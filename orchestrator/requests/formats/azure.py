"""The Azure LLM inference traces of 2023 and 2024: CSV, the time of day of each invocation, its prompt and its answer.

Source: Azure Public Dataset, AzureLLMInferenceDataset2023 and 2024 (``TIMESTAMP,ContextTokens,GeneratedTokens``); Patel
et al., "Splitwise", ISCA 2024, describes the first. Arrivals are counted from the earliest row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.columns import Columns


def columns() -> Columns:
    """Return the columns of a trace."""
    from orchestrator.requests.importing.cells import TIMESTAMP, TOKENS
    from orchestrator.requests.importing.columns import Columns

    return Columns(
        {"TIMESTAMP": TIMESTAMP, "ContextTokens": TOKENS, "GeneratedTokens": TOKENS},
        arrival="TIMESTAMP",
        prompt="ContextTokens",
        output="GeneratedTokens",
        from_first=True,
    )


request_formats.register("azure")(
    RequestFormat(
        lambda beginning: columns().recognises(beginning), lambda path, reading: columns().read(path, reading)
    )
)
