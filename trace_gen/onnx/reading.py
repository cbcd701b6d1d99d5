"""An ONNX file -> `Graph`. Weights are not needed: what lies in other files is not opened, large tensors are dropped.

Fused operators of a residual addition and a norm become an `Add` and a norm here, so that what follows knows one form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foundation.bounds import ONNX_BYTES
from foundation.errors import UserError
from foundation.files import read_bytes
from trace_gen.onnx.graph import MICROSOFT, Graph, Input, Node, Tensor, Values

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

MOST_NODES = 1 << 20
"""Nodes of a graph; the exports of the deepest models have some ten thousands."""
MOST_VALUES = 4096
"""Elements of the tensors whose values are kept: shapes, axes, scalars."""
MOST_ELEMENTS = 1 << 50
"""Elements of one tensor; the largest models have fewer."""
_SKIP_NORMS = {"SkipLayerNormalization": "LayerNormalization", "SkipSimplifiedLayerNormalization": "RMSNormalization"}
"""onnxruntime's residual addition with a norm -> the norm."""
_INPUTS = {**dict.fromkeys(_SKIP_NORMS, 3), "SimplifiedLayerNormalization": 2, "MatMulNBits": 3, "RotaryEmbedding": 3}
"""The inputs that onnxruntime's operators need."""


def read_graph(path: Path) -> Graph:
    """Return the graph of a file of at most 2 GiB (protobuf's limit). Raises `UserError` without the file's name."""
    model = _parse(path)
    versions = {entry.domain or "ai.onnx": int(entry.version) for entry in model.opset_import}
    opset = versions.get("ai.onnx", 0)
    if not 7 <= opset <= _known_opset():
        known = f"known are 7 to {_known_opset()}"
        raise UserError(f"opset {opset} of ONNX's operators: {known}", fix="export it anew, or install a newer onnx")
    if len(model.functions):
        fix = "inline them with onnx.inliner.inline_local_functions"
        raise UserError(f"{len(model.functions)} functions of its own, which are not read", fix=fix)
    proto = model.graph
    if len(proto.node) > MOST_NODES:
        raise UserError(f"{len(proto.node)} nodes; at most {MOST_NODES} are read", fix="is this a decoder?")
    if len(proto.sparse_initializer):
        raise UserError("sparse weights are not modelled", fix="export it with dense ones")
    tensors = {tensor.name: _tensor(tensor) for tensor in proto.initializer}
    nodes = tuple(_nodes(proto, tensors))
    inputs = {entry.name: _input(entry) for entry in proto.input if entry.name not in tensors}
    graph = Graph(nodes, tensors, inputs, tuple(entry.name for entry in proto.output), opset)
    _check_order(graph)
    return graph


def _parse(path: Path) -> ModelProto:
    try:
        import onnx
    except ImportError:
        fix = "install it: pip install 'orrery-sim[onnx]'"
        raise UserError("reading ONNX files needs the onnx package, which is not installed", fix=fix) from None
    from google.protobuf.message import DecodeError

    content = read_bytes(path, "ONNX model", ONNX_BYTES)
    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, UnicodeDecodeError):  # which of them for bytes that are no text differs by protobuf
        raise UserError("is no ONNX model, or a damaged one", fix="export it anew") from None
    if not model.HasField("graph") or not len(model.graph.node):
        raise UserError("holds no graph", fix="is this an ONNX model?")
    return model


def _known_opset() -> int:
    from onnx.defs import onnx_opset_version

    return onnx_opset_version()


def _tensor(proto: TensorProto) -> Tensor:
    dims = tuple(int(size) for size in proto.dims)
    if any(size < 0 for size in dims) or prod(dims) > MOST_ELEMENTS:
        raise UserError(f"tensor {proto.name[:120]!r} has sizes {dims[:8]}", fix="the file is damaged: export it anew")
    return Tensor(dims, int(proto.data_type), _value(proto) if prod(dims) <= MOST_VALUES else None)


def _value(proto: TensorProto) -> Values | None:
    """Return the value of a small tensor; None where it lies in another file or does not fit its sizes."""
    from onnx import TensorProto as Proto
    from onnx.numpy_helper import to_array

    if proto.data_location == Proto.EXTERNAL:
        return None
    try:
        return np.asarray(to_array(proto))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError):
        return None


def _input(proto: Any) -> Input:
    kind = proto.type.tensor_type
    if not kind.HasField("shape"):
        return Input(None, int(kind.elem_type))
    dims = tuple(_size(one) for one in kind.shape.dim)
    if any(isinstance(size, int) and size > MOST_ELEMENTS for size in dims):
        raise UserError(f"input {proto.name[:120]!r} has sizes {dims[:8]}", fix="the file is damaged: export it anew")
    return Input(dims, int(kind.elem_type))


def _size(dimension: Any) -> int | str | None:
    which = dimension.WhichOneof("value")
    if which == "dim_value" and dimension.dim_value > 0:
        return int(dimension.dim_value)
    return str(dimension.dim_param) if which == "dim_param" and dimension.dim_param else None


def _nodes(proto: GraphProto, tensors: dict[str, Tensor]) -> Iterator[Node]:
    """Yield the graph's nodes; constants go into `tensors` instead."""
    index = 0
    for one in proto.node:
        node = _node(index, one)
        constant = _constant(node) if node.op == "Constant" and not node.domain else None
        if constant is not None and node.outputs:
            tensors[node.outputs[0]] = constant
            continue
        for made in _taken_apart(node) if node.op in _SKIP_NORMS else (node,):
            yield made
            index += 1


def _node(index: int, proto: NodeProto) -> Node:
    from onnx import AttributeProto

    for attribute in proto.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            title = Node(index, proto.op_type, "", proto.name, (), tuple(proto.output), {}, b"").title
            fix = "export it for one way, without branches and loops"
            raise UserError("control flow is not modelled", field=title, fix=fix)
    ordered = sorted(proto.attribute, key=lambda attribute: str(attribute.name))
    domain = "" if proto.domain == "ai.onnx" else str(proto.domain)
    told = b"".join(attribute.SerializeToString(deterministic=True) for attribute in ordered)
    return Node(
        index,
        str(proto.op_type),
        domain,
        str(proto.name),
        tuple(proto.input),
        tuple(proto.output),
        dict(_attributes(ordered)),
        f"{domain}:{proto.op_type}:".encode() + told,
        proto,
    )


def _attributes(attributes: Iterable[AttributeProto]) -> Iterator[tuple[str, Any]]:
    from onnx.helper import get_attribute_value

    for attribute in attributes:
        try:
            value = get_attribute_value(attribute)
        except ValueError:
            continue  # of no type that is known; who needs it finds it missing
        yield str(attribute.name), value


def _constant(node: Node) -> Tensor | None:
    from onnx import TensorProto as Proto

    for name, value in node.attributes.items():
        if name == "value" and isinstance(value, Proto):
            return _tensor(value)
        if name in ("value_int", "value_ints"):
            array = np.asarray(value, dtype=np.int64)
            return Tensor(array.shape, int(Proto.INT64), array)
        if name in ("value_float", "value_floats"):
            array = np.asarray(value, dtype=np.float32)
            return Tensor(array.shape, int(Proto.FLOAT), array)
    return None


def _taken_apart(node: Node) -> Iterator[Node]:
    """Yield onnxruntime's `Skip...Normalization` as additions and a norm.

    Inputs: input, skip, weight, then bias of the norm (LayerNorm only), and a bias of the addition; outputs: the
    norm's, two that inference leaves out, and the sum.
    """
    norm = _SKIP_NORMS[node.op]
    layer = norm == "LayerNormalization"
    total = (node.outputs[3] if len(node.outputs) > 3 else "") or f"{next(iter(node.outputs), '')}|sum"
    bias = node.input(4 if layer else 3)
    skip, index = node.input(1), node.index
    made: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
    if bias:
        made.append(("Add", (skip, bias), (f"{total}|biased",)))
        skip = f"{total}|biased"
    made.append(("Add", (node.input(0), skip), (total,)))
    weights = tuple(filter(None, (node.input(2), node.input(3) if layer else "")))
    made.append((norm, (total, *weights), node.outputs[:1]))
    for op, inputs, outputs in made:
        domain = MICROSOFT if op == norm else ""
        yield Node(index, op, domain, node.name, inputs, outputs, {}, f"{domain}:{op}:".encode())
        index += 1


@cache
def _least_inputs(op: str, domain: str, opset: int) -> int:
    """Return the inputs that an operator needs; of those that ONNX does not describe, what is read here."""
    from onnx.defs import SchemaError, get_schema

    try:
        return int(get_schema(op, opset, domain).min_input)
    except SchemaError:
        return _INPUTS.get(op, 1)


def _check_order(graph: Graph) -> None:
    """Refuse a graph whose nodes lack inputs, or read what is made later."""
    known = {"", *graph.tensors, *graph.inputs}
    for node in graph.nodes:
        least = _least_inputs(node.op, node.domain, graph.opset)
        if not all(node.input(at) for at in range(least)) or not node.outputs or not node.outputs[0]:
            what = f"lacks inputs or outputs: {least} and 1 are needed"
            raise UserError(what, field=node.title, fix="the file is damaged: export it anew")
        for name in node.inputs:
            if name not in known:
                what = f"reads {name[:120]!r}, which nothing before it makes"
                raise UserError(what, field=node.title, fix="the file is damaged: export it anew")
        for name in node.outputs:
            if name and name in known:
                what = f"makes {name[:120]!r}, which is there already"
                raise UserError(what, field=node.title, fix="the file is damaged: export it anew")
            known.add(name)
    for name in graph.outputs:
        if name not in known:
            raise UserError(f"output {name[:120]!r} is made by nothing", fix="the file is damaged: export it anew")
