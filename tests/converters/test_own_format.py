"""Our own text format, value by value: what is taken at each limit, what is refused just beyond, and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.text import own, read_text_trace
from foundation.errors import UserError

HEAD = ("ORRERY\t1", "attributes\t{}", "steps\t1", "requests\t-", "rank_sets\t0-1;1", "groups\t1,0")
ROW = {
    "op": "norm",
    "kind": "compute",
    "layer": "-",
    "stage": "0",
    "rank_set": "0",
    "request": "-",
    "sub_batch": "0",
    "latency_ns": "5",
    "flops": "0",
    "mem_bytes": "0",
    "input_loc": "LOCAL",
    "input_bytes": "0",
    "weight_loc": "LOCAL",
    "weight_bytes": "0",
    "output_loc": "LOCAL",
    "output_bytes": "0",
    "comm_type": "NONE",
    "comm_bytes": "0",
    "comm_group": "-",
    "waits_for": "-",
}


def write(folder: Path, *rows: dict[str, str], rows_line: str | None = None, after: str = "", **head: str) -> Path:
    """Write a trace of `rows`, each with some columns changed; `head` replaces lines of the header."""
    lines = [f"{line.split(chr(9))[0]}\t{head.pop(line.split(chr(9))[0], line.split(chr(9))[1])}" for line in HEAD]
    assert not head
    lines += [rows_line or f"rows\t{len(rows)}", "\t".join(own.COLUMNS)]
    lines += ["\t".join((ROW | row).values()) for row in rows]
    path = folder / "t.txt"
    path.write_text("\n".join(lines) + "\n" + after)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_text_trace(path)
    return str(error.value).removeprefix(f"{path}, ")


def test_what_the_row_above_is(tmp_path: Path) -> None:
    trace = read_text_trace(write(tmp_path, {}, {"rank_set": "1"}, after="\n  \n"))
    assert (trace.rows, trace.steps, trace.rank_sets, trace.groups) == (2, 1, ((0, 1), (1,)), ((1, 0),))
    assert [trace.name(0), int(trace.latency_ns[0, 0]), int(trace.layer[0]), int(trace.request[0])] == [
        "norm",
        5,
        -1,
        -1,
    ]


@pytest.mark.parametrize(
    ("column", "taken", "beyond", "said"),
    [
        ("layer", "65535", "65536", "layer is 65536, outside 0 .. 65535"),
        ("stage", "65535", "65536", "stage is 65536, outside 0 .. 65535"),
        ("sub_batch", "1000000000", "1000000001", "sub_batch is 1000000001, outside 0 .. 1000000000"),
        ("request", "999999999999999999", "-7", "request is -7, outside 0 .. 999999999999999999"),
        ("latency_ns", "9000000000000000", "9000000000000001", "latency_ns is 9000000000000001, outside 0 .. 90000"),
        ("flops", "999999999999999999", "1000000000000000000", "flops is '1000000000000000000', not an integer; write"),
        ("input_bytes", "0", "-1", "input_bytes is -1, outside 0 .. 999999999999999999"),
        ("weight_bytes", "7", "７", "weight_bytes is '７', not an integer; write decimal digits"),
        ("comm_bytes", "7", "1_000", "comm_bytes is '1_000', not an integer; write decimal digits"),
        ("rank_set", "1", "2", "rank_set is 2, but 2 are listed"),
        ("comm_group", "0", "1", "comm_group is 1, but 1 groups are listed"),
        ("kind", "comm", "COMM", "kind is 'COMM'; write one of compute, mem_load, mem_store, comm"),
        ("comm_type", "ALLREDUCE", "allreduce", "comm_type is 'allreduce'; write one of NONE, ALLREDUCE, ALLGATHER"),
        (
            "input_loc",
            "CXL:2147483647",
            "CXL:2147483648",
            "the node of input_loc is 2147483648, outside -1 .. 21474836",
        ),
        ("weight_loc", "REMOTE:-1", "REMOTE:-2", "the node of weight_loc is -2, outside -1 .. 2147483647"),
        (
            "output_loc",
            "STORAGE",
            "MOON",
            "output_loc is 'MOON'; write one of LOCAL, REMOTE, CXL, STORAGE, with :<node>",
        ),
        ("op", "a\\tb\\\\", "a\\x", "op has an unknown escape; write \\\\, \\t, \\n or \\r"),
        ("op", "plain", "a\\", "op has an unknown escape; write \\\\, \\t, \\n or \\r"),
        ("waits_for", "0", "1", "waits_for names a row that is not another row of the trace"),
        ("waits_for", "0", "2", "waits_for names a row that is not another row of the trace"),
    ],
)
def test_columns_to_their_limits(tmp_path: Path, column: str, taken: str, beyond: str, said: str) -> None:
    assert read_text_trace(write(tmp_path, {}, {column: taken})).rows == 2
    line = len(HEAD) + 4
    assert refused(write(tmp_path, {}, {column: beyond})).startswith(f"line {line}: {said}")


@pytest.mark.parametrize(
    ("head", "line", "said"),
    [
        ({"attributes": "[]"}, 2, 'attributes are not a JSON object of texts; write {"model": "..."}, or {}'),
        ({"attributes": '{"a": 1}'}, 2, "attributes are not a JSON object of texts"),
        ({"attributes": "["}, 2, "attributes are not a JSON object of texts"),
        ({"attributes": '{"a": "x", "a": "y"}'}, 2, "attributes are not a JSON object of texts"),
        ({"steps": "0"}, 3, "steps is 0, outside 1 .. 4096"),
        ({"steps": "4097"}, 3, "steps is 4097, outside 1 .. 4096"),
        ({"requests": "1,x"}, 4, "a request is 'x', not an integer"),
        ({"rank_sets": "65536"}, 5, "a rank is 65536, outside 0 .. 65535"),
        ({"rank_sets": "0-65536"}, 5, "a rank is 65536, outside 0 .. 65535"),
        ({"rank_sets": "3-2"}, 5, "a rank is 2, outside 3 .. 65535"),
        ({"rank_sets": "0,1,0"}, 5, "the list '0,1,0' names a rank twice"),
        ({"groups": ";".join(["0-65535"] * 16 + ["0"])}, 6, "more than 1048576 ranks are listed"),
        ({"groups": "-/2"}, 6, "a rank is '', not an integer"),
        ({"groups": ""}, 6, "a rank is '', not an integer"),
    ],
)
def test_headers_beyond_their_limits(tmp_path: Path, head: dict[str, str], line: int, said: str) -> None:
    assert refused(write(tmp_path, {}, **head)).startswith(f"line {line}: {said}")


def test_as_many_rows_as_may_be(tmp_path: Path) -> None:
    for rows, said in (
        (10**9, "line 10: the file ends before row 1 of the 1000000000"),
        (10**9 + 1, "line 7: the number of rows is 1000"),
    ):
        assert refused(write(tmp_path, {}, rows_line=f"rows\t{rows}")).startswith(said)


def test_headers_at_their_limits(tmp_path: Path) -> None:
    head = {"rank_sets": "65535;0-3,7", "groups": ";".join(["0-65535"] * 15), "requests": "3,4"}
    trace = read_text_trace(write(tmp_path, {}, attributes='{"model": "m"}', **head))
    assert trace.rank_sets == ((65535,), (0, 1, 2, 3, 7))
    assert trace.batch_requests.tolist() == [3, 4]
    assert trace.attributes == {"format": "orrery", "model": "m"}
    assert read_text_trace(write(tmp_path, {"latency_ns": ",".join(["5"] * 4096)}, steps="4096")).steps == 4096


def test_lines_that_are_not_where_they_belong(tmp_path: Path) -> None:
    path = write(tmp_path, {})
    lines = path.read_text().splitlines()
    for at, said in (
        (1, "the line is not the header's attributes; write attributes, a tab and its value"),
        (2, "the line is not the header's steps"),
        (6, "the line is not the header's rows"),
        (7, "the line does not name the columns; write them tab-separated, as docs/text_trace.md does"),
    ):
        path.write_text("\n".join([*lines[:at], "something else", *lines[at + 1 :]]) + "\n")
        assert refused(path).startswith(f"line {at + 1}: {said}")
        path.write_text("\n".join(lines[:at]) + "\n")
        assert refused(path).startswith(f"line {at + 1}: the file ends before ")
    path.write_text("\n".join([*lines[:8], lines[8] + "\tx"]) + "\n")
    assert refused(path) == "line 9: the row has 21 fields; write 20, tab-separated"


def test_rows_are_as_many_as_announced(tmp_path: Path) -> None:
    assert refused(write(tmp_path, {}, rows_line="rows\t2")) == (
        "line 10: the file ends before row 1 of the 2 that are announced; the file is truncated or not a trace"
    )
    assert refused(write(tmp_path, {}, {}, rows_line="rows\t1")) == (
        "line 10: there are more rows than the 1 that are announced"
    )
    assert refused(write(tmp_path, {}, after="\n\nx\n")) == "line 12: there are more rows than the 1 that are announced"


def test_values_a_step(tmp_path: Path) -> None:
    moves = {"kind": "mem_load", "latency_ns": "0"}
    trace = read_text_trace(write(tmp_path, {"latency_ns": "5,6,7", "flops": "1,2,3"}, moves, steps="3"))
    assert trace.latency_ns.tolist() == [[5, 0], [6, 0], [7, 0]]
    assert trace.flops[:, 0].tolist() == [1, 2, 3] and trace.mem_bytes.tolist() == [[0, 0]] * 3
    assert refused(write(tmp_path, {"latency_ns": "5,6"}, steps="3")) == (
        "line 9: latency_ns has 2 values; write one, or one for each of the 3 steps"
    )
    assert refused(write(tmp_path, {"flops": "5,6,7,8"}, steps="3")).startswith("line 9: flops has 4 values")
    assert refused(write(tmp_path, {}, steps="3")) == (
        "line 9: latency_ns has 1 value for 3 steps; list every step's latency"
    )


def test_steps_that_are_left_out_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that compute list their steps; of the others the left out ones are counted."""
    moves = {"kind": "mem_load"}
    monkeypatch.setattr(own, "MAX_EXPANDED", 4)
    work = {"latency_ns": "1,2,3"}
    assert read_text_trace(write(tmp_path, work, moves, work, moves, steps="3")).rows == 4
    assert refused(write(tmp_path, moves, moves, moves, steps="3")) == (
        "line 11: 3 steps are too many for so many rows; write the steps apart"
    )


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        (((0,),), "0"),
        (((0, 1, 2, 5), (7, 6)), "0-2,5;7,6"),
        (((0, 2, 3, 4),), "0,2-4"),
        ((), "-"),
    ],
)
def test_lists_of_ranks_are_written_as_runs(ranks: tuple[tuple[int, ...], ...], text: str) -> None:
    assert own._write_ranks(ranks) == text
