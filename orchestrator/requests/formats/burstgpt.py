"""BurstGPT: CSV, when users of a campus' ChatGPT and GPT-4 service asked, and how long prompts and answers were.

Source: Wang et al., "BurstGPT: A Real-world Workload Dataset to Optimize LLM Serving Systems", KDD 2025, and the page
of its data (HPMLL/BurstGPT): seconds since the first day's midnight, ``Timestamp,Model,Request tokens,Response
tokens,Total tokens,Log Type``, in later files with ``Session ID`` and ``Elapsed time``. Rows without response tokens
are requests that failed; they are left out, as in the files ``without_fails``. All models are taken for the one that is
simulated, and requests of a session come at their own times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.columns import Columns


def columns() -> Columns:
    """Return the columns of a trace, without those that are not looked at."""
    from orchestrator.requests.importing.cells import SECONDS, TOKENS_OR_NONE
    from orchestrator.requests.importing.columns import Columns

    return Columns(
        {"Timestamp": SECONDS, "Request tokens": TOKENS_OR_NONE, "Response tokens": TOKENS_OR_NONE},
        arrival="Timestamp",
        prompt="Request tokens",
        output="Response tokens",
        from_first=True,
        others=True,
    )


request_formats.register("burstgpt")(
    RequestFormat(
        lambda beginning: columns().recognises(beginning), lambda path, reading: columns().read(path, reading)
    )
)
