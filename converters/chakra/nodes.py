"""Chakra nodes one at a time, as protobuf messages: for tools that show, compare or merge any standard .et file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from converters.chakra.et_def_pb2 import GlobalMetadata, Node
from converters.chakra.framing import FRAME_RULE, read_messages
from converters.chakra.wire import frame
from foundation.errors import UserError
from foundation.files import atomic_write, open_input

SCHEMA_VERSION = "0.0.4"
"""What `GlobalMetadata.version` says; no reader known to us checks it."""


def parse_metadata(message: bytes, path: str | Path) -> GlobalMetadata:
    """Parse a file's first message; a `UserError` says what the file looks like instead."""
    try:
        return GlobalMetadata.FromString(message)
    except DecodeError:
        hint = "it is not a Chakra execution trace"
        with open_input(path, "execution trace") as stream:
            if stream.read(2) == b"\x1f\x8b":
                hint = "the file is gzip-compressed: decompress it first"
        raise UserError("byte 0: the first message is not GlobalMetadata", path=path, fix=hint) from None


def parse_node(message: bytes, offset: int, path: str | Path) -> Node:
    """Parse one Node; `offset` is the frame's byte offset, for the error."""
    try:
        return Node.FromString(message)
    except DecodeError:
        raise UserError(f"byte {offset}: the message is not a Node", path=path, fix=FRAME_RULE) from None


def read_metadata(path: str | Path) -> GlobalMetadata:
    """Return the GlobalMetadata of `path`."""
    return parse_metadata(next(read_messages(path))[1], path)


def read_nodes(path: str | Path) -> Iterator[Node]:
    """Yield the nodes of `path` in file order, in constant memory; damage is a `UserError` naming the byte offset."""
    messages = read_messages(path)
    parse_metadata(next(messages)[1], path)
    for offset, message in messages:
        yield parse_node(message, offset, path)


def write_nodes(path: str | Path, nodes: Iterable[Node], metadata: GlobalMetadata | None = None) -> None:
    """Write `nodes` to `path`, streaming, all or nothing."""
    header = metadata if metadata is not None else GlobalMetadata(version=SCHEMA_VERSION)
    with atomic_write(path, "wb") as stream:
        stream.write(frame(header.SerializeToString()))
        for node in nodes:
            stream.write(frame(node.SerializeToString()))
