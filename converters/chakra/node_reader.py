"""Nodes as integers, quickly: the attributes of like nodes are parsed once.

A Node is most often written as its first fields (id, name, type, dependencies, duration) and then its attributes, and
the attributes repeat from layer to layer. So a message is cut at its first attribute; the few fields before it are
read here, and what follows is given to protobuf once for each distinct text of it. Work and bytes differ from node to
node where nothing else does: they are taken out first and read here, too. A message of any other layout is given to
protobuf whole, which gives the same row (tests compare).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from converters.chakra.attributes import BadAttributeError, NodeRow, node_row
from converters.chakra.et_def_pb2 import Node
from converters.chakra.nodes import parse_node
from foundation.errors import UserError

_ID, _NAME, _TYPE, _DATA_DEPS, _DURATION, _ATTRIBUTE = 0x08, 0x12, 0x18, 0x2A, 0x38, 0x52
"""Keys (field number and wire type) of the fields that are read here, and of an attribute."""
_NUMBERS = {
    b"\n" + bytes([len(name)]) + name.encode() + kind: name
    for name in ("num_ops", "tensor_size", "comm_size")
    for kind in (b"\x48", b"\x68")
}
"""How an attribute begins that is a number of its own node: the name, and the key of an int64 or uint64 value."""
TAILS_KEPT = 1 << 16
MAX_BITS = 63


class NodeReader:
    """Reads the nodes of many files; remembers attributes that it has seen."""

    def __init__(self) -> None:
        self._rows: dict[tuple[object, ...], NodeRow | None] = {}

    def read(self, message: bytes, offset: int, path: Path) -> NodeRow:
        """Return the row of one message; a `UserError` names `path`, the frame's byte `offset` and the node."""
        row = self._fast(message)
        if row is not None:
            return row
        node = parse_node(message, offset, path)
        try:
            return node_row(node)
        except BadAttributeError as error:
            raise UserError(f"byte {offset}, node {node.id} ({node.name!r}): {error}", path=path) from None

    def _fast(self, message: bytes) -> NodeRow | None:
        """Return the row of a message of the common layout, None for any other."""
        node_id = node_type = duration = at = 0
        name = parents = b""
        try:
            while at < len(message) and message[at] != _ATTRIBUTE:
                key, value, at = message[at], message[at + 1], at + 2
                if value > 0x7F:  # most are of one byte
                    value, at = _varint(message, at - 1)
                if key == _ID:
                    node_id = value
                elif key == _TYPE:
                    node_type = value
                elif key == _DURATION:
                    duration = value
                elif key == _NAME:
                    name, at = message[at : at + value], at + value
                elif key == _DATA_DEPS and not parents:
                    parents, at = message[at : at + value], at + value
                else:
                    return None
            if at > len(message):
                return None
            dependencies = list(parents) if parents.isascii() else _varints(parents)
            text = name.decode("utf-8")
        except (IndexError, UnicodeDecodeError):
            return None
        tail = self._tail(node_type, message[at:])
        if tail is None:
            return None
        row, numbers = tail
        return row._replace(
            node_id=node_id,
            name=text,
            duration_us=duration,
            dependencies=tuple(dict.fromkeys(dependencies)),
            **numbers,
        )

    def _tail(self, node_type: int, tail: bytes) -> tuple[NodeRow, dict[str, Any]] | None:
        """Return the row of a node that has a type and the attributes of `tail`, and what of it is to be replaced.

        None if `tail` holds anything else.
        """
        try:
            rest, numbers = _without_numbers(tail)
        except (IndexError, ValueError):
            rest, numbers = tail, {}
        key = (node_type, rest, *numbers)
        if key not in self._rows:
            if len(self._rows) >= TAILS_KEPT:
                self._rows.clear()
            twice = any(name.encode() in rest for name in numbers)  # the first of a name counts
            self._rows[key] = None if twice else _parse_tail(node_type, rest)
        row = self._rows[key]
        return None if row is None else (row, numbers)


def _without_numbers(tail: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return the attributes of `tail` that are not `_NUMBERS`, and the values of those that are.

    Raises `ValueError` or `IndexError` where it is not attributes throughout, or has a number twice.
    """
    rest, at = b"", 0
    numbers: dict[str, Any] = {}
    while at < len(tail):
        if tail[at] != _ATTRIBUTE:
            raise ValueError("a field behind the attributes")
        length, start = tail[at + 1], at + 2
        if length > 0x7F:
            length, start = _varint(tail, at + 1)
        end = start + length
        value_at = start + 3 + tail[start + 1]
        name = _NUMBERS.get(tail[start:value_at])
        if name is None:
            rest += tail[at:end]
        else:
            if name in numbers:
                raise ValueError("the first of a name counts")
            numbers[name], stop = _varint(tail, value_at)
            if stop != end:
                raise ValueError("more than a name and a number")
        at = end
    if at > len(tail):
        raise ValueError("an attribute that is cut off")
    return rest, numbers


def _parse_tail(node_type: int, tail: bytes) -> NodeRow | None:
    try:
        node = Node.FromString(tail)
        if {field.name for field, _ in node.ListFields()} - {"attr"}:
            return None
        node.type = node_type  # type: ignore[assignment]
        return node_row(node)
    except (BadAttributeError, ValueError, DecodeError):
        return None


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the varint at `at` and where it ends; `IndexError` where the message does."""
    value = message[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    shift = 7
    while True:
        at += 1
        byte = message[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift >= MAX_BITS:
            raise IndexError("a varint of more than 9 bytes")


def _varints(packed: bytes) -> list[int]:
    values = []
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        values.append(value)
    return values
