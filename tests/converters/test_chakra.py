"""Chakra files: protobuf's bytes, sharing between ranks, other people's files, and damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from converters.chakra import (
    GROUPS_SUFFIX,
    GraphWriter,
    et_def_pb2,
    node_reader,
    read_graph,
    read_groups,
    read_metadata,
    read_nodes,
    write_graph,
    write_nodes,
)
from converters.chakra.et_def_pb2 import AttributeProto, BoolList, GlobalMetadata, Node
from converters.chakra.framing import encode_varint
from converters.execution_graph import ABSENT, CollectiveType, ExecutionGraph, NodeType
from converters.lowering import lower
from foundation.errors import UserError
from tests.converters.traces import transformer

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("ORRERY_SHARED", ROOT.parent / "shared"))
CORPUS = SHARED / "corpus" / "astra_sim"

# The standard's field numbers: scalar forms of AttributeProto; each list form is one higher.
SCALARS = {
    "double": 3,
    "float": 5,
    "int32": 7,
    "int64": 9,
    "uint32": 11,
    "uint64": 13,
    "sint32": 15,
    "sint64": 17,
    "fixed32": 19,
    "fixed64": 21,
    "sfixed32": 23,
    "sfixed64": 25,
    "bool": 27,
    "string": 29,
    "bytes": 31,
}


def numbers(message: type) -> dict[str, int]:
    return {field.name: field.number for field in message.DESCRIPTOR.fields}  # type: ignore[attr-defined]


def test_the_generated_code_has_the_standards_field_numbers() -> None:
    assert numbers(Node) == {
        "id": 1,
        "name": 2,
        "type": 3,
        "ctrl_deps": 4,
        "data_deps": 5,
        "start_time_micros": 6,
        "duration_micros": 7,
        "inputs": 8,
        "outputs": 9,
        "attr": 10,
    }
    expected = {"name": 1, "doc_string": 2}
    for kind, number in SCALARS.items():
        expected |= {f"{kind}_val": number, f"{kind}_list": number + 1}
    assert numbers(AttributeProto) == expected
    assert numbers(GlobalMetadata) == {"version": 1, "attr": 2}
    assert Node.DESCRIPTOR.full_name == "ChakraProtoMsg.Node"  # type: ignore[attr-defined]


def test_the_generated_code_does_not_ask_for_a_runtime_version() -> None:
    source = (ROOT / "converters/chakra/et_def_pb2.py").read_text()
    assert "ValidateProtobufRuntimeVersion" not in source, "made by a later protoc: protobuf 5 would refuse it"
    assert source.startswith("# Generated from converters/chakra/et_def.proto; do not edit.\n# Rebuild: ")


@pytest.mark.parametrize(("tp", "pp", "dims"), [(2, 2, None), (2, 2, (2, 2)), (4, 1, None), (1, 3, None)])
def test_our_bytes_are_protobufs_bytes(tp: int, pp: int, dims: tuple[int, ...] | None, tmp_path: Path) -> None:
    written = write_graph(lower(transformer(tp, pp), network_dims=dims, annotate=True), tmp_path / "g")
    for path in written.ranks:
        write_nodes(tmp_path / "again.et", read_nodes(path), read_metadata(path))
        assert (tmp_path / "again.et").read_bytes() == path.read_bytes()


def test_attributes_have_the_names_and_types_that_upstream_reads(tmp_path: Path) -> None:
    write_graph(lower(transformer(2, 2), network_dims=(2, 2)), tmp_path / "g")
    kinds = {
        (node.type, attribute.name): attribute.WhichOneof("value")
        for node in read_nodes(tmp_path / "g.0.et")
        for attribute in node.attr
    }
    integer = {"comm_size": "int64_val", "comm_src": "int32_val", "comm_dst": "int32_val", "comm_tag": "int32_val"}
    for (kind, name), found in kinds.items():
        expected = {"is_cpu_op": "bool_val", "num_ops": "uint64_val", "tensor_size": "uint64_val",
                    "comm_type": "int64_val", "involved_dim": "bool_list", **integer}  # fmt: skip
        assert found == expected[name], (kind, name)
    collective = next(node for node in read_nodes(tmp_path / "g.0.et") if node.type == NodeType.COMM_COLL)
    involved = next(attribute for attribute in collective.attr if attribute.name == "involved_dim")
    assert list(involved.bool_list.values) == [True, False, False, False]


def test_attributes_that_a_node_type_does_not_use_may_hold_anything(tmp_path: Path) -> None:
    """Other programs use the same names for values of other types; the integer that a node type needs stays needed."""
    foreign = [
        AttributeProto(name="comm_size", double_val=1.5),
        AttributeProto(name="comm_tag", string_val="a"),
        AttributeProto(name="involved_dim", int32_val=1),
    ]
    compute = Node(id=1, type=NodeType.COMP, attr=[*foreign, AttributeProto(name="num_ops", int64_val=7)])  # type: ignore[arg-type]
    write_nodes(tmp_path / "g.0.et", [compute])
    graph = read_graph(tmp_path / "g").rank_graphs[0]
    assert (graph.num_ops[0, 0], graph.comm_size[0], graph.involved_dims[0]) == (7, ABSENT, ABSENT)
    write_nodes(tmp_path / "g.0.et", [Node(id=1, type=NodeType.COMM_SEND, attr=foreign)])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"comm_size is double_val, but an integer is needed"):
        read_graph(tmp_path / "g")


def test_groups_are_written_beside_the_ranks_and_read_again(tmp_path: Path) -> None:
    graph = lower(transformer(2, 2))
    written = write_graph(graph, tmp_path / "g")
    assert written.groups == tmp_path / f"g{GROUPS_SUFFIX}"
    assert json.loads(written.groups.read_text()) == {"1": [0, 1], "2": [2, 3]}
    node = next(node for node in read_nodes(tmp_path / "g.2.et") if node.type == NodeType.COMM_COLL)
    assert [attribute.string_val for attribute in node.attr if attribute.name == "pg_name"] == ["2"]
    assert read_graph(tmp_path / "g").groups == graph.groups
    assert write_graph(lower(transformer(4, 1)), tmp_path / "g").groups is None
    assert not (tmp_path / f"g{GROUPS_SUFFIX}").exists(), "no groups of an earlier graph stay behind"


def test_each_step_is_a_graph_of_its_own(tmp_path: Path) -> None:
    graph = lower(transformer(2, 1, steps=3))
    writer = GraphWriter()
    for step in range(3):
        writer.write(graph, tmp_path / "g", step)
        (again,) = read_graph(tmp_path / "g").rank_graphs
        assert np.array_equal(again.num_ops[0], graph.rank_graphs[0].num_ops[step])


def test_ranks_and_columns_are_shared(tmp_path: Path) -> None:
    write_graph(lower(transformer(2, 3)), tmp_path / "g")
    graph = read_graph(tmp_path / "g")
    assert [own.ranks for own in graph.rank_graphs] == [(0, 1), (2, 3), (4, 5)]
    write_graph(lower(transformer(8, 1)), tmp_path / "h")
    (shared,) = read_graph(tmp_path / "h").rank_graphs
    assert shared.ranks == tuple(range(8))


def test_ranks_of_one_program_are_read_as_one(tmp_path: Path) -> None:
    """What keeps 2,048 ranks of 10,000 nodes in memory: like files cost one RankGraph, whatever their number."""
    graph = lower(transformer(1, 1, layers=40))
    (content,) = [bytes_ for _, bytes_ in GraphWriter().encode(graph.rank_graphs[0])]
    for rank in range(300):
        (tmp_path / f"g.{rank}.et").write_bytes(content)
    (shared,) = read_graph(tmp_path / "g").rank_graphs
    assert shared.ranks == tuple(range(300))


def foreign(tmp_path: Path) -> Path:
    """A file as converted from PyTorch: METADATA node, strings, lists, control dependencies, unordered ids."""
    nodes = [Node(id=7, name="process_group:init", type=1), Node(id=3, name="aten::mm", type=4, duration_micros=12)]
    nodes[0].inputs.values = "[[1, 2]]"
    nodes[1].ctrl_deps.append(7)
    nodes[1].attr.add(name="is_cpu_op", bool_val=False)
    nodes[1].attr.add(name="op_schema", string_val="aten::mm(Tensor self)")
    nodes[1].attr.add(name="rf_id", int64_val=-5)
    nodes[1].attr.add(name="num_ops", sint32_val=99)
    nodes[1].attr.add(name="num_ops", double_val=1.5)
    nodes[1].attr.add(name="weights", float_list={"values": [1.0, float("nan")]})
    collective = Node(id=9, name="nccl:all_reduce", type=7, data_deps=[3], ctrl_deps=[3, 7])
    collective.attr.add(name="comm_type", int64_val=0)
    collective.attr.add(name="comm_size", uint32_val=1024)
    collective.attr.add(name="pg_name", string_val="")
    collective.attr.add(name="involved_dim", bool_list=BoolList(values=[False, True]))
    metadata = GlobalMetadata(attr=[AttributeProto(name="schema", string_val="1.1.1-chakra.0.0.4")])
    write_nodes(tmp_path / "torch.0.et", [*nodes, collective], metadata)
    return tmp_path / "torch"


def test_files_made_by_others_open(tmp_path: Path) -> None:
    (graph,) = read_graph(foreign(tmp_path)).rank_graphs
    assert graph.node_id.tolist() == [7, 3, 9]
    assert [graph.dependencies(row).tolist() for row in range(3)] == [[], [0], [1, 0]]
    assert graph.num_ops[0].tolist() == [ABSENT, 99, ABSENT], "the first attribute of a name counts"
    assert graph.duration_us.tolist() == [0, 12, 0]
    assert graph.involved_dims.tolist() == [ABSENT, ABSENT, 0b10]
    assert graph.annotations == {}


def attribute_node(**attribute: object) -> Node:
    node = Node(id=1, name="n", type=7)
    node.attr.add(**attribute)
    return node


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([Node(id=1, type=4, data_deps=[5])], "a node depends on node 5, which is not in the file"),
        ([Node(id=1, type=4), Node(id=1, type=4)], "node id 1 occurs twice"),
        ([Node(id=1, type=99)], "node type 99 is unknown"),
        ([Node(id=2**63, type=4)], "id is 9223372036854775808, which does not fit 63 bits"),
        (
            [attribute_node(name="comm_size", double_val=2.0)],
            "attribute comm_size is double_val, but an integer is needed",
        ),
        ([attribute_node(name="comm_size", uint64_val=2**63)], "comm_size is 9223372036854775808, which does not fit"),
        ([attribute_node(name="comm_type", int64_val=77)], "comm_type 77 is unknown"),
        ([attribute_node(name="pg_name", string_val="world")], "pg_name 'world' is not the text of an integer"),
        ([attribute_node(name="pg_name", string_val="2147483648")], "pg_name 2147483648 is beyond 32 bits"),
        ([attribute_node(name="pg_name", string_val="9" * 5000)], "... is beyond 32 bits"),
        ([attribute_node(name="involved_dim", int64_val=1)], "attribute involved_dim must be a bool_list"),
        (
            [attribute_node(name="involved_dim", bool_list=BoolList(values=[True] * 70))],
            "involved_dim lists 70 dimensions",
        ),
    ],
)
def test_what_no_simulator_could_use_is_refused(nodes: list[Node], message: str, tmp_path: Path) -> None:
    write_nodes(tmp_path / "g.0.et", nodes)
    with pytest.raises(UserError) as error:
        read_graph(tmp_path / "g")
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/g.0.et: ")


@pytest.mark.parametrize(
    ("text", "group"), [("", 0), ("00", 0), ("7", 7), ("2147483647", 2**31 - 1), ("0" * 20 + "3", 3)]
)
def test_a_group_is_any_text_of_a_whole_number(text: str, group: int, tmp_path: Path) -> None:
    write_nodes(tmp_path / "g.0.et", [attribute_node(name="pg_name", string_val=text)])
    assert read_graph(tmp_path / "g").rank_graphs[0].comm_group.tolist() == [group]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the execution trace is empty"),
        (b"\x05ab", "byte 0: a message of 5 bytes begins, but 2 remain in the file"),
        (b"\x00\xff\xff\xff\xff\x0fxx", "byte 1: a message of 4294967295 bytes begins, but 2 remain"),
        (b"\x00\xff\xff\xff\xff\xff\x01", "byte 1: a length of more than 5 bytes"),
        (b"\x00\x80", "byte 1: the file ends inside a length"),
        (b"\x00\x02\x0a\x05", "byte 1: the message is not a Node"),
        (b"\x1f\x8b\x08" + bytes(40), "the file is gzip-compressed: decompress it first"),
        (b"ORCA\t\tmodel_parallel_NPU_group: 1\n" * 40, "byte 0: "),
    ],
)
def test_damage_is_named_with_its_byte(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "g.0.et").write_bytes(content)
    for read in (lambda: read_graph(tmp_path / "g"), lambda: list(read_nodes(tmp_path / "g.0.et"))):
        with pytest.raises(UserError) as error:
            read()
        assert message in str(error.value)


def test_our_own_nodes_are_read_without_protobufs_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick way reads what we write, and attributes that came before not at all."""
    graph = lower(transformer(2, 2), annotate=True)
    write_graph(graph, tmp_path / "g")
    parsed: list[int] = []
    once = node_reader._parse_tail
    monkeypatch.setattr(node_reader, "parse_node", lambda *_: pytest.fail("the slow way was taken"))
    monkeypatch.setattr(node_reader, "_parse_tail", lambda *given: parsed.append(1) or once(*given))
    assert read_graph(tmp_path / "g").rank_graphs[0].nodes == graph.rank_graphs[0].nodes
    assert 0 < len(parsed) < sum(len(one.ranks) * one.nodes for one in graph.rank_graphs)


@pytest.mark.parametrize("value", [1, 126, 127, 128, 16383, 16384, 2**31 - 1, 2**64 - 1])
def test_varints_are_protobufs(value: int) -> None:
    assert encode_varint(value) == Node(id=value).SerializeToString()[1:]


def test_missing_ranks_and_files_are_named(tmp_path: Path) -> None:
    write_graph(lower(transformer(3, 1)), tmp_path / "g")
    (tmp_path / "g.1.et").unlink()
    with pytest.raises(UserError, match=r"g\.1\.et: this rank's file is missing"):
        read_graph(tmp_path / "g")
    with pytest.raises(UserError, match=r"g\.1\.et: the execution trace does not exist"):
        read_graph(tmp_path / "g", num_ranks=2)
    with pytest.raises(UserError, match=r"there is no PREFIX\.0\.et"):
        read_graph(tmp_path / "other")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "line 1: not valid JSON"),
        ("[]", "the communicator group file is [], not an object of named fields"),
        ('{"0": [0]}', 'line 1, 0: the group\'s id is not a whole number of at least 1; write {"1": [0, 1], ...}'),
        ('{"01": [0]}', "line 1, 01: the group's id is not a whole number"),
        ('{"1": [0],\n "1": [1]}', 'the key "1" occurs twice'),
        ('{"1": []}', "line 1, 1: a group is a list of one rank or more, each once"),
        ('{"1": [0, 0]}', "line 1, 1: a group is a list of one rank or more, each once"),
        ('{"1": [4]}', "1[0]: 4 is not a whole number from 0 to 3"),
        ('{"1": [true]}', "1[0]: true is not a whole number from 0 to 3"),
    ],
)
def test_a_wrong_group_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "groups.json").write_text(content)
    with pytest.raises(UserError) as error:
        read_groups(tmp_path / "groups.json", 4)
    assert message in str(error.value)


def test_a_large_file_is_read_across_blocks(tmp_path: Path) -> None:
    """Messages that straddle the reader's blocks, and one that is larger than a block."""
    nodes = [Node(id=index, name="n" * 700, type=4) for index in range(4000)]
    nodes.insert(2000, Node(id=9999, name="x" * 3_000_000, type=4))
    write_nodes(tmp_path / "g.0.et", nodes)
    assert [node.id for node in read_nodes(tmp_path / "g.0.et")] == [node.id for node in nodes]


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"needs the recorded ASTRA-sim cases in {CORPUS}")
def test_recorded_cases_keep_every_node(tmp_path: Path) -> None:
    for case in sorted(CORPUS.iterdir()):
        groups = case / "comm_group.json"
        graph = read_graph(case / "trace", groups_file=groups if groups.exists() else None)
        written = write_graph(graph, tmp_path / case.name)
        for rank, path in enumerate(written.ranks):
            assert _facts(case / f"trace.{rank}.et") == _facts(path), path


def _facts(path: Path) -> list[tuple[object, ...]]:
    """Every node less what no simulator reads: attribute types, zero groups, and dimensions beyond the network's."""
    facts = []
    for node in read_nodes(path):
        values: dict[str, object] = {"is_cpu_op": 0}
        for attribute in node.attr:
            kind = attribute.WhichOneof("value")
            assert kind is not None
            value = getattr(attribute, kind)
            flags = [at for at, flag in enumerate(value.values) if flag] if kind == "bool_list" else value
            if attribute.name != "pg_name" or flags not in ("", "0"):
                values.setdefault(attribute.name, flags) if attribute.name != "is_cpu_op" else values.update(
                    is_cpu_op=flags
                )
        waits = sorted({*node.data_deps, *node.ctrl_deps})
        known = {name: value for name, value in values.items() if name in KNOWN}
        facts.append((node.id, node.name, node.type, waits, node.duration_micros, sorted(known.items())))
    return facts


KNOWN = {
    *("is_cpu_op", "num_ops", "tensor_size", "comm_type", "comm_size", "comm_priority", "comm_tag"),
    *("comm_src", "comm_dst", "pg_name", "involved_dim"),
}


def chakra_python() -> str | None:
    """Return a Python that has MLCommons' chakra package: the one named by ORRERY_CHAKRA_PYTHON, or this one."""
    for python in (os.environ.get("ORRERY_CHAKRA_PYTHON"), sys.executable):
        if python and subprocess.run([python, "-c", "import chakra"], capture_output=True, check=False).returncode == 0:
            return python
    return None


@pytest.mark.external
@pytest.mark.parametrize(("tool", "suffix"), [("jsonizer.jsonizer", "json"), ("visualizer.visualizer", "graphml")])
def test_mlcommons_tools_open_our_files(tool: str, suffix: str, tmp_path: Path) -> None:
    python = chakra_python()
    if python is None:
        pytest.skip("no Python with the chakra package: name one in ORRERY_CHAKRA_PYTHON")
    path = write_graph(lower(transformer(2, 2), annotate=True), tmp_path / "g").ranks[0]
    output = tmp_path / f"out.{suffix}"
    command = [python, "-m", f"chakra.src.{tool}", "--input_filename", str(path), "--output_filename", str(output)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    text = output.read_text()
    assert all(node.name in text for node in read_nodes(path))


def test_a_graph_needs_no_particular_order_of_ranks(tmp_path: Path) -> None:
    graph = lower(transformer(1, 3))
    shuffled = ExecutionGraph(graph.rank_graphs[::-1], graph.groups)
    one, other = write_graph(graph, tmp_path / "a"), write_graph(shuffled, tmp_path / "b")
    assert [path.read_bytes() for path in one.ranks] == [path.read_bytes() for path in other.ranks]


def test_numbers_of_kinds_are_chakras() -> None:
    assert {kind.name: kind.value for kind in CollectiveType} == dict(et_def_pb2.CollectiveCommType.items())
    nodes = {name.removesuffix("_NODE"): value for name, value in et_def_pb2.NodeType.items()}
    assert {kind.name: kind.value for kind in NodeType} == nodes
