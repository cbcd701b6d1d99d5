"""The frame of a .et file: ``varint(length) message``, repeated to the end. Knows nothing of what a message holds.

Every length is checked against what the file still holds before anything is allocated, so a damaged file costs at
most a constant factor of its size and always ends in a `UserError` that names the byte offset.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from foundation.errors import UserError
from foundation.files import open_input, reason

BLOCK_BYTES = 1 << 20
MAX_VARINT_BYTES = 5
"""Lengths are 32-bit varints."""
FRAME_RULE = "a .et file is varint(length) GlobalMetadata, then varint(length) Node, repeated"


def encode_varint(value: int) -> bytes:
    """Encode a non-negative integer below 2^64 as a protobuf varint."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_messages(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yield ``(byte offset of the frame, message bytes)`` of every message of `path`, in file order.

    The first is the GlobalMetadata. Memory stays near the largest message. A missing, empty or truncated file and a
    length beyond the end are a `UserError`.
    """
    with open_input(path, "execution trace") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size == 0:
            raise UserError("the execution trace is empty", path=path, fix=FRAME_RULE)
        try:
            yield from _messages(stream, size, path)
        except OSError as error:
            raise UserError(f"the execution trace cannot be read: {reason(error)}", path=path) from error


def _messages(stream: BinaryIO, size: int, path: str | Path) -> Iterator[tuple[int, bytes]]:
    buffer, position, base = b"", 0, 0  # `base`: file offset of buffer[0]
    while True:
        if len(buffer) - position < MAX_VARINT_BYTES:
            base += position
            buffer, position = buffer[position:] + stream.read(BLOCK_BYTES), 0
            if not buffer:
                return
        offset = base + position
        length, start = buffer[position], position + 1
        if length > 0x7F:  # most are of one byte
            length, start = _length(buffer, position, offset, path)
        end = start + length
        if end > len(buffer):
            if base + end > size:
                remain = size - base - start
                raise UserError(
                    f"byte {offset}: a message of {length} bytes begins, but {max(remain, 0)} remain in the file",
                    path=path,
                    fix=f"the file is truncated or not a Chakra trace ({FRAME_RULE})",
                )
            base += start
            buffer = buffer[start:] + stream.read(max(BLOCK_BYTES, end - len(buffer)))
            start, end = 0, length
            if len(buffer) < end:
                raise UserError(f"byte {offset}: the file became shorter while it was read", path=path)
        yield offset, buffer[start:end]
        position = end


def _length(buffer: bytes, position: int, offset: int, path: str | Path) -> tuple[int, int]:
    """Return the length at `position` and where its message starts."""
    value = 0
    for index in range(MAX_VARINT_BYTES):
        if position + index >= len(buffer):
            raise UserError(f"byte {offset}: the file ends inside a length", path=path, fix=FRAME_RULE)
        byte = buffer[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise UserError(f"byte {offset}: a length of more than {MAX_VARINT_BYTES} bytes", path=path, fix=FRAME_RULE)
