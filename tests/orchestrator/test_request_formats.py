"""Workloads of other tools: recognised by their first line, read to the same requests; what is wrong has its line."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import UserError
from orchestrator.requests.formats import read_requests, request_formats
from orchestrator.requests.importing.cells import timestamp
from orchestrator.workload import LATEST_ARRIVAL_NS, MOST_TOKENS

REALLM = "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
Row = tuple[int, int, int, int | None]


def read(tmp_path: Path, text: str | bytes, limit: int | None = None) -> list[Row]:
    path = tmp_path / "requests.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = read_requests(path, limit)
    assert [one.id for one in found.requests] == list(range(len(found.requests)))
    return [(one.prompt_tokens, one.output_tokens, one.arrival_ns, one.source_line) for one in found.requests]


def test_every_format_is_found() -> None:
    assert {"reallm", "azure"} <= set(request_formats)


def test_reallm(tmp_path: Path) -> None:
    rows = "0,2,0,0.25,1,374,44\n\n7,2,0,1.000000001,1,12,1\r\n"
    assert read(tmp_path, REALLM + rows) == [(374, 44, 250_000_000, 2), (12, 1, 1_000_000_001, 4)]
    assert read(tmp_path, "\ufeff" + REALLM.replace("\n", "\r\n") + rows, limit=1) == [(374, 44, 250_000_000, 2)]
    assert read(tmp_path, REALLM + "0,2,0,0,1,3,4") == [(3, 4, 0, 2)]


def test_azure_counts_from_the_earliest(tmp_path: Path) -> None:
    """2023 writes seven digits of a second and no offset, 2024 six and an offset of zero."""
    rows = "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:45.5,12,1\n2023-11-17 00:00:00.000000001,5,6\n"
    second_day = (5 * 3600 + 44 * 60 + 14) * 10**9 + 500_000_001
    assert read(tmp_path, AZURE + rows) == [(374, 44, 1_180_590_000, 2), (12, 1, 0, 3), (5, 6, second_day, 4)]
    later = "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01.017335+00:00,2399,6\n"
    assert read(tmp_path, AZURE + later) == [(2162, 5, 0, 2), (2399, 6, 1_007_405_000, 3)]


def test_anything_else_is_our_own_tsv(tmp_path: Path) -> None:
    assert read(tmp_path, "10\t5\t0\n") == [(10, 5, 0, 1)]
    with pytest.raises(UserError, match=r"line 1: malformed row 'TIMESTAMP,Context'; expected three whole numbers"):
        read(tmp_path, "TIMESTAMP,Context\n1,2\n")
    with pytest.raises(UserError, match="the workload file does not exist"):
        read_requests(tmp_path / "none.csv")


def test_a_file_that_fails_while_it_is_read() -> None:
    with pytest.raises(UserError, match=r"^/proc/self/mem: the workload file cannot be read: Input/output error$"):
        read_requests("/proc/self/mem")


def test_rows_beyond_the_limit_are_counted_and_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text(REALLM + "0,2,0,0,1,3,4\nnonsense\n\n1,2,0,0,1,3,4\n")
    found = read_requests(path, 1)
    assert (len(found.requests), found.rows) == (1, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (REALLM, "the workload file holds no requests; give rows below the header$"),
        (REALLM + "0,2,0,0,1,3\n", "line 2: 6 columns, the header has 7; write request_id,request_type"),
        (REALLM + "0,2,0,0,1,3,4\nx,2,0,0,1,3,4\n", 'line 3, request_id: "x" is not a whole number; give one of at'),
        (REALLM + "0,1,0,0,1,3,4\n", 'line 2, request_type: "1" is not 2; only type 2, generating text, is simulated'),
        (REALLM + "0,2,1,0,1,3,4\n", 'line 2, application_id: "1" is not 0; a run serves one model: give a file an'),
        (REALLM + "0,2,0,0,8,3,4\n", 'line 2, batch_size: "8" is not 1; write a row a request$'),
        (REALLM + "0,2,0,-1,1,3,4\n", 'line 2, arrival_timestamp: "-1" is not a time; give seconds from 0 on$'),
        (REALLM + "0,2,0,5e9,1,3,4\n", 'line 2, arrival_timestamp: "5e9" is not a time'),
        (REALLM + "0,2,0,nan,1,3,4\n", 'line 2, arrival_timestamp: "nan" is not a time'),
        (REALLM + "0,2,0,0,1,0,4\n", "line 2, prompt_size: 0 is too small; at least 1$"),
        (
            REALLM + f"0,2,0,0,1,3,{MOST_TOKENS + 1}\n",
            "line 2, token_size: 1000000001 is too large; at most 10{9}$",
        ),
        (REALLM + "0,2,0,0,1,1_0,4\n", 'line 2, prompt_size: "1_0" is not a whole number'),
        (AZURE + "yesterday,3,4\n", 'line 2, TIMESTAMP: "yesterday" is not a point of time; write it as 2023-11-16 18'),
        (AZURE + "2023-11-16 18:15:60,3,4\n", "TIMESTAMP: .* is not a point of time"),
        (AZURE + "2023-11-16 18:15:5,3,4\n", "TIMESTAMP: .* is not a point of time"),
        (AZURE + "2023-11-16 18:15:05.,3,4\n", "TIMESTAMP: .* is not a point of time"),
        (AZURE + "2023-11-16 18:15:05.1e0,3,4\n", "TIMESTAMP: .* is not a point of time"),
        (AZURE + "2023-13-16 18:15:05,3,4\n", "TIMESTAMP: .* is not a point of time"),
        (AZURE + "1969-12-31 23:59:05,3,4\n", "TIMESTAMP: .* is not a point of time"),
        (AZURE + "2201-01-01 00:00:05,3,4\n", "TIMESTAMP: .* is not a point of time"),
        (AZURE + "2023-11-16 18:15:05+01:00,3,4\n", "TIMESTAMP: .* is not a point of time"),
        (
            AZURE + "1970-01-01 00:00:05,3,4\n2190-01-01 00:00:05,3,4\n",
            "line 3, TIMESTAMP: 6942585600 s after the first",
        ),
        (AZURE + "2023-11-16 18:15:05,3\n", "line 2: 2 columns, the header has 3; write TIMESTAMP,ContextTokens,Gen"),
    ],
)
def test_what_is_wrong_has_its_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_the_limits_from_the_accepted_side(tmp_path: Path) -> None:
    latest = LATEST_ARRIVAL_NS // 10**9
    text = REALLM + f"{2**62},2,0,{latest},1,{MOST_TOKENS},1\n"
    assert read(tmp_path, text) == [(MOST_TOKENS, 1, latest * 10**9, 2)]
    edges = "1970-01-01 00:00:00,1,1\n2100-12-31 23:59:59.999999999,1,1\n"
    assert read(tmp_path, AZURE + edges)[1][2] == 4_133_980_799_999_999_999


def test_bytes_that_are_no_text_and_long_lines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 2: 1 columns"):
        read(tmp_path, AZURE.encode() + b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"line 2: the line is longer than 65536 bytes; is this a workload file\?$"):
        read(tmp_path, AZURE + " " * 65515 + "1970-01-01 00:00:05,3,4")
    row = "1970-01-01 00:00:05,3,4"
    assert read(tmp_path, AZURE + row.rjust(65535) + "\n") == [(3, 4, 0, 2)]


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2199, 1, 1)))
def test_timestamps_are_exact(when: datetime) -> None:
    expected = (when - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1000
    assert timestamp(when.strftime("%Y-%m-%d %H:%M:%S.%f")) == expected
