"""LLMServingSim's workloads: JSON Lines, a request or a session of requests that wait for each other a line.

    {"input_toks": 9, "output_toks": 5, "arrival_time_ns": 0, "input_tok_ids": [...], "output_tok_ids": [...]}
    {"session_id": "a", "arrival_time_ns": 70, "sub_requests": [
        {"input_toks": 9, "output_toks": 5, "tool_duration_ns": 3000}, {"input_toks": 30, "output_toks": 2}]}

Source: LLMServingSim, docs/docs/workloads/jsonl-format.md and serving/core/router.py at 5daddb2. The field `priority`
(0 unless given; policies that know priorities serve the least first) is ours. Lists of token ids may be left out; where
a prompt's are there, they are as many as its tokens, which LLMServingSim does not ask for. Memory goes with the
requests that are taken; what is wrong is told with its line.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from foundation.bounds import DATA_BYTES
from foundation.documents import parse_json
from foundation.errors import UserError, near_names
from foundation.files import decode, open_input, reason
from foundation.key_paths import KeyPath, shown_key_path
from foundation.printable import brief
from orchestrator.request_table import MOST_TOKEN_ID, RequestTable, SessionColumns, TokenIds
from orchestrator.requests.formats import WHAT, RequestFormat, request_formats
from orchestrator.workload import LATEST_ARRIVAL_NS, MOST_TOKENS, ReadWorkload

_MARK = b"\xef\xbb\xbf"
_LENGTHS = ("input_toks", "output_toks", "input_tok_ids", "output_tok_ids", "priority")
_FLAT = (*_LENGTHS, "arrival_time_ns")
_SESSION = ("session_id", "arrival_time_ns", "sub_requests")
_TURN = (*_LENGTHS, "tool_duration_ns")
_FIELDS_KEPT = 7
_MOST_PRIORITY = 10**6


def recognises(first_line: bytes) -> bool:
    """Whether a file's first line opens a JSON object."""
    return first_line.lstrip().startswith(b"{")


def read(path: Path, limit: int | None) -> ReadWorkload:
    """Read the first `limit` requests (None: all) of a file, ids from 0 in the file's order. Raises `UserError`.

    The limit may cut a session short. Lines after it are counted and not looked at.
    """
    reader = _Reader(path, limit)
    with open_input(path, WHAT) as stream:
        try:
            reader.read(stream)
        except OSError as error:
            raise UserError(f"the {WHAT} cannot be read: {reason(error)}", path=path) from error
    return reader.result()


class _Reader:
    """Collects the requests of one file."""

    def __init__(self, path: Path, limit: int | None) -> None:
        self._path = path
        self._limit = limit
        self._rows = 0
        self._sessions = 0
        self._kept = array("q")
        self._prompt_ids: list[Sequence[int]] = []
        self._output_ids: list[Sequence[int]] = []
        self._known = False

    def read(self, stream: BufferedReader) -> None:
        """Read line after line."""
        number = 0
        while line := stream.readline(DATA_BYTES + 1):
            number += 1
            if len(line) > DATA_BYTES:
                what = f"the line is longer than {DATA_BYTES} bytes"
                raise UserError(what, path=self._path, line=number, fix="is this a workload file?")
            text = line.removeprefix(_MARK) if number == 1 else line
            if text.strip():
                self._take(text, number)

    def result(self) -> ReadWorkload:
        """Return what was read."""
        if not self._kept:
            raise UserError(f"the {WHAT} holds no requests", path=self._path, fix="give a JSON object a line")
        columns = np.array(self._kept, dtype=np.int64).reshape(-1, _FIELDS_KEPT).T
        prompts, outputs, arrivals, lines, sessions, pauses, priorities = map(np.ascontiguousarray, columns)
        table = RequestTable(
            np.arange(len(prompts)),
            prompts,
            outputs,
            arrivals,
            lines,
            sessions=SessionColumns(sessions, pauses) if self._sessions else None,
            prompt_ids=TokenIds.of(self._prompt_ids) if self._known else None,
            output_ids=TokenIds.of(self._output_ids) if self._known else None,
            priority=priorities if priorities.any() else None,
        )
        return ReadWorkload(table, self._rows)

    def _take(self, text: bytes, number: int) -> None:
        if self._full():
            self._rows += max(1, text.count(b'"output_toks"'))
            return
        record = self._parsed(text, number)
        if "sub_requests" in record:
            self._take_session(record, number)
            return
        self._check_names(record, _FLAT, number)
        self._keep(record, self._arrival(record, number), number, ())

    def _take_session(self, record: Mapping[str, Any], number: int) -> None:
        self._check_names(record, _SESSION, number)
        arrival = self._arrival(record, number)
        turns = record["sub_requests"]
        if not isinstance(turns, list) or not turns:
            said = "an empty list" if turns == [] else f"{brief(turns)} is no list"
            raise self._wrong(said, number, ("sub_requests",), "give the session's requests in order")
        self._sessions += 1
        spent = arrival
        for place, turn in enumerate(turns):
            where = ("sub_requests", place)
            if self._full():
                self._rows += 1
                continue
            if not isinstance(turn, dict):
                raise self._wrong(f"{brief(turn)} is no object", number, where, "write the request's fields by name")
            self._check_names(turn, _TURN, number, where)
            pause = self._whole(turn, "tool_duration_ns", 0, LATEST_ARRIVAL_NS, number, where, 0)
            spent += pause
            if spent > LATEST_ARRIVAL_NS:
                fix = "let a session end within 146 years"
                raise self._wrong("the pauses until here are too long", number, (*where, "tool_duration_ns"), fix)
            self._keep(turn, arrival, number, where, session=self._sessions, pause=pause)

    def _full(self) -> bool:
        return self._limit is not None and self._rows >= self._limit

    def _keep(
        self, record: Mapping[str, Any], arrival: int, number: int, where: KeyPath, *, session: int = 0, pause: int = 0
    ) -> None:
        prompt = self._whole(record, "input_toks", 1, MOST_TOKENS, number, where)
        output = self._whole(record, "output_toks", 1, MOST_TOKENS, number, where)
        prompt_ids = self._ids(record, "input_tok_ids", number, where)
        output_ids = self._ids(record, "output_tok_ids", number, where)
        if prompt_ids and len(prompt_ids) != prompt:
            what = f"{len(prompt_ids)} ids for {prompt} tokens"
            raise self._wrong(what, number, (*where, "input_tok_ids"), "give as many as input_toks, or none")
        if len(output_ids) > output:
            what = f"{len(output_ids)} ids for {output} tokens"
            raise self._wrong(what, number, (*where, "output_tok_ids"), "give as many as output_toks, or fewer")
        priority = self._whole(record, "priority", -_MOST_PRIORITY, _MOST_PRIORITY, number, where, 0)
        self._known = self._known or bool(prompt_ids)
        self._prompt_ids.append(prompt_ids)
        self._output_ids.append(output_ids)
        self._kept.extend((prompt, output, arrival, number, session, pause, priority))
        self._rows += 1

    def _arrival(self, record: Mapping[str, Any], number: int) -> int:
        return self._whole(record, "arrival_time_ns", 0, LATEST_ARRIVAL_NS, number, ())

    def _parsed(self, text: bytes, number: int) -> Mapping[str, Any]:
        """Return the object of a line."""
        try:
            value = parse_json(decode(text.strip(), self._path, WHAT), "line").value
        except UserError as error:
            raise UserError(error.what, path=self._path, line=number, fix=error.fix) from None
        if not isinstance(value, dict):
            what = f"the line is {brief(value)}, not an object of named fields"
            raise UserError(what, path=self._path, line=number, fix="write a JSON object a line")
        return value

    def _check_names(self, record: Mapping[str, Any], known: Sequence[str], number: int, where: KeyPath = ()) -> None:
        for name in record:
            if name not in known:
                raise self._wrong("unknown field", number, (*where, name), near_names(name, known))

    def _whole(
        self,
        record: Mapping[str, Any],
        name: str,
        low: int,
        high: int,
        number: int,
        where: KeyPath,
        default: int | None = None,
    ) -> int:
        value = record.get(name, default)
        if type(value) is int and low <= value <= high:
            return value
        if value is None:
            said = f"{name} is missing"
        elif type(value) is not int:
            said = f"{brief(value)} is not a whole number"
        else:
            said = f"{brief(value)} is too {'small' if value < low else 'large'}"
        fix = f"at most {high}" if type(value) is int and value > high else f"at least {low}"
        raise self._wrong(said, number, (*where, name), fix)

    def _ids(self, record: Mapping[str, Any], name: str, number: int, where: KeyPath) -> Sequence[int]:
        ids = record.get(name)
        if ids is None:
            return ()
        if not isinstance(ids, list):
            raise self._wrong(f"{brief(ids)} is no list", number, (*where, name), "list token ids")
        if ids and not (set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) <= MOST_TOKEN_ID):
            place, value = next(_wrong_ids(ids))
            fix = f"give a whole number from 0 to {MOST_TOKEN_ID}"
            raise self._wrong(f"{brief(value)} is no token id", number, (*where, name, place), fix)
        return array("i", ids)

    def _wrong(self, what: str, number: int, place: KeyPath, fix: str) -> UserError:
        return UserError(what, path=self._path, line=number, field=shown_key_path(place), fix=fix)


def _wrong_ids(ids: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    return ((at, one) for at, one in enumerate(ids) if type(one) is not int or not 0 <= one <= MOST_TOKEN_ID)


request_formats.register("llmservingsim")(RequestFormat(recognises, read))
