"""How files are read: lists element by element, tables many cells at once, and both as if one by one."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.bounds import DATA_BYTES
from foundation.errors import UserError
from orchestrator.requests.formats import read_requests
from orchestrator.requests.importing import columns, elements
from orchestrator.requests.importing.cells import ANY_WHOLE, SECONDS, TIMESTAMP, TOKENS, Cells, Kind, only
from orchestrator.requests.importing.reading import BadRecords, Reading
from orchestrator.workload import ReadWorkload

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
Row = tuple[int, int, int, int | None]


def rows(read: ReadWorkload) -> list[Row]:
    return [(r.prompt_tokens, r.output_tokens, r.arrival_ns, r.source_line) for r in read.requests]


def write(folder: Path, text: str) -> Path:
    path = folder / "w"
    path.write_text(text)
    return path


def skipping() -> Reading:
    return Reading(bad=BadRecords(skip=True))


# --- a list of records of any length


@settings(derandomize=True, max_examples=60)
@given(
    st.lists(st.dictionaries(TEXT, TEXT | st.integers() | st.none(), max_size=3), max_size=6),
    st.sampled_from([None, 1, "\t"]),
    st.integers(1, 40),
)
def test_elements_are_those_of_the_list(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, Any]], indent: Any, at_once: int
) -> None:
    path = tmp_path_factory.mktemp("elements") / "list.json"
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    path.write_text(text, encoding="utf-8", newline="")
    taken: list[tuple[Any, int | None]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(elements, "_AT_ONCE", at_once)
        elements.read_elements(path, _Unlimited(), lambda record: taken.append((record.values, record.line)))  # type: ignore[arg-type]
    assert [value for value, _ in taken] == values
    lines = text.split("\n")
    assert all(line is not None and lines[line - 1].strip()[0] in "[{" for _, line in taken)


class _Unlimited:
    """Rows that are never full, and take nothing."""

    full = False

    def record(self) -> AbstractContextManager[None]:
        return nullcontext()


def test_an_element_is_not_longer_than_a_record_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "DATA_BYTES", 1000)
    monkeypatch.setattr(elements, "_AT_ONCE", 64)
    assert DATA_BYTES > 1000
    path = write(tmp_path, '[{"conversations": [{"from": "human", "value": "' + "a" * 3000)
    with pytest.raises(UserError, match="line 1: a record is longer than 1000 characters; is this a workload file"):
        read_requests(path)


# --- columns: many cells at once are what each is by itself

CELLS = {
    "tokens": (TOKENS, st.integers(0, 2 * 10**9).map(str) | st.sampled_from(["", " 5", "+5", "1e2", "007", "9" * 30])),
    "any": (ANY_WHOLE, st.integers(0, 2**64).map(str) | st.sampled_from(["", "x", "1.0", "9" * 20])),
    "only": (only(2, "two"), st.sampled_from(["2", "02", "3", ""])),
    "seconds": (
        SECONDS,
        st.decimals(0, 10**9, places=5, allow_nan=False).map(str)
        | st.from_regex(r"[0-9]{1,3}\.[0-9]{0,19}", fullmatch=True)
        | st.sampled_from(["5", ".5", "1e-05", "1.2.3", "-1", "4611686018.4", "9999999999", "1.0000000005", " 1"]),
    ),
    "timestamp": (
        TIMESTAMP,
        st.datetimes().map(str)
        | st.datetimes().map(lambda one: f"{one:%Y-%m-%d %H:%M:%S.%f}0+00:00")
        | st.from_regex(
            r"20[0-9]{2}-[01][0-9]-[0-3][0-9] [0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,10})?", fullmatch=True
        )
        | st.sampled_from(["2023-11-16 18:15:46.", "2023-11-16T18:15:46", "2023-11-16", "2024-02-30 00:00:00"]),
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_many_cells_at_once_are_what_each_is_by_itself(name: str) -> None:
    kind: Kind = CELLS[name][0]
    seen = {"together": 0, "apart": 0}

    @settings(derandomize=True, max_examples=300)
    @given(st.lists(CELLS[name][1], min_size=1, max_size=3))
    def compare(texts: list[str]) -> None:
        ends = np.cumsum([len(text) + 1 for text in texts]) - 1
        starts = ends - [len(text) for text in texts]
        content = np.frombuffer(("\n".join(texts) + "\n").encode(), dtype=np.uint8)
        found = kind.together(Cells(content, starts, ends))
        if found is None:
            seen["apart"] += 1
            return
        seen["together"] += 1
        assert found.tolist() == [kind.convert(text) for text in texts]

    compare()
    assert min(seen.values()) > 5


LINES = st.one_of(
    st.tuples(st.integers(0, 99), st.integers(0, 3), st.integers(0, 3)).map(
        lambda row: f"{row[0]},a,{row[1]},{row[2]}"
    ),
    st.sampled_from(["", "5.5,x,1,1", "1e1,x,2,2", " 7 ,x, 3,1", "8,x,1,1\r", "nonsense", "9,x,1", "9,x,-1,1"]),
)


@settings(derandomize=True, max_examples=200)
@given(st.lists(LINES, max_size=12), st.none() | st.integers(1, 5), st.integers(1, 64), st.booleans())
def test_blocks_of_any_size_are_read_as_lines_are(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], limit: int | None, block: int, ends: bool
) -> None:
    """Read in blocks of a few bytes, and whole, and by lines alone: the same table or the same error."""
    path = tmp_path_factory.mktemp("csv") / "b.csv"
    text = "Timestamp,Model,Request tokens,Response tokens\n" + "\n".join(lines) + "\n" * ends
    path.write_text(text, newline="")

    def outcome(reading: Reading, **patched: Any) -> object:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in patched.items():
                patch.setattr(columns, name, value)
            try:
                read = read_requests(path, limit, reading=reading)
            except UserError as error:
                return str(error)
            return rows(read), read.rows, read.notes

    for make in (Reading, skipping):
        expected = outcome(make(), _cells=lambda content, width: None)
        assert outcome(make()) == expected
        assert outcome(make(), _BLOCK=block) == expected


def test_a_header_may_be_in_any_order_and_names_its_columns_once(tmp_path: Path) -> None:
    path = write(tmp_path, "GeneratedTokens,TIMESTAMP,ContextTokens\r\n7,2024-05-10 00:00:00,9\r\n")
    assert rows(read_requests(path)) == [(9, 7, 0, 2)]
    path = write(tmp_path, "num_prefill_tokens,num_prefill_tokens,num_decode_tokens\n1,1,1\n")
    with pytest.raises(UserError, match="line 1: the header names a column twice"):
        read_requests(path, named="vidur")
    path = write(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens,Images\n")
    with pytest.raises(
        UserError, match="line 1: the header has 1 columns more; the header is TIMESTAMP,ContextTokens,"
    ):
        read_requests(path, named="azure")


def test_a_trace_of_failures_alone_has_no_requests(tmp_path: Path) -> None:
    path = write(tmp_path, "Timestamp,Request tokens,Response tokens\n1,0,0\n2,5,0\n")
    with pytest.raises(UserError, match=r"holds no requests; all 2 of its rows failed$"):
        read_requests(path)
