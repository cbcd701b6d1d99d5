"""The attributes of a node that simulators read: names, types and how a protobuf value becomes an integer.

The rules are ASTRA-sim's: the first attribute of a name counts, any integer type converts, a float does not.
"""

from __future__ import annotations

from typing import NamedTuple

from converters.chakra.et_def_pb2 import AttributeProto, Node
from converters.execution_graph import ABSENT, CollectiveType, NodeType

OWN_PREFIX = "orrery."
"""Attributes of our own: ``orrery.flops``, ``orrery.bytes``, ``orrery.layer``, ``orrery.request`` (docs/chakra.md)."""

MAX_DIMS = 62
INTEGER_KINDS = frozenset(
    f"{name}_val"
    for name in (
        *("int32", "int64", "uint32", "uint64", "sint32", "sint64"),
        *("fixed32", "fixed64", "sfixed32", "sfixed64", "bool"),
    )
)


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
    if node.type not in NodeType._value2member_map_:
        raise BadAttributeError(f"node type {node.type} is unknown (0 to {max(NodeType)} exist)")
    values: dict[str, AttributeProto] = {}
    own: list[tuple[str, int]] = []
    for attribute in node.attr:
        values.setdefault(attribute.name, attribute)
    for name, attribute in values.items():
        if name.startswith(OWN_PREFIX) and attribute.WhichOneof("value") in INTEGER_KINDS:
            own.append((name, _integer(attribute)))
    cpu = _optional(values, "is_cpu_op")
    comm_type = _optional(values, "comm_type")
    return NodeRow(
        node_id=_bounded("id", node.id),
        node_type=node.type,
        is_cpu_op=cpu not in (ABSENT, 0),
        name=node.name,
        duration_us=_bounded("duration_micros", node.duration_micros),
        num_ops=_optional(values, "num_ops"),
        tensor_size=_optional(values, "tensor_size"),
        comm_type=-1 if comm_type == ABSENT else _collective(comm_type),
        comm_size=_optional(values, "comm_size"),
        comm_priority=_optional(values, "comm_priority"),
        comm_tag=_optional(values, "comm_tag"),
        comm_src=_optional(values, "comm_src"),
        comm_dst=_optional(values, "comm_dst"),
        comm_group=_group(values) if int(node.type) == NodeType.COMM_COLL else 0,
        involved_dims=_dims(values),
        dependencies=tuple(dict.fromkeys((*node.data_deps, *node.ctrl_deps))),
        own=tuple(own),
    )


def _bounded(name: str, value: int) -> int:
    if not -(1 << 63) < value < 1 << 63:
        raise BadAttributeError(f"{name} is {value}, which does not fit 63 bits")
    return value


def _integer(attribute: AttributeProto) -> int:
    kind = attribute.WhichOneof("value")
    if kind not in INTEGER_KINDS:
        raise BadAttributeError(f"attribute {attribute.name} is {kind or 'empty'}, but an integer is needed")
    return _bounded(attribute.name, int(getattr(attribute, kind)))


def _optional(values: dict[str, AttributeProto], name: str) -> int:
    attribute = values.get(name)
    return ABSENT if attribute is None else _integer(attribute)


def _collective(value: int) -> int:
    if value not in CollectiveType._value2member_map_:
        raise BadAttributeError(f"comm_type {value} is unknown (0 to {max(CollectiveType)} exist)")
    return value


def _group(values: dict[str, AttributeProto]) -> int:
    """Return the communicator id that `pg_name` holds as text; none, empty and "0" mean all ranks."""
    attribute = values.get("pg_name")
    if attribute is None:
        return 0
    text = attribute.string_val
    if attribute.WhichOneof("value") != "string_val" or not (text == "" or (text.isascii() and text.isdigit())):
        raise BadAttributeError(f"pg_name {text!r} is not the text of an integer")
    if len(text) > 9:
        raise BadAttributeError(f"pg_name {text[:12]}... is beyond 32 bits")
    return int(text or "0")


def _dims(values: dict[str, AttributeProto]) -> int:
    """Return `involved_dim` (a list of bool) as a bit mask."""
    attribute = values.get("involved_dim")
    if attribute is None:
        return ABSENT
    if attribute.WhichOneof("value") != "bool_list":
        raise BadAttributeError("attribute involved_dim must be a bool_list")
    flags = attribute.bool_list.values
    if len(flags) > MAX_DIMS:
        raise BadAttributeError(f"involved_dim lists {len(flags)} dimensions, more than {MAX_DIMS}")
    return sum(1 << dim for dim, involved in enumerate(flags) if involved)
