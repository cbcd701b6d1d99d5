"""The one trace-event writer: exact times, any name, and files that parse however many events they have."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters import trace_events as events
from converters.execution_graph import TimelineEvent


def written(*lines: str, **more: object) -> dict[str, object]:
    stream = io.StringIO()
    events.write_events(stream, lines, **more)  # type: ignore[arg-type]
    result: dict[str, object] = json.loads(stream.getvalue())
    return result


def test_a_file_holds_its_events_and_facts() -> None:
    assert written() == {"displayTimeUnit": "ns", "traceEvents": []}
    found = written(events.mark("a note", 3), events.process_name(1, "engine"), unit="ms", other={"title": "t"})
    assert found == {
        "displayTimeUnit": "ms",
        "otherData": {"title": "t"},
        "traceEvents": [
            {"name": "a note", "ph": "i", "s": "g", "pid": 3, "tid": 0, "ts": 0},
            {"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": "engine"}},
        ],
    }


def test_slices_and_counters() -> None:
    slice_ = events.span("op", "comp", (2, 5), 1_234_567, 1_234_569, {"node": 7})
    assert '"ts": 1234.567, "dur": 0.002,' in slice_, "nanoseconds, exactly"
    assert json.loads(slice_) == {
        "name": "op", "cat": "comp", "ph": "X", "pid": 2, "tid": 5, "ts": 1234.567, "dur": 0.002, "args": {"node": 7},
    }  # fmt: skip
    assert "args" not in json.loads(events.span("op", "comp", (0, 0), 0, 1))
    changes = events.counters("KV (%)", 1, np.array([5, 1_000_000]), np.array([12.3456789, 0]))
    assert [json.loads(change) for change in changes] == [
        {"name": "KV (%)", "ph": "C", "pid": 1, "ts": 0.005, "args": {"value": 12.3457}},
        {"name": "KV (%)", "ph": "C", "pid": 1, "ts": 1000, "args": {"value": 0}},
    ]
    assert '"ts": -0.001' in events.span("x", "y", (0, 0), -1, 0)


ROWS = st.lists(st.tuples(*(st.integers(0, 10**13) for _ in range(4)), st.integers(0, 99)), max_size=20)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(rows=ROWS, argument=st.text(max_size=5))
def test_many_slices_are_what_each_would_be(rows: list[tuple[int, ...]], argument: str) -> None:
    number, begin, long, size, thread = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    shown = {argument: size, "100 %": number}
    many = events.spans(
        "one %d of %d", "a 50 %s", 3, thread, begin, begin + long, named=[number, size], arguments=shown
    )
    assert many == [
        events.span(f"one {n} of {s}", "a 50 %s", (3, t), b, b + d, {argument: s} | {"100 %": n})
        for n, b, d, s, t in rows
    ]
    assert events.spans("x", "y", 0, thread, begin, begin + long) == [
        events.span("x", "y", (0, t), b, b + d) for _, b, d, _, t in rows
    ]


@pytest.mark.parametrize("name", ['quo"te', "new\nline", "back\\slash", "\u2028 \N{GRINNING FACE}", "\x1b[31m"])
def test_names_of_others(name: str) -> None:
    counted = events.counters(name, 0, np.array([0]), np.array([1]))
    found = [events.span(name, name, (0, 0), 0, 1, {name: 1}), *counted, events.mark(name, 0)]
    assert [json.loads(event)["name"] for event in found] == [name] * 3
    assert all("\n" not in event and event.isascii() for event in found)


def test_timelines_have_a_process_a_rank_and_a_thread_a_resource(tmp_path: Path) -> None:
    nodes = [TimelineEvent(1, track, f"node {index}", index, 10, 25) for index, track in enumerate(events.TRACKS)]
    events.write_timeline(tmp_path / "t.json", 2, nodes)
    found = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    names = {(one["pid"], one["tid"]): one["args"]["name"] for one in found if one["name"] == "thread_name"}
    assert names == {(rank, thread): track for rank in range(2) for thread, track in enumerate(events.TRACKS)}
    slices = [one for one in found if one["ph"] == "X"]
    assert [names[one["pid"], one["tid"]] for one in slices] == list(events.TRACKS) == [one["cat"] for one in slices]
    assert {json.dumps(one["args"]) for one in slices} == {
        f'{{"node": {index}, "start_ns": 10, "end_ns": 25}}' for index in range(4)
    }
