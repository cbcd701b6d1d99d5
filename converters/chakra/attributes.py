"""The attributes of a node that simulators read: names, types and how a protobuf value becomes an integer.

The rules are ASTRA-sim's: the first attribute of a name counts, any integer type converts, a float does not.
"""

from __future__ import annotations

from typing import NamedTuple

from converters.chakra.et_def_pb2 import AttributeProto, Node
from converters.execution_graph import ABSENT, CollectiveType, NodeType
from foundation.printable import shorten

OWN_PREFIX = "orrery."
"""Attributes of our own: ``orrery.flops``, ``orrery.bytes``, ``orrery.layer``, ``orrery.request`` (docs/chakra.md)."""

MAX_DIMS = 62
MAX_INT32 = 2**31 - 1
_LONGEST_INT32 = len(str(MAX_INT32))
INTEGER_KINDS = frozenset(
    f"{name}_val"
    for name in (
        *("int32", "int64", "uint32", "uint64", "sint32", "sint64"),
        *("fixed32", "fixed64", "sfixed32", "sfixed64", "bool"),
    )
)
_INTEGERS = frozenset(
    {
        *("is_cpu_op", "num_ops", "tensor_size", "comm_type", "comm_size", "comm_priority"),
        *("comm_tag", "comm_src", "comm_dst"),
    }
)
_MEMORY, _MESSAGES = (NodeType.MEM_LOAD, NodeType.MEM_STORE), (NodeType.COMM_SEND, NodeType.COMM_RECV)
_READ_ON = {
    "num_ops": (NodeType.COMP,),
    "tensor_size": (NodeType.COMP, *_MEMORY),
    "comm_type": (NodeType.COMM_COLL,),
    "comm_size": (NodeType.COMM_COLL, *_MESSAGES),
    "comm_priority": (NodeType.COMM_COLL,),
    "involved_dim": (NodeType.COMM_COLL,),
    "comm_tag": _MESSAGES,
    "comm_src": _MESSAGES,
    "comm_dst": _MESSAGES,
}
"""The node types on which ASTRA-sim reads an attribute (others: on all). Elsewhere any value of it may stand."""
_NODE_TYPES = frozenset(map(int, NodeType))
_COMM_TYPES = frozenset({-1, *map(int, CollectiveType)})


class NodeRow(NamedTuple):
    """One node with its attributes as integers (`ABSENT` where missing); peers are ranks, dependencies are ids."""

    node_id: int
    node_type: int
    is_cpu_op: bool
    name: str
    duration_us: int
    num_ops: int
    tensor_size: int
    comm_type: int
    comm_size: int
    comm_priority: int
    comm_tag: int
    comm_src: int
    comm_dst: int
    comm_group: int
    involved_dims: int
    dependencies: tuple[int, ...]
    own: tuple[tuple[str, int], ...]


class BadAttributeError(Exception):
    """An attribute has a type or value that ASTRA-sim could not use; the text says which and why."""


def node_row(node: Node) -> NodeRow:
    """Return `node` as integers; `BadAttributeError` when one is out of range or has the wrong type."""
    node_type = int(node.type)
    if node_type not in _NODE_TYPES:
        raise BadAttributeError(f"node type {node_type} is unknown (0 to {max(NodeType)} exist)")
    values: dict[str, int] = {}
    own: dict[str, int] = {}
    for attribute in node.attr:
        name = attribute.name
        if name in values:
            continue
        if name in _READ_ON and node_type not in _READ_ON[name] and not _readable(attribute):
            continue  # other programs' own use of the name
        if name in _INTEGERS:
            values[name] = _integer(attribute)
        elif name == "pg_name" and node_type == NodeType.COMM_COLL:
            values[name] = _group(attribute)
        elif name == "involved_dim":
            values[name] = _dims(attribute)
        elif name.startswith(OWN_PREFIX) and name not in own and attribute.WhichOneof("value") in INTEGER_KINDS:
            own[name] = _integer(attribute)
    get = values.get
    comm_type = get("comm_type", -1)
    if comm_type not in _COMM_TYPES:
        raise BadAttributeError(f"comm_type {comm_type} is unknown (0 to {max(CollectiveType)} exist)")
    return NodeRow(
        node_id=_bounded("id", node.id),
        node_type=node_type,
        is_cpu_op=bool(get("is_cpu_op", 0)),
        name=node.name,
        duration_us=_bounded("duration_micros", node.duration_micros),
        num_ops=get("num_ops", ABSENT),
        tensor_size=get("tensor_size", ABSENT),
        comm_type=comm_type,
        comm_size=get("comm_size", ABSENT),
        comm_priority=get("comm_priority", ABSENT),
        comm_tag=get("comm_tag", ABSENT),
        comm_src=get("comm_src", ABSENT),
        comm_dst=get("comm_dst", ABSENT),
        comm_group=get("pg_name", 0),
        involved_dims=get("involved_dim", ABSENT),
        dependencies=tuple(dict.fromkeys((*node.data_deps, *node.ctrl_deps))),
        own=tuple(own.items()),
    )


def _readable(attribute: AttributeProto) -> bool:
    """Return whether the value has the type that simulators read under this name."""
    if attribute.name == "involved_dim":
        return bool(attribute.WhichOneof("value") == "bool_list")
    kind: str | None = attribute.WhichOneof("value")
    return kind in INTEGER_KINDS


def _bounded(name: str, value: int) -> int:
    if not -(1 << 63) < value < 1 << 63:
        raise BadAttributeError(f"{name} is {value}, which does not fit 63 bits")
    return value


def _integer(attribute: AttributeProto) -> int:
    kind = attribute.WhichOneof("value")
    if kind not in INTEGER_KINDS:
        raise BadAttributeError(f"attribute {attribute.name} is {kind or 'empty'}, but an integer is needed")
    return _bounded(attribute.name, int(getattr(attribute, kind)))


def _group(attribute: AttributeProto) -> int:
    """Return the communicator id that `pg_name` holds as text; empty and "0" mean all ranks."""
    text = attribute.string_val
    if attribute.WhichOneof("value") != "string_val" or not (text == "" or (text.isascii() and text.isdigit())):
        raise BadAttributeError(f"pg_name {text!r} is not the text of an integer")
    digits = text.lstrip("0") or "0"
    if len(digits) > _LONGEST_INT32 or int(digits) > MAX_INT32:
        raise BadAttributeError(f"pg_name {shorten(text)} is beyond 32 bits")
    return int(digits)


def _dims(attribute: AttributeProto) -> int:
    """Return `involved_dim` (a list of bool) as a bit mask."""
    if attribute.WhichOneof("value") != "bool_list":
        raise BadAttributeError("attribute involved_dim must be a bool_list")
    flags = attribute.bool_list.values
    if len(flags) > MAX_DIMS:
        raise BadAttributeError(f"involved_dim lists {len(flags)} dimensions, more than {MAX_DIMS}")
    return sum(1 << dim for dim, involved in enumerate(flags) if involved)
