"""LLMServingSim's workloads in JSON Lines: what is read, what is wrong with its line, and tables with sessions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import UserError
from orchestrator.deployment import Unfit
from orchestrator.request_source import open_source
from orchestrator.request_table import MOST_TOKEN_ID, RequestTable, SessionColumns, TokenIds
from orchestrator.requests.formats import read_requests
from orchestrator.requests.request import Request
from orchestrator.settings.run import WorkloadSettings
from orchestrator.workload import LATEST_ARRIVAL_NS, MOST_TOKENS, ReadWorkload

MEASURED = sorted(Path(os.environ.get("ORRERY_MEASURED", "none")).glob("*/input/workload.jsonl"))
FLAT = '{"input_toks": 3, "output_toks": 2, "arrival_time_ns": 5}'
SESSION = (
    '{"session_id": "s", "arrival_time_ns": 7, "sub_requests": ['
    '{"input_toks": 2, "output_toks": 1, "input_tok_ids": [4, 5], "tool_duration_ns": 30}, '
    '{"input_toks": 4, "output_toks": 2, "input_tok_ids": [4, 5, 6, 7], "output_tok_ids": [8]}]}'
)


def read(folder: Path, text: str | bytes, limit: int | None = None) -> ReadWorkload:
    path = folder / "w.jsonl"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_requests(path, limit)


def test_single_requests_and_sessions_stand_in_one_file(tmp_path: Path) -> None:
    found = read(tmp_path, f"\ufeff{FLAT}\n\n{SESSION}\r\n{FLAT}")
    table = found.requests
    assert found.rows == 4
    rows = [(r.id, r.prompt_tokens, r.output_tokens, r.arrival_ns, r.session, r.source_line) for r in table]
    assert rows == [(0, 3, 2, 5, None, 1), (1, 2, 1, 7, 1, 3), (2, 4, 2, 7, 1, 3), (3, 3, 2, 5, None, 4)]
    ids = [(r.prompt_token_ids and list(r.prompt_token_ids), r.output_token_ids) for r in table]
    assert [prompt for prompt, _ in ids] == [None, [4, 5], [4, 5, 6, 7], None]
    assert [output and list(output) for _, output in ids] == [None, None, [8], None]
    assert table.sessions is not None and table.sessions.pause_ns.tolist() == [0, 30, 0, 0]
    ordered = table.in_arrival_order()
    assert ordered.id.tolist() == [0, 3, 1, 2]
    assert ordered.openings().id.tolist() == [0, 3, 1]
    assert [r.prompt_token_ids and list(r.prompt_token_ids) for r in ordered] == [None, None, [4, 5], [4, 5, 6, 7]]


def test_files_without_sessions_or_ids_are_plain_tables(tmp_path: Path) -> None:
    table = read(tmp_path, FLAT).requests
    assert table.sessions is None and table.prompt_ids is None and table.output_ids is None
    empty = FLAT.replace("}", ', "input_tok_ids": [], "output_tok_ids": []}')
    assert read(tmp_path, empty).requests.prompt_ids is None


def test_a_limit_counts_requests_and_may_cut_a_session(tmp_path: Path) -> None:
    text = f"{FLAT}\n{SESSION}\n{SESSION}\nnonsense\n"
    for limit, taken in ((1, 1), (2, 2), (3, 3), (4, 4)):
        found = read(tmp_path, text, limit)
        assert (len(found.requests), found.rows) == (taken, 6)
    with pytest.raises(UserError, match="line 4: not valid JSON"):
        read(tmp_path, text)


@pytest.mark.skipif(not MEASURED, reason="ORRERY_MEASURED names no folder of recorded workloads")
def test_recorded_workloads_are_read() -> None:
    for path in MEASURED:
        found = read_requests(path)
        assert found.rows == len(found.requests) == 300
        first = next(iter(found.requests))
        row = json.loads(path.read_text().partition("\n")[0])
        assert list(first.prompt_token_ids) == row["input_tok_ids"]
        assert list(first.output_token_ids) == row["output_tok_ids"]
        assert (first.prompt_tokens, first.output_tokens) == (row["input_toks"], row["output_toks"])
        assert first.arrival_ns == row["arrival_time_ns"]


def flat(**changes: Any) -> str:
    fields = {**json.loads(FLAT), **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not None})


def session(*turns: Any, **changes: Any) -> str:
    return json.dumps({"arrival_time_ns": 0, "sub_requests": list(turns), **changes})


TURN = {"input_toks": 3, "output_toks": 2}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 2: not valid JSON: .*; correct the syntax$"),
        ("[1]", r"line 2: the record is \[1\], not an object; write its fields by name$"),
        ("7", r"line 2: the record is 7, not an object"),
        ('{"a": 1, "a": 2}', 'line 2: the key "a" occurs twice; keep one$'),
        (flat(input_toks=None), r"line 2, input_toks: input_toks is missing; at least 1$"),
        (flat(input_toks=0), r"line 2, input_toks: 0 is too small; at least 1$"),
        (flat(input_toks=True), r"line 2, input_toks: true is not a whole number; at least 1$"),
        (flat(output_toks=2.0), r"line 2, output_toks: 2.0 is not a whole number; at least 1$"),
        (flat(output_toks="2"), r'line 2, output_toks: "2" is not a whole number; at least 1$'),
        (flat(output_toks=MOST_TOKENS + 1), r"line 2, output_toks: 1000000001 is too large; at most 1000000000$"),
        (flat(arrival_time_ns=None), r"line 2, arrival_time_ns: arrival_time_ns is missing; at least 0$"),
        (flat(arrival_time_ns=LATEST_ARRIVAL_NS + 1), r"line 2, arrival_time_ns: .* is too large; at most"),
        (flat(input_tokens=3), r"line 2, input_tokens: unknown field; did you mean input_toks"),
        (flat(tool_duration_ns=3), r"line 2, tool_duration_ns: unknown field"),
        (
            flat(input_tok_ids=[1, 2]),
            r"line 2, input_tok_ids: 2 ids for 3 tokens; give as many as input_toks, or none$",
        ),
        (flat(input_tok_ids="abc"), r'line 2, input_tok_ids: "abc" is no list; give a list$'),
        (
            flat(input_tok_ids=[1, 2, -3]),
            r"line 2, input_tok_ids\[2\]: -3 is no token id; give a whole number from 0 to",
        ),
        (flat(input_tok_ids=[1, True, 3]), r"line 2, input_tok_ids\[1\]: true is no token id"),
        (flat(input_tok_ids=[1, 2, 2**31]), r"line 2, input_tok_ids\[2\]: 2147483648 is no token id"),
        (
            flat(output_tok_ids=[1, 2, 3]),
            r"line 2, output_tok_ids: 3 ids for 2 tokens; give as many as output_toks, or",
        ),
        (session(), r"line 2, sub_requests: an empty list; give the session's requests in order$"),
        (session(sub_requests=3), r"line 2, sub_requests: 3 is no list; give a list$"),
        (session(TURN, 5), r"line 2, sub_requests\[1\]: 5 is no object; write its fields by name$"),
        (
            session(TURN, {"input_toks": 3}),
            r"line 2, sub_requests\[1\].output_toks: output_toks is missing; at least 1$",
        ),
        (session({**TURN, "arrival_time_ns": 3}), r"line 2, sub_requests\[0\].arrival_time_ns: unknown field"),
        (
            session({**TURN, "tool_duration_ns": -1}),
            r"sub_requests\[0\].tool_duration_ns: -1 is too small; at least 0$",
        ),
        (session(TURN, input_toks=3), r"line 2, input_toks: unknown field"),
        (session(TURN, arrival_time_ns=None), r"line 2, arrival_time_ns: arrival_time_ns is missing"),
        (
            session({**TURN, "tool_duration_ns": LATEST_ARRIVAL_NS}, TURN, arrival_time_ns=1),
            r"line 2, sub_requests\[0\].tool_duration_ns: the pauses until here are too long; let a session end within",
        ),
    ],
)
def test_what_is_wrong_has_its_line_and_field(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, f"{FLAT}\n{line}\n")


def test_bytes_that_are_no_text_and_files_without_requests(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2: the workload file is not UTF-8 text; save it as UTF-8$"):
        read(tmp_path, FLAT.encode() + b'\n{"a": "\xff"}\n')
    with pytest.raises(UserError, match=r"the workload file holds no requests; give at least one$"):
        read(tmp_path, FLAT, limit=0)


def test_the_limits_from_the_accepted_side(tmp_path: Path) -> None:
    ids = [MOST_TOKEN_ID, 0, 1]
    text = flat(output_toks=MOST_TOKENS, arrival_time_ns=LATEST_ARRIVAL_NS, input_tok_ids=ids)
    (request,) = read(tmp_path, text).requests
    assert (request.output_tokens, request.arrival_ns) == (MOST_TOKENS, LATEST_ARRIVAL_NS)
    assert list(request.prompt_token_ids) == ids


LISTS = st.lists(st.lists(st.integers(0, MOST_TOKEN_ID), max_size=5), min_size=1, max_size=8)


@settings(derandomize=True)
@given(LISTS, st.data())
def test_token_ids_stay_with_their_rows(lists: list[list[int]], data: st.DataObject) -> None:
    ids = TokenIds.of(lists)
    places = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=8))
    chosen = ids.at(np.array(places, dtype=np.int64))
    assert [list(chosen.row(n) or []) for n in range(len(places))] == [lists[place] for place in places]


def chained(numbers: list[int]) -> RequestTable:
    count = len(numbers)
    ones = np.ones(count, dtype=np.int64)
    columns = SessionColumns(np.array(numbers), 0 * ones)
    return RequestTable(np.arange(count), ones, ones, 0 * ones, ones, sessions=columns)


def test_a_session_is_reached_up_to_the_first_turn_that_is_not_served() -> None:
    table = chained([0, 1, 1, 1, 2, 2, 0, 0, 3])
    assert table.sessions is not None
    assert np.flatnonzero(~table.sessions.opens()).tolist() == [2, 3, 5]
    served = np.array([1, 1, 0, 1, 0, 1, 0, 1, 1], dtype=np.bool_)
    assert table.reached(served).tolist() == [bool(one) for one in (1, 1, 0, 0, 0, 0, 0, 1, 1)]


def test_sessions_with_a_turn_that_can_never_fit_are_skipped_from_there(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_text(session(TURN, {**TURN, "input_toks": 99}, TURN) + "\n" + FLAT + "\n")

    def refuses(request: Request) -> Unfit | None:
        return Unfit("it is long", "make it short") if request.prompt_tokens > 50 else None

    with pytest.raises(UserError, match=r"w.jsonl, line 1: it is long; make it short, or drop such requests"):
        open_source(WorkloadSettings(dataset=path), refuses, lambda longest: False)
    found = open_source(WorkloadSettings(dataset=path, skip_unfit=True), refuses, lambda longest: False)
    assert (found.table.id.tolist(), found.skipped, found.count) == ([0, 3], 2, 2)
    assert found.described == f"4 requests of {path} in 1 session (llmservingsim; token counts from the file)"


def test_retrieved_tokens_lengthen_every_prompt_and_have_no_ids(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_text(SESSION)
    source = open_source(WorkloadSettings(dataset=path), lambda request: None, lambda longest: True, retrieved=10)
    first, second = source.requests()
    assert (first.prompt_tokens, second.prompt_tokens) == (12, 14)
    assert (second.retrieved_tokens, list(second.prompt_token_ids)) == (10, [4, 5, 6, 7])
