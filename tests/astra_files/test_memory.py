"""memory.json and the file of per-node custom collectives: read, written, refused with line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from astra_files.memory import RemoteMemoryConfig
from astra_files.per_node import read_per_node
from astra_files.system import SystemConfig
from foundation.errors import UserError

PER_NODE = {
    "memory-type": "PER_NODE_MEMORY_EXPANSION",
    "remote-mem-latency": 100,
    "remote-mem-bw": 25,
    "num-nodes": 3,
    "num-npus-per-node": 4,
}


def memory(**changes: Any) -> str:
    """The text of an NPU's own memory with `changes` (hyphens as underscores)."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    return json.dumps({"memory-type": "PER_NPU_MEMORY_EXPANSION"} | named, indent=1)


def said(text: str) -> str:
    """The error that `text` is refused with."""
    with pytest.raises(UserError) as caught:
        RemoteMemoryConfig.from_text(text, "file")
    return str(caught.value)


def test_every_key_is_read_and_written() -> None:
    text = json.dumps(PER_NODE | {"note": [1]}, indent=1) + "\n"
    read = RemoteMemoryConfig.from_text(text)
    assert read == RemoteMemoryConfig("PER_NODE_MEMORY_EXPANSION", 100, 25, 3, 4, {"note": [1]})
    assert read.to_text() == text


def test_nodes_are_of_one_kind_of_memory_only() -> None:
    read = RemoteMemoryConfig.from_text(memory(num_nodes=3, num_npus_per_node=4, remote_mem_bw=2))
    assert read == RemoteMemoryConfig("PER_NPU_MEMORY_EXPANSION", 0, 2, 0, 0)
    assert json.loads(read.to_text()) == {
        "memory-type": "PER_NPU_MEMORY_EXPANSION",
        "remote-mem-latency": 0,
        "remote-mem-bw": 2,
    }


def test_numbers_are_truncated() -> None:
    read = RemoteMemoryConfig.from_text(memory(remote_mem_bw=2.9, remote_mem_latency=100.7))
    assert (read.remote_mem_bw, read.remote_mem_latency) == (2, 100)


@pytest.mark.parametrize(("key", "high"), [("remote-mem-latency", 10**12), ("remote-mem-bw", 2**63 - 1)])
def test_limits(key: str, high: int) -> None:
    for taken in (0, high):
        assert RemoteMemoryConfig.from_text(memory(**{key: taken}))
    for value in (-1, high + 1):
        assert said(memory(**{key: value})) == f"file, line 3, {key}: {value} is not a whole number from 0 to {high}"


def test_a_file_is_read_and_named(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    with pytest.raises(UserError, match=rf"^{path}: the memory configuration does not exist; check the path$"):
        RemoteMemoryConfig.from_file(path)
    path.write_text(memory(remote_mem_bw=3))
    assert RemoteMemoryConfig.from_file(path).remote_mem_bw == 3
    path.write_text("{}")
    with pytest.raises(UserError, match=rf"^{path}: memory-type is missing; give one of NO_MEMORY_EXPANSION, "):
        RemoteMemoryConfig.from_file(path)


@pytest.mark.parametrize("left_out", ["num-nodes", "num-npus-per-node"])
def test_nodes_need_their_numbers(left_out: str) -> None:
    values = PER_NODE | {left_out: 0}
    assert said(json.dumps(values, indent=1)) == (
        "file, line 6, num-npus-per-node: nodes or NPUs a node are 0 or missing; write both, at least 1"
    )
    assert RemoteMemoryConfig.from_text(json.dumps(PER_NODE | {left_out: 1}))


def test_unknown_kinds_are_refused() -> None:
    assert said('{"memory-type": "POOL"}') == 'file, line 1, memory-type: "POOL" is unknown; did you mean MEMORY_POOL?'


def per_node(folder: Path, text: str) -> SystemConfig:
    (folder / "nodes.yml").write_text(text)
    return SystemConfig(per_node_custom=str(folder / "nodes.yml"))


def test_per_node_collectives(tmp_path: Path) -> None:
    assert read_per_node(SystemConfig()) == {}
    assert read_per_node(per_node(tmp_path, "7: graphs/a\n0: b\n")) == {7: "graphs/a", 0: "b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- 1", ": not a mapping of node ids to prefixes; write one line a node: ID: PREFIX"),
        ("1: a\nx: b", ", line 2, x: not a node id; write one line a node: ID: PREFIX"),
        ("-1: a", ", line 1, -1: not a node id; write one line a node: ID: PREFIX"),
        ("1: 2", ", line 1, 1: 2 is not a string"),
        ("1: [", ", line 1: not valid YAML: "),
    ],
)
def test_per_node_mistakes(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_per_node(per_node(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'nodes.yml'}{expected}")


def test_a_per_node_file_that_is_not_there(tmp_path: Path) -> None:
    path = str(tmp_path / "none.yml")
    with pytest.raises(UserError, match=rf"^{path}: the file of per-node custom collectives does not exist"):
        read_per_node(SystemConfig(per_node_custom=path))
