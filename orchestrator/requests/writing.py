"""Writes tables of requests: TSV where rows say all, else JSON Lines with sessions, token ids and priorities.

Tables come one after another and are written as they come, so memory goes with one of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from foundation.draws import below
from foundation.errors import UserError
from foundation.files import atomic_write
from orchestrator.request_table import MOST_TOKEN_ID, RequestTable
from orchestrator.requests.request import Request
from orchestrator.workload import ADAPTER_COLUMN, COLUMNS

TSV, JSONL = ".tsv", ".jsonl"


def write_tables(path: Path, tables: Iterable[RequestTable], *, needs_json: bool = False) -> int:
    """Write the requests of all tables, whole or not at all; return how many there were.

    The name's ending decides (.jsonl, else TSV). A TSV file that could not hold all (`needs_json`) is a `UserError`.
    """
    lines = path.suffix == JSONL
    if needs_json and not lines:
        what = "a TSV file has no sessions, token ids or priorities"
        raise UserError(what, path=path, fix=f"name a {JSONL} file")
    count = 0
    with atomic_write(path) as stream:
        for number, table in enumerate(tables):
            if lines:
                stream.writelines(f"{line}\n" for line in _json_lines(table))
            else:
                _write_rows(stream, table, header=number == 0)
            count += len(table)
    return count


def needs_json(table: RequestTable) -> bool:
    """Whether a table has what a TSV file cannot hold."""
    return any(one is not None for one in (table.sessions, table.prompt_ids, table.output_ids, table.priority))


def _write_rows(stream: IO[Any], table: RequestTable, *, header: bool) -> None:
    columns = [table.prompt_tokens, table.output_tokens, table.arrival_ns]
    names = list(COLUMNS)
    if table.adapter is not None:
        columns.append(table.adapter)
        names.append(ADAPTER_COLUMN)
    if header:
        stream.write("\t".join(names) + "\n")
    stream.writelines("\t".join(map(str, row)) + "\n" for row in zip(*(one.tolist() for one in columns), strict=True))


def _json_lines(table: RequestTable) -> Iterator[str]:
    """Yield a line a request, or a session whose requests stand in consecutive rows."""
    pauses = None if table.sessions is None else table.sessions.pause_ns.tolist()
    session: dict[str, object] = {}
    turns: list[dict[str, object]] = []
    for place, request in enumerate(table):
        if turns and str(request.session) != session["session_id"]:
            yield json.dumps({**session, "sub_requests": turns})
            turns = []
        fields = _fields(request)
        if request.session is None:
            yield json.dumps({"arrival_time_ns": request.arrival_ns, **fields})
            continue
        if not turns:
            session = {"session_id": str(request.session), "arrival_time_ns": request.arrival_ns}
        if pauses is not None and pauses[place]:
            fields["tool_duration_ns"] = pauses[place]
        turns.append(fields)
    if turns:
        yield json.dumps({**session, "sub_requests": turns})


def _fields(request: Request) -> dict[str, object]:
    fields: dict[str, object] = {"input_toks": request.prompt_tokens, "output_toks": request.output_tokens}
    if request.priority:
        fields["priority"] = request.priority
    for name, ids in (("input_tok_ids", request.prompt_token_ids), ("output_tok_ids", request.output_token_ids)):
        if ids is not None:
            fields[name] = [_narrow(one) for one in ids]
    return fields


def _narrow(identity: int) -> int:
    """Return a token id that readers take; those made of a block's hash are wider, and are hashed once more."""
    return identity if identity <= MOST_TOKEN_ID else below(MOST_TOKEN_ID + 1, 0, "token id", identity)
