"""Reads workload files: one request a row, `input_toks  output_toks  arrival_time_ns`, separated by tabs.

The header row is optional. Rows are read one at a time, so that a long file costs no memory. Requests come in
arrival order; a file that is not in that order is sorted first (which does read it whole).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from foundation.errors import UserError
from orchestrator.request import Request

COLUMNS = ("input_toks", "output_toks", "arrival_time_ns")
LATEST_ARRIVAL_NS = 2**62
"""Some 146 years; what follows it must still fit into 64 bits."""
_EXPECTED = f"expected three whole numbers separated by tabs: {' '.join(COLUMNS)}"


def read_workload(path: str | Path, limit: int = 0) -> Iterator[Request]:
    """Yield the first `limit` requests (0: all) of a TSV file, in the file's order, ids from 0.

    `Request.source_line` is the row's line. A missing file, an empty one or a malformed row (not three whole
    numbers, a prompt or an output below 1 token, an arrival below 0 or above `LATEST_ARRIVAL_NS`) is a `UserError`
    with its line. A byte-order mark is skipped.
    """
    return _limited(_rows(Path(path)), limit)


def in_arrival_order(requests: Iterable[Request]) -> list[Request]:
    """Return `requests` sorted by arrival; equal arrivals keep their order. Ids are not changed."""
    return sorted(requests, key=lambda request: request.arrival_ns)


def write_workload(path: str | Path, requests: Iterable[Request]) -> int:
    """Write requests as a TSV file with a header row, whole or not at all; return how many there were."""
    from foundation.files import atomic_write

    count = 0
    with atomic_write(path) as stream:
        stream.write("\t".join(COLUMNS) + "\n")
        for request in requests:
            stream.write(f"{request.prompt_tokens}\t{request.output_tokens}\t{request.arrival_ns}\n")
            count += 1
    return count


def _limited(requests: Iterator[Request], limit: int) -> Iterator[Request]:
    return islice(requests, limit) if limit else requests


def _rows(path: Path) -> Iterator[Request]:
    identity = 0
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for line, text in enumerate(stream, start=1):
                fields = text.split()
                if not fields or (identity == 0 and fields == list(COLUMNS)):
                    continue
                yield _parse(path, line, fields, identity)
                identity += 1
    except FileNotFoundError:
        raise UserError("the workload file does not exist", path=path, fix="check --dataset") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"the workload file cannot be read: {reason}", path=path, fix=_EXPECTED) from error
    if identity == 0:
        raise UserError("the workload file holds no requests", path=path, fix=_EXPECTED)


def _parse(path: Path, line: int, fields: list[str], identity: int) -> Request:
    try:
        prompt, output, arrival = (int(field) for field in fields)
    except ValueError:
        shown = " ".join(fields)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise UserError(f"malformed row {shown!r}", path=path, line=line, fix=_EXPECTED) from None
    for value, column, least in zip((prompt, output, arrival), COLUMNS, (1, 1, 0), strict=True):
        if value < least:
            raise UserError(f"{value} is too small", path=path, line=line, field=column, fix=f"at least {least}")
    if arrival > LATEST_ARRIVAL_NS:
        raise UserError(
            f"{arrival} is too large", path=path, line=line, field=COLUMNS[2], fix=f"at most {LATEST_ARRIVAL_NS}"
        )
    return Request(identity, arrival, prompt, output, source_line=line)
