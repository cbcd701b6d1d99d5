"""The bytes of a Node, made without protobuf objects: what is written every iteration must be made in microseconds.

Attributes are written in one order: is_cpu_op, num_ops, tensor_size, comm_type, comm_size, comm_priority, pg_name,
involved_dim, comm_tag, our own, comm_src, comm_dst. Tests compare with protobuf's own bytes.
"""

from __future__ import annotations

from functools import lru_cache

from converters.chakra.framing import encode_varint

INVOLVED_DIMS_WRITTEN = 4
"""ASTRA-sim indexes `involved_dim` by network dimension without a bounds check; its own default has 4 entries."""

# Field keys of AttributeProto's value: (field number << 3) | wire type.
INT32, INT64, UINT32, UINT64, BOOL = 7 << 3, 9 << 3, 11 << 3, 13 << 3, 27 << 3
_BOOL_LIST, _STRING = 28 << 3 | 2, 29 << 3 | 2
_LENGTHS = tuple(encode_varint(length) for length in range(512))

ATTRIBUTE_KEYS = {
    "is_cpu_op": BOOL,
    "num_ops": UINT64,
    "tensor_size": UINT64,
    "comm_type": INT64,
    "comm_size": INT64,
    "comm_priority": UINT32,
    "comm_tag": INT32,
    "comm_src": INT32,
    "comm_dst": INT32,
}
"""The protobuf type of every integer attribute; our own are int64."""


def head(node_id: int, name: str, node_type: int, parents: bytes, duration_us: int) -> bytes:
    """Encode fields 1 to 7 of a Node; `parents` is the ids it waits for, each a varint."""
    encoded = b"\x08" + encode_varint(node_id) if node_id else b""
    if name:
        encoded += field(2, name.encode())
    if node_type:
        encoded += b"\x18" + encode_varint(node_type)
    if parents:
        encoded += field(5, parents)
    return encoded + (b"\x38" + encode_varint(duration_us) if duration_us else b"")


@lru_cache(maxsize=4096)
def integer(name: str, value: int) -> bytes:
    """Encode an integer attribute; negative ones as protobuf does, in two's complement of 64 bits."""
    key = encode_varint(ATTRIBUTE_KEYS.get(name, INT64))
    return field(10, field(1, name.encode()) + key + encode_varint(value & 0xFFFF_FFFF_FFFF_FFFF))


def group_name(group: int) -> bytes:
    """Encode the communicator id as the text that `pg_name` is."""
    return field(10, field(1, b"pg_name") + _keyed(_STRING, str(group).encode()))


def involved(mask: int) -> bytes:
    """Encode a bit mask of network dimensions as `involved_dim`."""
    flags = bytes(mask >> dim & 1 for dim in range(max(INVOLVED_DIMS_WRITTEN, mask.bit_length())))
    return field(10, field(1, b"involved_dim") + _keyed(_BOOL_LIST, field(1, flags)))


def field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field."""
    return _keyed(number << 3 | 2, content)


def frame(message: bytes) -> bytes:
    """Return `message` with its length before it."""
    length = len(message)
    return (_LENGTHS[length] if length < len(_LENGTHS) else encode_varint(length)) + message


def _keyed(key: int, content: bytes) -> bytes:
    return encode_varint(key) + encode_varint(len(content)) + content
