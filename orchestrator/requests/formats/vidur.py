"""Vidur's processed traces: CSV, lengths and (in some) arrivals in seconds; further columns are not looked at.

Source: microsoft/vidur, data/processed_traces: ``arrived_at,num_prefill_tokens,num_decode_tokens``, or lengths without
``arrived_at``, for which Vidur draws arrivals. Vidur cuts what is longer than its `max_tokens`; here `--skip_unfit`
drops what can never fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.columns import Columns


def columns() -> Columns:
    """Return the columns of a trace, without those that are not looked at."""
    from orchestrator.requests.importing.cells import SECONDS, TOKENS
    from orchestrator.requests.importing.columns import Columns

    return Columns(
        {"arrived_at": SECONDS, "num_prefill_tokens": TOKENS, "num_decode_tokens": TOKENS},
        arrival="arrived_at",
        prompt="num_prefill_tokens",
        output="num_decode_tokens",
        others=True,
        untimed=True,
    )


request_formats.register("vidur")(
    RequestFormat(
        lambda beginning: columns().recognises(beginning), lambda path, reading: columns().read(path, reading)
    )
)
