"""The Azure LLM inference traces of 2023 and 2024: CSV, the time of day of each invocation, its prompt and its answer.

Source: Azure Public Dataset, AzureLLMInferenceDataset2023 and 2024 (``TIMESTAMP,ContextTokens,GeneratedTokens``); Patel
et al., "Splitwise", ISCA 2024, describes the first. Arrivals are counted from the earliest row.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from foundation.digits import decimal_number
from foundation.printable import brief
from orchestrator.requests.formats import RequestFormat, request_formats
from orchestrator.requests.formats.columns import Columns, tokens

_MINUTE = len("2023-11-16 18:15:")
_FIRST_YEAR, _LAST_YEAR = 1970, 2200
"""What 64 bits hold as ns since 1970, and a little less."""


def timestamp(text: str) -> int:
    """Return a point of time (``2023-11-16 18:15:46.6805900``, UTC where an offset of 0 is said or none) in ns."""
    begin, rest = text[:_MINUTE], text[_MINUTE:].removesuffix("+00:00")
    second, dot, fraction = rest.partition(".")
    value = decimal_number(rest)
    if len(second) != 2 or value is None or not 0 <= value < 60 or (dot and not fraction.isdigit()):
        raise ValueError(_wrong(text))
    return _minute_ns(begin) + int(second) * 10**9 + int(fraction[:9].ljust(9, "0"))


@lru_cache(maxsize=4096)
def _minute_ns(text: str) -> int:
    try:
        minute = datetime.strptime(text, "%Y-%m-%d %H:%M:").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(_wrong(text)) from None
    if not _FIRST_YEAR <= minute.year <= _LAST_YEAR:
        raise ValueError(_wrong(text))
    return round(minute.timestamp()) * 10**9


def _wrong(text: str) -> str:
    return f"{brief(text)} is not a point of time; write it as 2023-11-16 18:15:46.6805900"


COLUMNS = Columns(
    header=("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    converts=(timestamp, tokens, tokens),
    arrival="TIMESTAMP",
    prompt="ContextTokens",
    output="GeneratedTokens",
    from_first=True,
)

request_formats.register("azure")(RequestFormat(COLUMNS.recognises, COLUMNS.read))
