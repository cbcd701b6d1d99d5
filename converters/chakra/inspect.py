"""Shows .et files and compares them: any standard file, also ones that no simulator would run.

Names and texts are others': what is not printable in them is escaped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from converters.chakra.et_def_pb2 import AttributeProto, CollectiveCommType, Node, NodeType
from converters.chakra.nodes import read_metadata, read_nodes
from foundation.printable import printable, shorten

_SHOWN = 60
"""Characters of a value."""
_DOT_COLOURS = {
    NodeType.COMP_NODE: "lightblue",
    NodeType.MEM_LOAD_NODE: "khaki",
    NodeType.MEM_STORE_NODE: "khaki",
    NodeType.COMM_COLL_NODE: "lightpink",
    NodeType.COMM_SEND_NODE: "palegreen",
    NodeType.COMM_RECV_NODE: "palegreen",
}


def show_text(path: str | Path) -> Iterator[str]:
    """Yield one line a node: id, type, name, what it waits for, duration and attributes."""
    metadata = read_metadata(path)
    facts = " ".join(f"{printable(attribute.name)}={_short(_value(attribute))}" for attribute in metadata.attr)
    yield f"# version {printable(metadata.version) or '-'} {facts}".rstrip()
    for node in read_nodes(path):
        yield _line(node)


def show_json(path: str | Path) -> Iterator[str]:
    """Yield one JSON object a line: the metadata, then each node."""
    metadata = read_metadata(path)
    yield json.dumps({"version": metadata.version, "attr": _attributes(metadata.attr)})
    for node in read_nodes(path):
        yield json.dumps(as_dict(node))


def show_dot(path: str | Path) -> Iterator[str]:
    """Yield the dependency graph in Graphviz's language: data dependencies solid, control dependencies dashed."""
    yield "digraph trace {"
    yield "  node [shape=box, style=filled, fillcolor=white];"
    for node in read_nodes(path):
        colour = _DOT_COLOURS.get(node.type, "white")
        label = json.dumps(f"{node.id} {printable(node.name)}", ensure_ascii=False)
        yield f"  {node.id} [label={label}, fillcolor={colour}];"
        for parent in node.data_deps:
            yield f"  {parent} -> {node.id};"
        for parent in node.ctrl_deps:
            yield f"  {parent} -> {node.id} [style=dashed];"
    yield "}"


def differences(first: str | Path, second: str | Path) -> Iterator[str]:
    """Compare two files node by node, matched by id; yield one line for each difference."""
    left, right = ({node.id: node for node in read_nodes(path)} for path in (first, second))
    for node_id in sorted({*left, *right}):
        one, other = left.get(node_id), right.get(node_id)
        if one is not None and other is not None:
            yield from _node_differences(one, other)
        elif one is not None:
            yield f"node {node_id}: only in {printable(str(first))}: {_line(one)}"
        elif other is not None:
            yield f"node {node_id}: only in {printable(str(second))}: {_line(other)}"


def as_dict(node: Node) -> dict[str, Any]:
    """Return `node` as plain values, absent fields left out."""
    fields: dict[str, Any] = {"id": node.id, "name": node.name, "type": _type_name(node.type)}
    if node.data_deps:
        fields["data_deps"] = list(node.data_deps)
    if node.ctrl_deps:
        fields["ctrl_deps"] = list(node.ctrl_deps)
    for name in ("start_time_micros", "duration_micros"):
        if getattr(node, name):
            fields[name] = getattr(node, name)
    for name in ("inputs", "outputs"):
        if node.HasField(name):
            info = getattr(node, name)
            fields[name] = {"values": info.values, "shapes": info.shapes, "types": info.types}
    fields["attr"] = _attributes(node.attr)
    return fields


def _node_differences(one: Node, other: Node) -> Iterator[str]:
    if one.SerializeToString() == other.SerializeToString():
        return
    left, right = as_dict(one), as_dict(other)
    left.update({f"attr {name}": value for name, value in left.pop("attr").items()})
    right.update({f"attr {name}": value for name, value in right.pop("attr").items()})
    for field in sorted({*left, *right}):
        if left.get(field) != right.get(field):
            yield f"node {one.id}: {printable(field)}: {_short(left.get(field))} -> {_short(right.get(field))}"


def _line(node: Node) -> str:
    waits = ",".join(map(str, (*node.data_deps, *node.ctrl_deps))) or "-"
    attributes = " ".join(f"{printable(name)}={_short(value)}" for name, value in _attributes(node.attr).items())
    duration = f" {node.duration_micros} us" if node.duration_micros else ""
    name = printable(node.name)
    return f"{node.id}\t{_type_name(node.type)}\t{name}\twaits for {waits}{duration}\t{attributes}".rstrip()


def _type_name(value: int) -> str:
    return NodeType.Name(value).removesuffix("_NODE") if value in NodeType.values() else str(value)


def _attributes(attributes: Iterable[AttributeProto]) -> dict[str, Any]:
    return {attribute.name: _value(attribute) for attribute in attributes}


def _value(attribute: AttributeProto) -> Any:
    kind = attribute.WhichOneof("value")
    if kind is None:
        return None
    value = getattr(attribute, kind)
    if kind.endswith("_list"):
        return [_plain(item) for item in value.values]
    if attribute.name == "comm_type" and value in CollectiveCommType.values():
        return CollectiveCommType.Name(value)
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return a value that JSON can say: bytes in hexadecimal, and text for what is no finite number."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.hex() if isinstance(value, bytes) else value


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return shorten(text, _SHOWN)
