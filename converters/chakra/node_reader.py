"""Nodes as integers, quickly: the attributes of like nodes are parsed once.

A Node is most often written as its first fields (id, name, type, dependencies, duration) and then its attributes, and
the attributes repeat from layer to layer. So a message is cut at its first attribute; the few fields before it are
read here, and what follows is given to protobuf once for each distinct text of it. A message of any other layout is
given to protobuf whole, which gives the same row (tests compare).
"""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError

from converters.chakra.attributes import BadAttributeError, NodeRow, node_row
from converters.chakra.et_def_pb2 import Node
from converters.chakra.nodes import parse_node
from foundation.errors import UserError

_ID, _NAME, _TYPE, _DATA_DEPS, _DURATION, _ATTRIBUTE = 0x08, 0x12, 0x18, 0x2A, 0x38, 0x52
"""Keys (field number and wire type) of the fields that are read here, and of an attribute."""
TAILS_KEPT = 1 << 16
MAX_BITS = 63


class NodeReader:
    """Reads the nodes of many files; remembers attributes that it has seen."""

    def __init__(self) -> None:
        self._tails: dict[tuple[int, bytes], NodeRow | None] = {}

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
        fields = {_ID: 0, _TYPE: 0, _DURATION: 0}
        name, parents, at = b"", b"", 0
        try:
            while at < len(message) and message[at] != _ATTRIBUTE:
                key, value, at = message[at], message[at + 1], at + 2
                if value > 0x7F:  # most are of one byte
                    value, at = _varint(message, at - 1)
                if key in fields:
                    fields[key] = value
                elif key == _NAME:
                    name, at = message[at : at + value], at + value
                elif key == _DATA_DEPS and not parents:
                    parents, at = message[at : at + value], at + value
                else:
                    return None
            if at > len(message):
                return None
            dependencies = _varints(parents)
            text = name.decode("utf-8")
        except (IndexError, UnicodeDecodeError):
            return None
        tail = self._tail(fields[_TYPE], message[at:])
        if tail is None or max(*fields.values(), *dependencies) >> MAX_BITS:
            return None
        return tail._replace(
            node_id=fields[_ID],
            name=text,
            duration_us=fields[_DURATION],
            dependencies=tuple(dict.fromkeys(dependencies)),
        )

    def _tail(self, node_type: int, tail: bytes) -> NodeRow | None:
        """Return the row of a node that has a type and the attributes of `tail`, None if `tail` holds anything else."""
        key = (node_type, tail)
        if key not in self._tails:
            if len(self._tails) >= TAILS_KEPT:
                self._tails.clear()
            self._tails[key] = _parse_tail(node_type, tail)
        return self._tails[key]


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
        if shift > MAX_BITS:
            raise IndexError("a varint of more than 9 bytes")


def _varints(packed: bytes) -> list[int]:
    values = []
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        values.append(value)
    return values
