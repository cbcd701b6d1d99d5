"""Whatever a file holds, reading it ends in a value or in one clear error, in memory near the file's size."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.chakra import read_graph, read_nodes
from converters.chakra.attributes import BadAttributeError, node_row
from converters.chakra.et_def_pb2 import Node
from converters.chakra.framing import read_messages
from converters.chakra.graph_writer import GraphWriter
from converters.chakra.inspect import show_dot, show_json, show_text
from converters.chakra.node_reader import NodeReader
from converters.lowering import lower
from converters.statistics import summarise
from converters.text import collect, open_text, place, write_text_trace
from foundation.errors import UserError
from tests.converters import samples
from tests.converters.traces import transformer

CONTENT = next(iter(GraphWriter().encode(lower(transformer(2, 2), annotate=True).rank_graphs[0])))[1]
MEMORY_LIMIT = 60_000_000
"""Bytes; the files are of at most a megabyte."""


def messages() -> list[bytes]:
    with TemporaryDirectory() as folder:
        (Path(folder) / "g.0.et").write_bytes(CONTENT)
        return [message for _, message in read_messages(Path(folder) / "g.0.et")][1:]


def own_sample() -> str:
    with TemporaryDirectory() as folder:
        write_text_trace(transformer(2, 2, steps=2), Path(folder) / "t.txt")
        return (Path(folder) / "t.txt").read_text()


TEXTS = [*samples.SAMPLES.values(), own_sample()]


@st.composite
def damaged(draw: st.DrawFn, contents: list[bytes]) -> bytes:
    """A good file with some bytes replaced, removed or put in, or cut off."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        piece = draw(st.one_of(st.binary(max_size=6), st.sampled_from(PIECES)))
        removed = draw(st.integers(0, 6))
        content[at : at + removed] = piece
    return bytes(content[: draw(st.integers(0, len(content)))]) if draw(st.booleans()) else bytes(content)


PIECES = [
    *(b"99999999999999999999", b"-", b"\t", b"\n", b",", b";", b"0-65535", b"999999999", b"\xff\xff\xff\xff\x0f"),
    *(b"ORRERY\t1\n", b"EXPERT 7", b"ATTENTION 5", b"PIM END\n", b"LOCAL:3", b"1e9", b"\x00", "\u0661".encode()),
]


def quietly(read: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error), "one line"
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MEMORY_LIMIT


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.one_of(damaged([CONTENT]), st.binary(max_size=300)))
def test_damaged_et_files(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "g.0.et"
        path.write_bytes(content)
        quietly(lambda: read_graph(Path(folder) / "g"))
        for show in (read_nodes, show_text, show_json, show_dot):
            quietly(lambda show=show: [None for _ in show(path)])  # type: ignore[misc]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(damaged(messages()), st.binary(max_size=60)))
def test_nodes_are_read_as_protobuf_reads_them(message: bytes) -> None:
    """The reader's short cut gives what protobuf and the attribute rules give, or leaves the message to them."""
    try:
        expected = node_row(Node.FromString(message))
    except (DecodeError, BadAttributeError):
        expected = None
    try:
        found = NodeReader().read(message, 0, Path("g.0.et"))
    except UserError:
        found = None
    assert found == expected


NUMBERS = ("num_ops", "tensor_size", "comm_size", "comm_type", "orrery.num_ops")
VALUES = st.sampled_from([0, 1, 127, 128, 2**31 - 1, 2**62, -1, -(2**62)])


@st.composite
def attributes(draw: st.DrawFn) -> bytes:
    """The message of a node whose attributes come in any order, kind and number, twice perhaps."""
    node = Node(id=draw(st.integers(0, 300)), type=draw(st.sampled_from([2, 4, 5, 7])))
    for name in draw(st.lists(st.sampled_from(NUMBERS), max_size=5)):
        attribute = node.attr.add(name=name, doc_string=draw(st.sampled_from(["", "", "", "num_ops"])))
        kind = draw(st.sampled_from(["int64_val", "int64_val", "uint64_val", "int32_val", "string_val"]))
        value = draw(VALUES)
        if kind == "string_val":
            attribute.string_val = "\n\x07num_opsH\x01"
        elif kind != "int32_val":
            setattr(attribute, kind, abs(value) if kind == "uint64_val" else value)
        else:
            attribute.int32_val = value % 2**31
    return node.SerializeToString()


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(attributes(), min_size=1, max_size=4))
def test_numbers_are_read_apart_as_protobuf_reads_them(messages: list[bytes]) -> None:
    """What one node taught the reader is right for the next, whatever attributes that has."""
    reader = NodeReader()
    for message in messages:
        try:
            expected = node_row(Node.FromString(message))
        except BadAttributeError:
            expected = None
        try:
            found = reader.read(message, 0, Path("g.0.et"))
        except UserError:
            found = None
        assert found == expected


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(damaged([text.encode() for text in TEXTS]), st.binary(max_size=300)), st.integers(1, 8))
def test_damaged_texts(content: bytes, npus: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.txt"
        path.write_bytes(content)
        quietly(lambda: collect(open_text(path)))
        quietly(lambda: summarise(open_text(path)))
        quietly(lambda: lower(collect(place(open_text(path), *((npus,) if b"ORRERY" not in content[:7] else ())))))


@pytest.mark.parametrize(
    "content",
    [
        "ORRERY\t1\nattributes\t{}\nsteps\t4096\nrequests\t-\nrank_sets\t0-65535;" + "0-65535;" * 500 + "\n",
        "ORRERY\t1\nattributes\t" + "[" * 100_000 + "\n",
        "ORCA\t\tmodel_parallel_NPU_group: 1\n999999999\n",
        "ORCA\t\tmodel_parallel_NPU_group: 999999999\n1\n",
        "x" * 1_000_000,
    ],
)
def test_texts_that_promise_much_cost_little(content: str, tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(content)
    quietly(lambda: collect(place(open_text(path))))


def test_steps_that_are_not_listed_cannot_fill_memory(tmp_path: Path) -> None:
    """Rows without computation may leave their steps out; so many that memory would not follow are refused."""
    row = "m\tmem_load\t-\t0\t0\t-\t0\t0\t0\t0\tREMOTE\t1\tLOCAL\t0\tLOCAL\t0\tNONE\t0\t-\t-\n"
    head = own_sample().split("rank_sets")[0].replace("steps\t2", "steps\t4096")
    columns = next(line for line in own_sample().splitlines() if line.startswith("op\t"))
    text = f"{head}rank_sets\t0\ngroups\t-\nrows\t3000\n{columns}\n" + row * 3000
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(UserError, match="4096 steps are too many for so many rows"):
        collect(open_text(tmp_path / "t.txt"))
