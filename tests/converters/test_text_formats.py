"""Every text format: text -> Trace -> text is the same bytes; and what the rows mean once spread over ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.convert import Spreading, open_placed, text_to_text
from converters.text import collect, open_text, place, read_text_trace, records, write_text_trace
from converters.text.records import Operand, Record
from foundation.errors import UserError
from tests.converters import samples
from tests.converters.traces import Row, make_trace, transformer
from trace_gen.trace import CommType, Location, RowKind, Trace


def traces_equal(one: Trace, other: Trace) -> bool:
    names = [name for name in Trace.__dataclass_fields__ if name not in ("op", "op_names", "work", "attributes")]
    names += ["latency_ns", "flops", "mem_bytes"]
    same = all(
        np.array_equal(getattr(one, name), getattr(other, name))
        if isinstance(getattr(one, name), np.ndarray)
        else getattr(one, name) == getattr(other, name)
        for name in names
    )
    return same and [one.name(row) for row in range(one.rows)] == [other.name(row) for row in range(other.rows)]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trace.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_a_text_is_written_again_byte_for_byte(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, samples.SAMPLES[name])
    trace = read_text_trace(path)
    write_text_trace(trace, tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_text() == samples.SAMPLES[name]


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_spacing_does_not_matter_to_reading(name: str, tmp_path: Path) -> None:
    loose = "\n".join("  ".join(line.split()) for line in samples.SAMPLES[name].splitlines())
    assert traces_equal(
        read_text_trace(written(tmp_path, samples.SAMPLES[name])), read_text_trace(written(tmp_path, loose))
    )


@pytest.mark.parametrize(("tp", "pp", "steps"), [(2, 2, 1), (1, 1, 3), (4, 1, 2), (3, 2, 1)])
def test_our_format_loses_nothing(tp: int, pp: int, steps: int, tmp_path: Path) -> None:
    trace = transformer(tp, pp, steps=steps)
    write_text_trace(trace, tmp_path / "a.txt")
    again = read_text_trace(tmp_path / "a.txt")
    assert traces_equal(trace, again)
    write_text_trace(again, tmp_path / "b.txt")
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


def test_our_format_keeps_every_column(tmp_path: Path) -> None:
    trace = make_trace(
        [
            Row("a\tb\\", (0, 1, 5), request=7, sub_batch=2, weight=(Location.CXL, 3, 10), flops=5, mem_bytes=6),
            Row("kv", (5,), RowKind.MEM_STORE, stage=1, output=(Location.STORAGE, 2, 99)),
            Row("x", (0, 5), RowKind.COMM, comm=(CommType.ALLTOALL, 64), group=(5, 0), deps=(0, 1), layer=4),
        ],
        requests=(7, 9),
        model="m",
    )
    write_text_trace(trace, tmp_path / "a.txt")
    again = read_text_trace(tmp_path / "a.txt")
    assert traces_equal(trace, again)
    assert again.attributes == {"format": "orrery", "model": "m"}


def rows_of(text: str, tmp_path: Path, npu_num: int) -> list[tuple[object, ...]]:
    stream = place(open_text(written(tmp_path, text)), npu_num)
    return [(row.op, row.ranks, row.latency[0], row.comm_bytes, row.stage) for row in stream.records]


def test_orca_divides_by_the_npus_of_a_stage_but_attention_runs_whole_in_turn(tmp_path: Path) -> None:
    rows = rows_of(samples.orca(groups=1, requests=3, layers=1, moved=False), tmp_path, 2)
    both = (0, 1)
    assert rows == [
        ("embedding", both, 500, 0, 0),
        ("input_layernorm", both, 166, 0, 0),
        ("q_proj", both, 2500, 0, 0),
        ("rope", (0,), 70, 0, 0),
        ("attn", (0,), 900, 0, 0),
        ("rope", (1,), 71, 0, 0),
        ("attn", (1,), 901, 0, 0),
        ("rope", (0,), 72, 0, 0),
        ("attn", (0,), 902, 0, 0),
        ("o_proj", both, 2000, 4096, 0),
        ("down_proj", both, 4999, 4096, 0),
        ("lm_head", both, 3888, 0, 0),
    ]


def test_orca_stages_are_equal_numbers_of_lines_with_sections_kept_whole(tmp_path: Path) -> None:
    # 13 lines after none moved: the even cut is after line 7, inside the sections, so stage 0 ends with ATTENTION END.
    text = samples.orca(groups=2, requests=2, layers=1, moved=False)
    lines = text.splitlines()[3:]
    assert len(lines) == 13
    assert lines[6].startswith("ATTENTION 1")
    rows = rows_of(text, tmp_path, 2)
    assert [row[0] for row in rows if row[4] == 1] == ["o_proj", "down_proj", "lm_head"]
    assert all(row[1] == (row[4],) for row in rows)


def test_orca_moves_kv_in_every_stage_and_loads_and_stores_only_at_the_ends(tmp_path: Path) -> None:
    trace = collect(place(open_text(written(tmp_path, samples.orca(groups=2, layers=2))), 4))
    moves = [(trace.name(r), int(trace.stage[r])) for r in range(trace.rows) if trace.kind[r] != RowKind.COMPUTE]
    assert moves == [("vllm_evict_kv", 0), ("vllm_load_kv", 0), ("vllm_evict_kv", 1), ("vllm_load_kv", 1)]
    compute = trace.kind == RowKind.COMPUTE
    loaded = np.flatnonzero(compute & (trace.input_loc == Location.REMOTE))
    stored = np.flatnonzero(compute & (trace.output_loc == Location.REMOTE))
    assert [trace.name(int(row)) for row in (*loaded, *stored)] == ["embedding", "lm_head"]
    assert int(trace.input_bytes[loaded[0]]) == 96 // 2
    assert int(trace.output_bytes[stored[0]]) == 8192 // 2, "the last row's input size is what is stored"


def test_colocated_is_per_rank_as_it_stands(tmp_path: Path) -> None:
    rows = rows_of(samples.colocated(boundaries="6", groups=2), tmp_path, 4)
    assert rows[1] == ("embedding", (0, 1), 1001, 0, 0)
    assert [row[0] for row in rows if row[4] == 1][:2] == ["kv_load", "layernorm"], "the cut does not count kv rows"
    assert ("o_proj", (2, 3), 4001, 8192, 1) in rows


def test_moved_kv_takes_no_time_and_no_collective_whatever_the_text_says(tmp_path: Path) -> None:
    moved = ("kv_evict_0", 55, "CXL:1", 3, "REMOTE:2", 5000, "LOCAL", 4, "ALLREDUCE:1,0", 99, "NONE")
    work = ("norm_1", 7, "LOCAL", 1, "LOCAL", 2, "LOCAL", 3, "NONE", 0, "NONE")
    text = samples.text("COLOCATED\t\tmodel_parallel_NPU_group: 1", [moved, work], samples.main_line)
    first, _ = place(open_text(written(tmp_path, text)), 2).records
    assert first == Record("kv_evict", kind=RowKind.MEM_STORE, ranks=(0, 1), output=Operand(Location.REMOTE, 2, 5000))


def test_experts_take_turns_between_their_collectives(tmp_path: Path) -> None:
    rows = rows_of(samples.colocated(experts=2), tmp_path, 2)
    section = [row for row in rows if str(row[0]).startswith("expert")][:4]
    assert section == [
        ("expert_dispatch", (0, 1), 0, 512, 0),
        ("expert", (0,), 2000, 0, 0),
        ("expert", (1,), 2001, 0, 0),
        ("expert_combine", (0, 1), 0, 1024, 0),
    ]


def test_prefill_sends_its_kv_to_the_ranks_that_decode(tmp_path: Path) -> None:
    trace = collect(place(open_text(written(tmp_path, samples.colocated("PREFILL"))), 2))
    received = [row for row in range(trace.rows) if trace.name(row) == "kv_receive"]
    assert len(received) == 2
    for row in received:
        (parent,) = trace.dependencies(row).tolist()
        assert trace.name(parent) == "qkv_proj"
        assert trace.rank_sets[trace.rank_set[row]] == (2, 3)
        assert int(trace.comm_bytes[parent]) == 4096


def test_a_placed_trace_is_gathered_into_the_fields_formats_and_spread_again(tmp_path: Path) -> None:
    for name, text, npus in (
        ("orca", samples.orca(groups=2, requests=4, layers=2), 4),
        ("colocated", samples.colocated(boundaries="6", groups=2), 4),
        ("colocated", samples.colocated(experts=2), 2),
    ):
        source = written(tmp_path, text)
        text_to_text(source, tmp_path / "ours.txt", "orrery", Spreading(npus))
        text_to_text(tmp_path / "ours.txt", tmp_path / "back.txt", name, Spreading())
        before = collect(place(open_text(source), npus))
        after = collect(place(open_text(tmp_path / "back.txt"), npus))
        assert [r._replace(dims="") for r in records(before).records] == list(records(after).records)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the file ends before its header"),
        ("HELLO\n", "line 1: the header begins with 'HELLO'"),
        ("ORCA\t\tmodel_parallel_NPU_group: x\n", "line 1: model_parallel_NPU_group is 'x', not an integer"),
        ("ORCA\n", "line 1: model_parallel_NPU_group is '', not an integer"),
        ("ORCA\t\tmodel_parallel_NPU_group: 1\n-1\n", "line 2: the number of rows is -1, outside 0"),
        ("EVENT\n1\nLayername\n", "line 3: the third line does not name the columns"),
        (samples.event() + "again\n", "line 5: there are more rows than the 1"),
        (samples.event().replace("\n1\n", "\n2\n"), "line 5: the file ends before row 1 of the 2"),
        (samples.event().replace("1234 ", "12x4 "), "line 4: comp_time is '12x4', not an integer"),
        (samples.event().replace("REMOTE", "MOON"), "line 4: input_loc is 'MOON'"),
        (samples.interleaved().replace("BATCH_2", "BATCH_x"), "misc is 'BATCH_x'; write NONE or BATCH_<n>"),
        (samples.orca().replace("ALLREDUCE", "ALLREDUX"), "comm_type is 'ALLREDUX'"),
        (
            samples.orca().replace("ATTENTION END", "EXPERT END"),
            "this format has no EXPERT sections; sections of this format: ATTENTION",
        ),
        (
            samples.interleaved().replace("PIM END", "ATTENTION END", 1),
            "this format has no ATTENTION sections; sections of this format: EXPERT, PIM",
        ),
        (samples.event().replace("\n1\n", "\n2\n") + "PIM 1\n", "sections of this format: none"),
        *(
            (
                samples.colocated(experts=1).replace("EXPERT END REDUCESCATTER:1,1 1024", marker),
                f"line 12: a section marker cannot be '{marker}'; write {marker.split()[0]} <n> or END",
            )
            for marker in ("EXPERT", "EXPERT 1 NONE", "EXPERT 1 NONE 0 0", "PIM 1 NONE 0", "PIM 1 2")
        ),
        ("ORRERY\t2\n", "this program reads ORRERY\\t1"),
        ("ORRERY\t1\nattributes\t[]\n", "line 2: attributes are not a JSON object"),
        ("ORRERY\t1\nattributes\t{}\nsteps\t1\nrequests\t-\nrank_sets\t0-99999\n", "a rank is 99999, outside"),
    ],
)
def test_a_damaged_text_is_one_clear_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read_text_trace(written(tmp_path, text))
    assert message in str(error.value)
    assert "trace.txt" in str(error.value)


@pytest.mark.parametrize(
    ("npu_num", "npu_group", "message"),
    [
        (4, 1, "npu_group is 1 but the trace's header says 2"),
        (3, None, "3 NPUs cannot be split into 2 pipeline stages"),
    ],
)
def test_a_deployment_that_does_not_fit_is_refused(
    npu_num: int, npu_group: int | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        collect(place(open_text(written(tmp_path, samples.orca(groups=2))), npu_num, npu_group))


LIMITS = {
    "nanoseconds": (samples.event(), "1234 ", 9_000_000_000_000_000, "comp_time"),
    "bytes": (samples.event(), " 0 ", 10**18 - 1, "input_size"),
    "rows": (samples.event(), "\n1\n", 10**9, "the number of rows"),
    "a section": (samples.interleaved(), "PIM 0", 10**9, "the section's number"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_numbers_go_so_far(name: str, tmp_path: Path) -> None:
    """One more is refused by its name; the last one is read, and then the file may end too early for it."""
    text, where, most, said = LIMITS[name]
    old = where.strip().split()[-1]
    for value, refused in ((most, False), (most + 1, True)):
        path = written(tmp_path, text.replace(where, where.replace(old, str(value)), 1))
        try:
            collect(open_text(path))
        except UserError as error:
            assert (said in str(error)) is refused, error
            assert refused or "the file ends before row 1" in str(error)
        else:
            assert not refused


def test_an_event_keeps_a_name_that_ends_like_a_row_number(tmp_path: Path) -> None:
    text = samples.event().replace("event_1234ns", "event_0     ")
    write_text_trace(read_text_trace(written(tmp_path, text)), tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_text() == text


def test_stage_boundaries_that_do_not_split_the_rows_are_refused(tmp_path: Path) -> None:
    for boundaries in ("99", "5,3", "0"):
        path = written(tmp_path, samples.colocated(boundaries=boundaries, groups=2))
        with pytest.raises(UserError, match="pp_stage_boundaries"):
            collect(place(open_text(path), 4))


@pytest.mark.parametrize("sample", samples.SAMPLES.values(), ids=list(samples.SAMPLES))
def test_what_is_not_placed_is_of_the_first_stage_and_rank(sample: str, tmp_path: Path) -> None:
    trace = collect(open_text(written(tmp_path, sample)))
    assert set(trace.stage.tolist()) == {0}
    assert trace.rank_sets == ((0,),)


def test_listed_boundaries_hold_even_where_experts_stretch_a_stage(tmp_path: Path) -> None:
    """Stage 1 is to begin within experts (row 9 of rows from the embedding on) and waits for their end.

    Stage 2 begins where the header lists it; where nothing is listed, later stages move on with the stretched one.
    """
    begins = {}
    for boundaries in ("9,12", ""):
        trace = collect(
            place(open_text(written(tmp_path, samples.colocated(boundaries=boundaries, groups=3, experts=2))), 3)
        )
        rows = [(trace.op_names[op], stage) for op, stage in zip(trace.op.tolist(), trace.stage.tolist(), strict=True)]
        begins[boundaries] = [rows.index(("kv_load", stage)) for stage in (1, 2)]
    assert begins == {"9,12": [10, 13], "": [10, 20]}


@pytest.mark.parametrize("where", [Spreading(npu_num=2), Spreading(npu_group=2)])
def test_a_trace_that_names_its_ranks_takes_no_deployment(where: Spreading, tmp_path: Path) -> None:
    write_text_trace(make_trace([Row("a")]), tmp_path / "ours.txt")
    said = "the trace says itself which ranks run a row; leave out --npu_num and --npu_group"
    with pytest.raises(UserError, match=said):
        open_placed(tmp_path / "ours.txt", where)


def test_more_stages_than_rows_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, samples.orca(groups=40, requests=1, layers=1, moved=False))
    with pytest.raises(UserError, match=r"pipeline stage \d+ of 40 has no rows; use fewer"):
        collect(place(open_text(path), 40))


def test_what_a_format_cannot_say_is_refused(tmp_path: Path) -> None:
    write_text_trace(make_trace([Row("a"), Row("b", deps=(0,))]), tmp_path / "ours.txt")
    with pytest.raises(UserError, match=r"explicit dependencies cannot be written as COLOCATED; write it as orrery"):
        text_to_text(tmp_path / "ours.txt", tmp_path / "x.txt", "colocated", Spreading())
    assert not (tmp_path / "x.txt").exists()


@pytest.mark.parametrize("place", ["REMOTE", "REMOTE:0", "REMOTE:1", "REMOTE:7", "CXL:1", "STORAGE:2"])
def test_a_named_device_is_not_an_unnamed_one(place: str, tmp_path: Path) -> None:
    text = samples.SAMPLES["orca"].replace("REMOTE", place)
    assert text != samples.SAMPLES["orca"] or place == "REMOTE"
    trace = read_text_trace(written(tmp_path, text))
    write_text_trace(trace, tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_text().split() == text.split()
    assert int(trace.input_node[trace.input_loc != Location.LOCAL][0]) == int(place.partition(":")[2] or -1)
