"""Showing and comparing .et files: every kind of value that a standard file may hold, line by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converters.chakra.et_def_pb2 import GlobalMetadata, Node
from converters.chakra.inspect import as_dict, differences, show_dot, show_json, show_text
from converters.chakra.nodes import write_nodes


def full() -> Node:
    node = Node(id=7, name="full", type=7, data_deps=[1, 2], ctrl_deps=[3], start_time_micros=4, duration_micros=5)
    node.inputs.values, node.inputs.shapes, node.inputs.types = "[1]", "[[2]]", "['float']"
    node.outputs.values = "[9]"
    node.attr.add(name="comm_type", int64_val=2)
    node.attr.add(name="raw", bytes_val=b"\x00\xff")
    node.attr.add(name="ratio", double_val=float("inf"))
    node.attr.add(name="sizes", int64_list={"values": [1, 2]})
    node.attr.add(name="odd", float_list={"values": [float("nan"), 0.5]})
    node.attr.add(name="said", string_val="x" * 70)
    node.attr.add(name="nothing")
    return node


def write(path: Path, *nodes: Node, version: str = "1", **attributes: int) -> Path:
    metadata = GlobalMetadata(version=version)
    for name, value in attributes.items():
        metadata.attr.add(name=name, int64_val=value)
    write_nodes(path, nodes, metadata)
    return path


def test_a_node_as_plain_values() -> None:
    assert as_dict(full()) == {
        "id": 7,
        "name": "full",
        "type": "COMM_COLL",
        "data_deps": [1, 2],
        "ctrl_deps": [3],
        "start_time_micros": 4,
        "duration_micros": 5,
        "inputs": {"values": "[1]", "shapes": "[[2]]", "types": "['float']"},
        "outputs": {"values": "[9]", "shapes": "", "types": ""},
        "attr": {
            "comm_type": "ALL_GATHER",
            "raw": "00ff",
            "ratio": "inf",
            "sizes": [1, 2],
            "odd": ["nan", 0.5],
            "said": "x" * 70,
            "nothing": None,
        },
    }
    assert as_dict(Node(id=0)) == {"id": 0, "name": "", "type": "INVALID", "attr": {}}


def test_a_line_a_node(tmp_path: Path) -> None:
    plain = Node(id=1, name="plain", type=4)
    path = write(tmp_path / "a.et", plain, full(), rank=3)
    cut = "x" * 57 + "..."
    assert list(show_text(path)) == [
        "# version 1 rank=3",
        "1\tCOMP\tplain\twaits for -",
        f"7\tCOMM_COLL\tfull\twaits for 1,2,3 5 us\tcomm_type=ALL_GATHER raw=00ff ratio=inf sizes=[1, 2] "
        f'odd=["nan", 0.5] said={cut} nothing=null',
    ]
    assert next(show_text(write(tmp_path / "b.et", plain, version=""))) == "# version -"


@pytest.mark.parametrize(("length", "shown"), [(60, "x" * 60), (61, "x" * 57 + "...")])
def test_long_values_are_cut(tmp_path: Path, length: int, shown: str) -> None:
    node = Node(id=1, type=4)
    node.attr.add(name="a", string_val="x" * length)
    assert list(show_text(write(tmp_path / "a.et", node)))[1].endswith(f"\ta={shown}")


def test_names_and_texts_of_others_cannot_steer_a_terminal(tmp_path: Path) -> None:
    hostile = "a\x1b[2J\nb\u202e\x9b"
    node = Node(id=1, name=hostile, type=4)
    node.attr.add(name=hostile, string_val=hostile)
    first = write(tmp_path / "a\x1b.et", node, Node(id=2), version=hostile, **{hostile: 1})
    second = write(tmp_path / "b.et", Node(id=1, type=4))
    shown = [*show_text(first), *show_json(first), *show_dot(first), *differences(first, second)]
    assert len(shown) == 3 + 3 + 5 + 3
    assert all(line.replace("\t", " ").isprintable() and line.isascii() for line in shown)
    assert any("a\\x1b[2J\\nb\\u202e\\x9b" in line for line in shown)


def test_types_and_collectives_that_nobody_knows(tmp_path: Path) -> None:
    node = Node(id=1, type=99)  # type: ignore[arg-type]
    node.attr.add(name="comm_type", int64_val=42)
    assert list(show_text(write(tmp_path / "a.et", node)))[1] == "1\t99\t\twaits for -\tcomm_type=42"


def test_a_json_object_a_line(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in show_json(write(tmp_path / "a.et", full(), rank=3))]
    assert lines == [{"version": "1", "attr": {"rank": 3}}, as_dict(full())]


def test_the_graph_for_graphviz(tmp_path: Path) -> None:
    nodes = [Node(id=kind, name=f'n"{kind}', type=kind) for kind in range(8)]  # type: ignore[arg-type]
    nodes[5].data_deps.append(4)
    nodes[6].ctrl_deps.append(4)
    colours = ["white", "white", "khaki", "khaki", "lightblue", "palegreen", "palegreen", "lightpink"]
    expected = [f'  {kind} [label="{kind} n\\"{kind}", fillcolor={colour}];' for kind, colour in enumerate(colours)]
    expected.insert(6, "  4 -> 5;")
    expected.insert(8, "  4 -> 6 [style=dashed];")
    assert list(show_dot(write(tmp_path / "a.et", *nodes))) == [
        "digraph trace {", "  node [shape=box, style=filled, fillcolor=white];", *expected, "}"
    ]  # fmt: skip


def test_differences_are_told_field_by_field(tmp_path: Path) -> None:
    one, other = full(), full()
    other.name, other.duration_micros = "other", 6
    del other.attr[:2]
    other.attr.add(name="new", int64_val=1)
    first = write(tmp_path / "a.et", Node(id=1, type=4), one)
    second = write(tmp_path / "b.et", other, Node(id=9, name="last", type=4))
    assert list(differences(first, second)) == [
        f"node 1: only in {first}: 1\tCOMP\t\twaits for -",
        "node 7: attr comm_type: ALL_GATHER -> null",
        "node 7: attr new: null -> 1",
        "node 7: attr raw: 00ff -> null",
        "node 7: duration_micros: 5 -> 6",
        "node 7: name: full -> other",
        f"node 9: only in {second}: 9\tCOMP\tlast\twaits for -",
    ]
    assert list(differences(first, first)) == []


def test_the_order_of_attributes_is_no_difference(tmp_path: Path) -> None:
    one, other = Node(id=1, type=4), Node(id=1, type=4)
    for node, names in ((one, "ab"), (other, "ba")):
        for name in names:
            node.attr.add(name=name, int64_val=1)
    assert list(differences(write(tmp_path / "a.et", one), write(tmp_path / "b.et", other))) == []
