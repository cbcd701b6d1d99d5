"""Workload files and the generator of the shipped ones."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from helpers.reached import Reached, reaches
from hypothesis import strategies as st

from foundation.errors import UserError
from orchestrator import workload
from orchestrator.request_table import RequestTable
from orchestrator.requests.generators.generating import Generator
from orchestrator.requests.request import Request
from orchestrator.requests.writing import write_tables
from orchestrator.settings.specification import RunSpec
from orchestrator.workload import read_workload

WORKLOADS = Path(__file__).parents[2] / "workloads"


def generated(profile: str, rate: float, seed: int, count: int) -> list[Request]:
    clients = RunSpec.of(profile=profile, request_rate=rate).workload.mixture
    return list(Generator(clients, seed, count).table())


def rows(path: Path, limit: int | None = None) -> list[tuple[int, int, int, int | None]]:
    read = read_workload(path, limit).requests
    return [(r.prompt_tokens, r.output_tokens, r.arrival_ns, r.source_line) for r in read]


def test_the_header_is_optional_and_blank_lines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "w.tsv"
    path.write_text("input_toks\toutput_toks\tarrival_time_ns\n10\t5\t0\n\n7\t3\t100\n")
    assert rows(path) == [(10, 5, 0, 2), (7, 3, 100, 4)]
    path.write_text("10\t5\t0\n7\t3\t100")
    assert rows(path) == [(10, 5, 0, 1), (7, 3, 100, 2)]
    assert rows(path, limit=1) == [(10, 5, 0, 1)]
    assert [request.id for request in read_workload(path).requests] == [0, 1]


def test_rows_beyond_the_limit_are_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "w.tsv"
    path.write_text("10\t5\t0\nnonsense\n")
    assert len(rows(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10\t5\t0\n7\t3\n", "line 2: malformed row '7 3'; expected three whole numbers"),
        ("10\t5\t0\n7\t3\t1\t9\n", "line 2: malformed row '7 3 1 9'"),
        ("7\t3.5\t0\n", "line 1: malformed row '7 3.5 0'"),
        ("input\toutput\tarrival\n", "line 1: malformed row 'input output arrival'"),
        ("1\t1\t0\ninput_toks\toutput_toks\tarrival_time_ns\n", "line 2: malformed row"),
        ("0\t3\t0\n", "line 1, input_toks: 0 is too small; at least 1"),
        ("3\t0\t0\n", "line 1, output_toks: 0 is too small; at least 1"),
        ("3\t1\t-1\n", "line 1, arrival_time_ns: -1 is too small; at least 0"),
        ("", "holds no requests"),
        ("\n \n", "holds no requests"),
        ("1_000\t5\t0\n", "line 1: malformed row '1_000 5 0'"),
        ("１\t5\t0\n", "line 1: malformed row"),
        ("7\t3\t0x10\n", "line 1: malformed row"),
        ("1\t1\t0\n7\t3\t\x1b[31m5\n", "line 2: malformed row '7 3 \\\\x1b[31m5'"),
        ("1\t1\t0\n2000000000\t1\t0\n", "line 2, input_toks: 2000000000 is too large; at most 1000000000"),
        ("1\t1\t0\n1\t1\t4611686018427387905\n", "line 2, arrival_time_ns: 4611686018427387905 is too large; at most"),
        ("1\t1\t99999999999999999999999\n", "line 1, arrival_time_ns: 99999999999999999999999 is too large"),
        ("9" * 70000, "line 1: malformed row '9999"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "w.tsv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_workload(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


LINES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 9999), st.integers(1, 9999), st.integers(0, 10**17)).map(
            lambda r: "\t".join(map(str, r))
        ),
        st.sampled_from(["", "  ", " 5 6  7", "8\t9\t+10", "5\t5\t4611686018427387904"]),
    ),
    max_size=30,
)


@reaches(
    0.8,
    examples=200,
    lines=LINES,
    block=st.integers(1, 60),
    ends=st.sampled_from(["\n", "\r\n"]),
    limit=st.integers(1, 9),
)
def test_blocks_do_not_matter(reached: Reached, lines: list[str], block: int, ends: str, limit: int) -> None:
    """Rows come out as a plain reading by lines gives them, however the file is cut into blocks."""
    wanted = [(*map(int, line.split()), place) for place, line in enumerate(lines, start=1) if line.split()]
    if not wanted:
        return
    reached()
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "_BLOCK", block)
        path = Path(folder, "w.tsv")
        path.write_text(ends.join(lines), newline="")
        assert rows(path) == wanted
        path.write_text(ends.join(["\t".join(workload.COLUMNS), *lines, ""]), newline="")
        assert rows(path) == [(*row[:3], row[3] + 1) for row in wanted]
        cut = read_workload(path, limit)
        assert (len(cut.requests), cut.rows) == (min(limit, len(wanted)), len(wanted))


def test_plain_rows_are_read_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.tsv"
    path.write_text("input_toks\toutput_toks\tarrival_time_ns\n" + "".join(f"10\t5\t{n}\n" for n in range(200_000)))
    by_line: list[bytes] = []
    parse = workload._Reader._parse
    monkeypatch.setattr(workload._Reader, "_parse", lambda self, *a: by_line.append(a[0]) or parse(self, *a))
    read = read_workload(path)
    assert len(read.requests) == 200_000 and read.requests.line[-1] == 200_001
    assert len(by_line) < 0.5 * 200_000, "only the block with the header goes line by line"


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.tsv"
    path.write_text("10\t5\t0\n")
    take = workload._Reader._take

    def grow(self: workload._Reader, block: bytes) -> None:
        with path.open("a") as stream:
            stream.write("7\t3\t1\n")
        take(self, block)

    monkeypatch.setattr(workload._Reader, "_take", grow)
    with pytest.raises(UserError, match="changed while it was read; give it when it is whole"):
        read_workload(path)


@pytest.mark.parametrize("path", ["/dev/zero", "."])
def test_what_may_never_end_is_not_read(path: str) -> None:
    with pytest.raises(UserError, match=r"the workload file cannot be read: it is a (device|folder)"):
        read_workload(path)


def test_a_table_is_its_requests(tmp_path: Path) -> None:
    made = list(generated("alpaca-like", 5.0, 3, 9000))
    table = RequestTable.of(made)
    assert [(r.id, r.arrival_ns, r.prompt_tokens, r.output_tokens) for r in table] == [
        (r.id, r.arrival_ns, r.prompt_tokens, r.output_tokens) for r in made
    ]
    assert table.in_arrival_order() is table
    shuffled = table.at(np.array([2, 0, 1, 0]))
    assert [r.id for r in shuffled.in_arrival_order()] == [0, 0, 1, 2]
    longest = table.longest()
    assert longest.prompt_tokens == max(r.prompt_tokens for r in made)
    assert longest.output_tokens == max(r.output_tokens for r in made)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the workload file does not exist"):
        read_workload(tmp_path / "none.tsv")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = list(generated("alpaca-like", 5.0, 3, 50))
    assert write_tables(tmp_path / "w.tsv", [RequestTable.of(made)]) == 50
    assert [row[:3] for row in rows(tmp_path / "w.tsv")] == [
        (r.prompt_tokens, r.output_tokens, r.arrival_ns) for r in made
    ]


@pytest.mark.parametrize(("profile", "count"), [("sharegpt-like", 100), ("sharegpt-like", 300), ("alpaca-like", 100)])
def test_the_shipped_samples_are_what_the_generator_makes(tmp_path: Path, profile: str, count: int) -> None:
    write_tables(tmp_path / "w.tsv", [RequestTable.of(generated(profile, 10.0, 0, count))])
    assert (tmp_path / "w.tsv").read_bytes() == (WORKLOADS / f"{profile}-{count}-rate10.tsv").read_bytes()


@pytest.mark.parametrize("first", ["input_toks\toutput_toks\tarrival_time_ns\n", ""])
def test_a_byte_order_mark_is_skipped(tmp_path: Path, first: str) -> None:
    path = tmp_path / "marked.tsv"
    path.write_text(f"\ufeff{first}10\t5\t0\n", encoding="utf-8")
    assert [(r.prompt_tokens, r.output_tokens) for r in read_workload(path).requests] == [(10, 5)]


@pytest.mark.parametrize("block", [6, 7, 8, 9, 1000])
def test_a_byte_order_mark_within_the_file_is_no_part_of_a_row(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "_BLOCK", block)
    path = tmp_path / "joined.tsv"
    path.write_text("10\t5\t0\n\ufeff20\t5\t0\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 2: malformed row"):
        read_workload(path)
