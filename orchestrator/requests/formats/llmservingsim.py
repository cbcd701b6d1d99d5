"""LLMServingSim's workloads: JSON Lines, a request or a session of requests that wait for each other a line.

    {"input_toks": 9, "output_toks": 5, "arrival_time_ns": 0, "input_tok_ids": [...], "output_tok_ids": [...]}
    {"session_id": "a", "arrival_time_ns": 70, "sub_requests": [
        {"input_toks": 9, "output_toks": 5, "tool_duration_ns": 3000}, {"input_toks": 30, "output_toks": 2}]}

Source: LLMServingSim, docs/docs/workloads/jsonl-format.md and serving/core/router.py at 5daddb2. Lists of token ids may
be left out; where a prompt's are there, they are as many as its tokens, which LLMServingSim does not ask for. The field
`priority` (0 unless given; policies that know priorities serve the least first) is ours.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.printable import brief
from orchestrator.requests.formats import RequestFormat, request_formats

if TYPE_CHECKING:
    from orchestrator.requests.importing.beginning import Beginning
    from orchestrator.requests.importing.reading import Reading
    from orchestrator.requests.importing.record import Record
    from orchestrator.requests.importing.rows import Rows
    from orchestrator.workload import ReadWorkload

_LENGTHS = ("input_toks", "output_toks", "input_tok_ids", "output_tok_ids", "priority")
_MOST_PRIORITY = 10**6
_FLAT = (*_LENGTHS, "arrival_time_ns")
_SESSION = ("session_id", "arrival_time_ns", "sub_requests")
_TURN = (*_LENGTHS, "tool_duration_ns")


def recognises(beginning: Beginning) -> bool:
    """Whether the first object has a name that only these files have."""
    return not beginning.in_list and not beginning.names.isdisjoint((*_FLAT, "sub_requests"))


def read(path: Path, reading: Reading) -> ReadWorkload:
    """Read a file. The limit may cut a session short; lines after it are counted by the requests they seem to have."""
    from orchestrator.requests.importing.lines import read_lines
    from orchestrator.requests.importing.rows import Rows

    rows = Rows(path, reading)
    read_lines(path, rows, lambda record: _take(record, rows), lambda line: max(1, line.count(b'"output_toks"')))
    return rows.result()


def _take(record: Record, rows: Rows) -> None:
    if "sub_requests" in record.values:
        _take_session(record, rows)
        return
    record.only(_FLAT)
    _keep(record, _arrival(record), rows)


def _take_session(record: Record, rows: Rows) -> None:
    from orchestrator.workload import LATEST_ARRIVAL_NS

    record.only(_SESSION)
    arrival = spent = _arrival(record)
    if record.list("sub_requests") == []:
        raise record.wrong("an empty list", "sub_requests", "give the session's requests in order")
    session = rows.new_session()
    for turn in record.objects("sub_requests"):
        if rows.full:
            rows.pass_over()
            continue
        turn.only(_TURN)
        pause = turn.whole("tool_duration_ns", 0, LATEST_ARRIVAL_NS, 0)
        spent += pause
        if spent > LATEST_ARRIVAL_NS:
            fix = "let a session end within 146 years"
            raise turn.wrong("the pauses until here are too long", "tool_duration_ns", fix)
        _keep(turn, arrival, rows, session=session, pause=pause)


def _keep(record: Record, arrival: int, rows: Rows, *, session: int = 0, pause: int = 0) -> None:
    from orchestrator.workload import MOST_TOKENS

    prompt = record.whole("input_toks", 1, MOST_TOKENS)
    output = record.whole("output_toks", 1, MOST_TOKENS)
    prompt_ids, output_ids = _ids(record, "input_tok_ids"), _ids(record, "output_tok_ids")
    if prompt_ids and len(prompt_ids) != prompt:
        what = f"{len(prompt_ids)} ids for {prompt} tokens"
        raise record.wrong(what, "input_tok_ids", "give as many as input_toks, or none")
    if len(output_ids) > output:
        what = f"{len(output_ids)} ids for {output} tokens"
        raise record.wrong(what, "output_tok_ids", "give as many as output_toks, or fewer")
    rows.add(
        prompt,
        output,
        arrival,
        record.line,
        session=session,
        pause_ns=pause,
        prompt_ids=prompt_ids,
        output_ids=output_ids,
        priority=record.whole("priority", -_MOST_PRIORITY, _MOST_PRIORITY, 0),
    )


def _arrival(record: Record) -> int:
    from orchestrator.workload import LATEST_ARRIVAL_NS

    return record.whole("arrival_time_ns", 0, LATEST_ARRIVAL_NS)


def _ids(record: Record, name: str) -> Sequence[int]:
    from orchestrator.request_table import MOST_TOKEN_ID

    if not record.has(name):
        return ()
    ids = record.list(name)
    if ids and not (set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) <= MOST_TOKEN_ID):
        wrong = ((at, one) for at, one in enumerate(ids) if type(one) is not int or not 0 <= one <= MOST_TOKEN_ID)
        place, value = next(wrong)
        fix = f"give a whole number from 0 to {MOST_TOKEN_ID}"
        raise record.wrong(f"{brief(value)} is no token id", (name, place), fix)
    return array("i", ids)


request_formats.register("llmservingsim")(RequestFormat(recognises, read))
